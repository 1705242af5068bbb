/*
 * Writing a value and giving it its key's name, as kvd.store.tree does.
 */

#include "fast_path.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/vfs.h>
#include <unistd.h>

/* So much more is free while a turn does not look again: other processes, and the metadata
   of files, take some. */
#define ROOM_OF_A_TURN (1ULL << 30)

#define MOST_ROOM ((unsigned long long)LLONG_MAX)

int
find_lock(FastPath *self)
{
    struct stat status;
    if (fstat(self->lock, &status) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    self->lock_device = status.st_dev;
    self->lock_inode = status.st_ino;
    return 0;
}

/*
 * Whether the file of locks still has its name, and its status. If another program has
 * replaced it, processes that open it now lock another file.
 */
static int
is_found(const FastPath *self, struct stat *status)
{
    return fstatat(self->root, LOCK_PATH, status, AT_SYMLINK_NOFOLLOW) == 0
        && status->st_ino == self->lock_inode && status->st_dev == self->lock_device;
}

/* The epoch, by the status of the file of locks. */
static long
epoch_of(const FastPath *self, const struct stat *lock)
{
    return self->has_epochs ? epoch_in(lock->st_mtim.tv_nsec) : 0;
}

static int
set_range(int lock, short kind, long long offset, long long bytes)
{
    struct flock request = {
        .l_type = kind, .l_whence = SEEK_SET, .l_start = offset, .l_len = bytes,
    };
    return fcntl(lock, F_OFD_SETLK, &request);
}

int
set_lock(int lock, short kind, long long offset)
{
    return set_range(lock, kind, offset, 1);
}

/* Unlock all keys that were locked with this descriptor. */
void
unlock_all(int lock)
{
    set_range(lock, F_UNLCK, 0, 0);
}

/* Whether a file system with so many blocks has no limit: a tmpfs without one reports none at
   all. */
static int
is_unlimited(unsigned long long blocks)
{
    return blocks == 0;
}

/* How many bytes a file system has room for, beside those that stay free; below 0: so many
   of these are missing. */
static long long
beside(unsigned long long min_free, unsigned long long free)
{
    /* Some file systems over networks report as much as the numbers hold. */
    return (long long)Py_MIN(free, MOST_ROOM) - (long long)Py_MIN(min_free, MOST_ROOM);
}

PyObject *
room_beside(PyObject *Py_UNUSED(module), PyObject *args)
{
    unsigned long long min_free, available, unit, blocks;
    if (!PyArg_ParseTuple(args, "KKKK:room_beside", &min_free, &available, &unit, &blocks))
        return NULL;
    if (is_unlimited(blocks))
        Py_RETURN_NONE;
    return PyLong_FromLongLong(beside(min_free, available * unit));
}

static int
is_room(const FastPath *self, Py_ssize_t length, int keeps, const Space *space)
{
    return length <= beside(self->min_free, space->free)
        && !(keeps && is_scarce(&self->keeping, space, 0));
}

/*
 * Whether there is room for a value, and how much at least; with `keeps`, enough to keep what
 * it replaces too, if that is not large.
 *
 * A turn looks once, as long as there is room for much more than one turn of all processes
 * writes.
 */
static int
has_room(FastPath *self, Py_ssize_t length, int keeps, Space *space)
{
    struct statfs found;
    if (is_of_turn(self, self->room_turn) && self->room.free > ROOM_OF_A_TURN) {
        *space = (Space){self->room.free - ROOM_OF_A_TURN, self->room.all};
        if (is_room(self, length, keeps, space)) {
            self->room.free -= (unsigned long long)length;
            return 1;
        }
    }
    if (fstatfs(self->root, &found) < 0)
        return 0;
    unsigned long long unit
        = (unsigned long long)(found.f_frsize ? found.f_frsize : found.f_bsize);
    space->free = (unsigned long long)found.f_bavail * unit;
    space->all = (unsigned long long)found.f_blocks * unit;
    if (is_unlimited(found.f_blocks))
        return !keeps;
    self->room = (Space){space->free - Py_MIN((unsigned long long)length, space->free),
                         space->all};
    self->room_turn = self->turn;
    return is_room(self, length, keeps, space);
}

/* Whether the date that a file is sealed with is still that of the present, in seconds. */
int
is_of_present(const Upload *upload)
{
    struct timespec present;
    clock_gettime(CLOCK_REALTIME, &present);
    return (unsigned long long)present.tv_sec == upload->sealed_us / 1000000;
}

static Seal
seal_of(const Upload *upload)
{
    return (Seal){
        upload->id, (unsigned long long)upload->length,
        {PyBytes_AsString(upload->lines), PyBytes_Size(upload->lines)},
        upload->sealed_us, upload->sealed_epoch,
    };
}

static void
note_seal(Upload *upload, const Seal *seal)
{
    upload->sealed_us = seal->sealed_us;
    upload->sealed_epoch = seal->sealed_epoch;
}

/* Seal the file of an upload with the date of the present, before it is synced. Returns 0; -1
   for an error. */
int
seal_upload(const FastPath *self, int file, Upload *upload)
{
    Seal seal = seal_of(upload);
    int done = seal_file(self->ahead_seconds, file, &seal, present_us(), 0, 0);
    note_seal(upload, &seal);
    return done;
}

/*
 * Whether files that were created without a name in the folder of uploads can be given one:
 * not every file system can do that, and before Linux 6.10 it takes a privilege.
 */
int
links_nameless(const FastPath *self)
{
    static const char NAME[] = "probe";
    int folder = self->uploads, file = openat(folder, ".", self->nameless_flags, 0600);
    int is_linked = file >= 0 && linkat(file, "", folder, NAME, AT_EMPTY_PATH) == 0;
    if (is_linked)
        unlinkat(folder, NAME, 0);
    if (file >= 0)
        close(file);
    return is_linked;
}

/*
 * Give a written file its key's name, if nothing has that name. Returns whether it has it
 * now; if not, `place` looks at what is there. A file that had no name may have that of its
 * upload then.
 */
static int
place_new(FastPath *self, Upload *upload, int file, int folder, const char *name, long epoch)
{
    Seal seal = seal_of(upload);
    unsigned long long now_us = present_us();
    if (!is_sealed(&seal, now_us, 0, epoch)) {
        /* At durability disk, nothing is published that is not synced. */
        int done = self->syncs != NULL ? -1
            : seal_file(self->ahead_seconds, file, &seal, now_us, 0, epoch);
        note_seal(upload, &seal);
        if (done < 0)
            return 0;
    }
    if (!upload->is_nameless) {
        if (renameat2(self->uploads, upload->name, folder, name, RENAME_NOREPLACE) == 0)
            return 1;
        /* Not every file system can do this, or every filter of system calls lets it
           pass. */
        self->may_not_replace = errno != EINVAL && errno != ENOSYS;
        return 0;
    }
    if (linkat(file, "", folder, name, AT_EMPTY_PATH) == 0)
        return 1;
    if (linkat(file, "", self->uploads, upload->name, AT_EMPTY_PATH) == 0)
        upload->is_nameless = 0;
    return 0;
}

/*
 * Give a written file its key's name in a folder, while the key is locked; `lock` is the
 * status of the file of locks.
 *
 * To look for a name that is not there and then to give it is to look for it twice. Most
 * clients either write new keys or replace values, so if the last PUT was one of a new key,
 * this one is taken for one too, until the kernel says that there is something.
 *
 * Returns as `place_file`; what it replaced had `*replaced` bytes. At durability disk, nothing
 * is published that is not synced, so the file must be sealed already.
 */
static int
place(FastPath *self, Upload *upload, int file, int folder,
      const char *name, const Space *space, const struct stat *lock,
      unsigned long long *replaced)
{
    Present present = {0};
    long epoch = epoch_of(self, lock);
    *replaced = 0;
    if ((upload->is_nameless || (self->expects_new && self->may_not_replace))
        && place_new(self, upload, file, folder, name, epoch))
        return CREATED;
    if (upload->is_nameless)
        return UNNAMED;
    if (!find_published(self, folder, name, upload, &present))
        present.exists = has_value(self, folder, name, &present.earliest_us,
                                   &present.epoch, &present.bytes);
    self->expects_new = present.exists == 0;
    if (present.exists < 0)
        return UNNAMED;
    *replaced = present.bytes;
    Placing placing = {
        .uploads = self->uploads, .file = file, .folder = folder,
        .lock = self->has_epochs ? self->lock : -1, .upload = upload->name, .name = name,
        .keeps = upload->keeps, .exchanges = self->exchanges,
        .may_seal = self->syncs == NULL, .read_flags = self->read_flags,
        .ahead_seconds = self->ahead_seconds, .keeping = &self->keeping, .space = space,
        .now_us = present_us(), .epoch = epoch,
    };
    Seal seal = seal_of(upload);
    int result = place_file(&placing, &present, &seal);
    note_seal(upload, &seal);
    if (result == REPLACED || result == KEPT)
        remember_published(self, file, upload);
    return result;
}

static const char *
last_name(const char *key)
{
    const char *slash = strrchr(key, '/');
    return slash == NULL ? key : slash + 1;
}

/*
 * Lock the key of a written file, and give it its name; make its folder before, if it
 * `is_missing`. Returns as `place`.
 */
static int
place_locked(FastPath *self, Upload *upload, int file, const Parent *parent,
             const Space *space, int *is_made, unsigned long long *replaced)
{
    if (set_lock(self->lock, F_WRLCK, upload->offset) < 0)
        return -1;
    int result = -1, folder = parent->descriptor, is_missing = parent->is_missing;
    struct stat lock;
    const char *name = last_name(upload->key);
    if (is_found(self, &lock)) {
        if (is_missing) {
            char path[MAX_KEY_BYTES + 1];
            size_t size = (size_t)(name - 1 - upload->key);
            memcpy(path, upload->key, size);
            path[size] = 0;
            *is_made = 1;
            folder = open_path(self->root, path, self->folder_mode);
        }
        if (folder >= 0)
            result = place(self, upload, file, folder, name, space, &lock, replaced);
        if (is_missing && folder >= 0)
            close(folder);
    }
    /* No other key is locked now, and to unlock all of them takes the kernel less. */
    unlock_all(self->lock);
    return result;
}

/* Returns how much was written: less than all after an error. */
Py_ssize_t
write_all(int file, const char *body, Py_ssize_t length)
{
    Py_ssize_t written = 0;
    while (written < length) {
        ssize_t count = write(file, body + written, (size_t)(length - written));
        if (count <= 0)
            break;
        written += count;
    }
    return written;
}

/* Create the file of an upload, whose key's folder, or the last one on its path, is open:
   without a name, if it `may_be_nameless`. Returns its descriptor; -1 if it cannot be
   created, or not as Python would. */
static int
create_beside(FastPath *self, Upload *upload, const Parent *parent, int may_be_nameless,
              Space *space)
{
    int file = -1;
    if (!has_room(self, upload->length, upload->keeps, space)
        || !is_conferred_alike(self, parent))
        return -1;
    if (may_be_nameless) {
        file = openat(parent->descriptor, ".", self->nameless_flags, self->mode);
        upload->is_nameless = file >= 0;
    }
    return file >= 0 ? file
        : openat(self->uploads, upload->name, self->create_flags, self->mode);
}

static int
is_folder(int folder, const char *name)
{
    struct stat status;
    return fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) == 0
        && S_ISDIR(status.st_mode);
}

