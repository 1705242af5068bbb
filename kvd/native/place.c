/*
 * How a written file gets the name of its key while the key is locked: what comes behind the
 * look at what the key has now, and behind the decision that it may be replaced. Both ways
 * take these steps: the fast path (publish.c), and kvd.store.tree by kvd.store.placing, which
 * has the same in Python for an installation without a compiler.
 */

#include "fast_path.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* The epoch that the fraction of the time of the file of locks is; 0 for none
   (kvd.store.epochs). */
long
epoch_in(long nanosecond)
{
    return nanosecond % 1000 ? nanosecond : 0;
}

PyObject *
epoch_of_fraction(PyObject *Py_UNUSED(module), PyObject *nanosecond)
{
    long fraction = PyLong_AsLong(nanosecond);
    if (fraction == -1 && PyErr_Occurred())
        return NULL;
    return PyLong_FromLong(epoch_in(fraction));
}

/* The present epoch, by an open file of locks; 0 for none. */
long
epoch_of_lock(int lock)
{
    struct stat status;
    return lock < 0 || fstat(lock, &status) < 0 ? 0 : epoch_in(status.st_mtim.tv_nsec);
}

/* Whether the last byte of an open file has no place on the disk yet, as
   kvd.store.unwritten says. */
static int
is_without_place(int file, unsigned long long bytes)
{
    struct {
        struct fiemap map;
        struct fiemap_extent extent;
    } found = {.map = {.fm_start = bytes - 1, .fm_length = 1, .fm_extent_count = 1}};
    return bytes != 0 && ioctl(file, FS_IOC_FIEMAP, &found) == 0
        && found.map.fm_mapped_extents > 0
        && (found.extent.fe_flags & FIEMAP_EXTENT_DELALLOC);
}

PyObject *
has_no_place(PyObject *Py_UNUSED(module), PyObject *args)
{
    int file, is_without;
    unsigned long long bytes;
    if (!PyArg_ParseTuple(args, "iK:has_no_place", &file, &bytes))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    is_without = is_without_place(file, bytes);
    Py_END_ALLOW_THREADS
    return PyBool_FromLong(is_without);
}

/*
 * Whether a value that was replaced and is kept under a name has never been on the disk, as
 * kvd.store.epochs says.
 */
static int
is_unsynced(const Placing *placing, const char *kept, const Present *value)
{
    if (value->epoch == 0 || epoch_of_lock(placing->lock) != value->epoch)
        return 0;
    int file = openat(placing->uploads, kept, placing->read_flags);
    if (file < 0)
        return 0;
    int is_without = is_without_place(file, value->bytes);
    close(file);
    return is_without;
}

/*
 * Whether there is too little room to keep a value of a size that is replaced, as
 * kvd.store.tree says.
 */
int
is_scarce(const Keeping *keeping, const Space *space, unsigned long long size)
{
    return space->free < Py_MIN(space->all / keeping->share, keeping->bytes)
        || size > space->free / keeping->times;
}

PyObject *
is_scarce_for(PyObject *Py_UNUSED(module), PyObject *args)
{
    Keeping keeping;
    Space space;
    unsigned long long size;
    if (!PyArg_ParseTuple(args, "KKKKKK:is_scarce", &keeping.share, &keeping.bytes,
                          &keeping.times, &size, &space.free, &space.all))
        return NULL;
    if (keeping.share == 0 || keeping.times == 0) {
        PyErr_SetString(PyExc_ValueError, "a share of 0, or no times");
        return NULL;
    }
    return PyBool_FromLong(is_scarce(&keeping, &space, size));
}

/* Exchange two names, as kvd.store.exchange says. */
static int
exchange(int folder, const char *name, int other_folder, const char *other_name)
{
    return renameat2(folder, name, other_folder, other_name, RENAME_EXCHANGE);
}

PyObject *
exchange_names(PyObject *Py_UNUSED(module), PyObject *args)
{
    int folder, other_folder;
    PyObject *name, *other_name;
    if (!PyArg_ParseTuple(args, "iSiS:exchange_names", &folder, &name, &other_folder,
                          &other_name))
        return NULL;
    const char *text = PyBytes_AsString(name), *other = PyBytes_AsString(other_name);
    int done;
    Py_BEGIN_ALLOW_THREADS
    done = exchange(folder, text, other_folder, other);
    Py_END_ALLOW_THREADS
    if (done < 0)
        return PyErr_SetFromErrnoWithFilenameObjects(PyExc_OSError, name, other_name);
    Py_RETURN_NONE;
}

/* Remove a file from the folder of uploads. If this fails, it is removed with its folder
   later. */
static void
drop(Placing *placing, const char *name)
{
    if (unlinkat(placing->uploads, name, 0) < 0) {
        placing->left = name;
        placing->left_error = errno;
    }
}

/*
 * Seal a file, unless it is sealed already, and give it its key's name in a folder, while the
 * key is locked.
 *
 * If what it replaces is kept, that stays, unless no sync has begun since it was published:
 * under a second name that it gets before, or under the name that the upload had.
 *
 * Returns CREATED, REPLACED, KEPT if what it replaced stays. Otherwise nothing was done but
 * to seal the file: SCARCE, if there is too little room to keep what it replaces; UNSEALED,
 * UNLINKED or UNNAMED, with errno, if it cannot be sealed, what it replaces cannot have a
 * second name, or it cannot have its own.
 */
int
place_file(Placing *placing, const Present *present, Seal *seal)
{
    int keeps = present->exists && placing->keeps;
    int links = keeps && placing->kept != NULL;
    int exchanges = present->exists && (placing->exchanges || (keeps && !links));
    if (keeps && is_scarce(placing->keeping, placing->space, present->bytes))
        return SCARCE;
    if (!is_sealed(seal, placing->now_us, present->earliest_us, placing->epoch)) {
        errno = EINVAL;
        if (!placing->may_seal
            || seal_file(placing->ahead_seconds, placing->file, seal, placing->now_us,
                         present->earliest_us, placing->epoch) < 0)
            return UNSEALED;
    }
    if (links && linkat(placing->folder, placing->name, placing->uploads, placing->kept, 0) < 0)
        return errno == ENOENT ? UNNAMED : UNLINKED;
    if ((exchanges ? exchange(placing->uploads, placing->upload, placing->folder, placing->name)
                   : renameat(placing->uploads, placing->upload, placing->folder,
                              placing->name)) < 0) {
        int reason = errno;
        if (links)
            drop(placing, placing->kept);
        errno = reason;
        return UNNAMED;
    }
    const char *kept = links ? placing->kept : placing->upload;
    int stays = keeps && !is_unsynced(placing, kept, present);
    if (exchanges && (links || !stays))
        drop(placing, placing->upload);
    if (links && !stays)
        drop(placing, kept);
    return !present->exists ? CREATED : stays ? KEPT : REPLACED;
}

PyObject *
place_written(PyObject *Py_UNUSED(module), PyObject *args)
{
    Placing placing = {.may_seal = 1};
    Present present;
    Seal seal;
    Keeping keeping;
    Space space;
    Py_ssize_t id_bytes;
    if (!PyArg_ParseTuple(
            args, "(iiii)(yyy)(pp)ii(KKK)(KK)(pKKl)(s#Ky#KlKl):place", &placing.uploads,
            &placing.file, &placing.folder, &placing.lock, &placing.upload, &placing.name,
            &placing.kept, &placing.keeps, &placing.exchanges, &placing.read_flags,
            &placing.ahead_seconds, &keeping.share, &keeping.bytes, &keeping.times,
            &space.free, &space.all, &present.exists, &present.bytes, &present.earliest_us,
            &present.epoch, &seal.id, &id_bytes, &seal.length, &seal.lines.start,
            &seal.lines.size, &seal.sealed_us, &seal.sealed_epoch, &placing.now_us,
            &placing.epoch))
        return NULL;
    if (id_bytes != ID_TEXT || keeping.share == 0 || keeping.times == 0) {
        PyErr_SetString(PyExc_ValueError, "an id of another length, a share of 0, or no times");
        return NULL;
    }
    if (!*placing.kept)
        placing.kept = NULL;
    placing.keeping = &keeping;
    placing.space = &space;
    int result, error;
    Py_BEGIN_ALLOW_THREADS
    result = place_file(&placing, &present, &seal);
    error = errno;
    Py_END_ALLOW_THREADS
    return Py_BuildValue("(iKliyi)", result, seal.sealed_us, seal.sealed_epoch,
                         result < 0 && result != SCARCE ? error : 0,
                         placing.left == NULL ? "" : placing.left, placing.left_error);
}