/* Reserve what a value will take of its quotas. Returns whether there is room. */
int
reserve(Upload *upload)
{
    upload->held = 0;
    if (upload->usage == NULL)
        return 1;
    long long bytes = taken_by((unsigned long long)upload->length);
    if (!reserve_bytes(upload->usage, upload->quota, bytes))
        return 0;
    upload->held = bytes;
    return 1;
}

/* Give back what an upload has reserved and not used. */
void
release(Upload *upload)
{
    if (upload->held)
        release_bytes(upload->usage, upload->quota, upload->held);
    upload->held = 0;
}

/* Count a value that was published, of which `result` is what `place` returned. */
static void
count_result(Upload *upload, int result, unsigned long long replaced)
{
    if (upload->held)
        count_published(upload->usage, upload->quota, upload->held,
                        result == CREATED ? -1 : taken_by(replaced));
    upload->held = 0;
}

/*
 * Create the file of an upload whose body is here. Publication finds out whether its key is a
 * folder; to look for that before costs as much as to create the file. Returns its descriptor;
 * -1 if it was not created.
 */
int
create_file(FastPath *self, Upload *upload)
{
    Parent parent;
    Space space;
    if (enter_parent(self, upload->key, &parent) < 0)
        return -1;
    int file = create_beside(self, upload, &parent, 0, &space);
    leave_parent(&parent);
    return file;
}

/*
 * Create the file of an upload whose body is still to come, unless Python would refuse it
 * before that (`begin_at_once` of kvd.store.file). Returns as `create_file`.
 */
int
create_file_early(FastPath *self, Upload *upload)
{
    int file = -1;
    Parent parent;
    Space space;
    if (enter_parent(self, upload->key, &parent) < 0)
        return -1;
    if (parent.is_missing || !is_folder(parent.descriptor, last_name(upload->key)))
        file = create_beside(self, upload, &parent, 0, &space);
    leave_parent(&parent);
    return file;
}

/*
 * Publish a value whose file is written. Returns as `place`; after -1 the file is as it
 * was, with what is reserved for it, and empty folders are left if `is_made`: they have to
 * be pruned.
 */
int
publish_file(FastPath *self, Upload *upload, int file, int *is_made)
{
    int result = -1;
    Parent parent;
    Space space = {0, 0};
    unsigned long long replaced;
    *is_made = 0;
    if (enter_parent(self, upload->key, &parent) < 0)
        return -1;
    /* Its own bytes have been written. */
    if (!upload->keeps || has_room(self, 0, 1, &space))
        result = place_locked(self, upload, file, &parent, &space, is_made, &replaced);
    if (result >= 0)
        count_result(upload, result, replaced);
    leave_parent(&parent);
    return result;
}

/*
 * Write a value and publish it. Returns as `place`; after -1 nothing is left, but for
 * empty folders if `is_made`: they have to be pruned.
 */
int
publish(FastPath *self, Upload *upload, const char *body, int *is_made)
{
    int result = -1, file = -1;
    Parent parent;
    Space space;
    unsigned long long replaced = 0;
    *is_made = 0;
    if (enter_parent(self, upload->key, &parent) >= 0)
        /* A name that it gets and loses again costs as much as the one that it keeps. */
        file = create_beside(self, upload, &parent,
                             self->expects_new && self->links_nameless, &space);
    if (file >= 0) {
        if (write_all(file, body, upload->length) == upload->length)
            result = place_locked(self, upload, file, &parent, &space, is_made, &replaced);
        if (result < 0 && !upload->is_nameless)
            unlinkat(self->uploads, upload->name, 0);
        close(file);
    }
    if (result < 0)
        release(upload);
    else
        count_result(upload, result, replaced);
    leave_parent(&parent);
    return result;
}
