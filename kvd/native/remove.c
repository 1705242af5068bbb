/*
 * Removing values to make room, as kvd.store.removing says.
 */

#include "fast_path.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

/* So many keys are locked at once at most. */
#define MOST_REMOVED 16

static long long
nanoseconds(struct timespec time)
{
    return (long long)time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* A value that is to be removed, and what came of it. */
typedef struct {
    const char *key;
    Py_ssize_t key_bytes;
    unsigned long long inode;
    long long accessed_ns;
    int is_locked;
    long long removed;          /* as kvd.store.removing */
} Known;

enum { STAYS = -1 };

/* Values that were published between these stay. */
typedef struct {
    long long from_ns, to_ns;
} Protected;

/*
 * Lock the keys of values, except those that others have locked. Returns -1 if that cannot be
 * said, or if another file of locks has to be opened.
 */
static int
lock_keys(int root, int lock, Known *known, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        long long offset = lock_offset(known[i].key, (size_t)known[i].key_bytes);
        known[i].is_locked = set_lock(lock, F_WRLCK, offset) == 0;
        if (!known[i].is_locked && errno != EAGAIN && errno != EACCES)
            return -1;
    }
    struct stat opened, found;
    return fstat(lock, &opened) == 0 && is_found(root, opened.st_dev, opened.st_ino, &found)
        ? 0 : -1;
}

/* The bytes of a key up to its last slash; 0: there is none. */
static size_t
folder_bytes(const Known *known)
{
    const char *slash = strrchr(known->key, '/');
    return slash == NULL ? 0 : (size_t)(slash - known->key);
}

/* Returns what `Known.removed` is to be. */
static long long
remove_from(int folder, const Known *known, Protected protected)
{
    struct stat status;
    size_t parent = folder_bytes(known);
    const char *name = known->key + (parent ? parent + 1 : 0);
    if (folder < 0 || fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return STAYS - errno;
    long long published_ns = nanoseconds(status.st_mtim);
    if ((unsigned long long)status.st_ino != known->inode
        || nanoseconds(status.st_atim) != known->accessed_ns
        || (published_ns > protected.from_ns && published_ns <= protected.to_ns))
        return STAYS;
    return unlinkat(folder, name, 0) < 0 ? STAYS - errno : (long long)status.st_size;
}

/* Remove values whose keys are locked, until they took so many bytes. Returns of how many
   it is known what came of them. */
static Py_ssize_t
remove_locked(int root, Known *known, Py_ssize_t count, long long wanted,
              Protected protected)
{
    int folder = root;
    const Known *before = NULL;     /* the folder is open that has it */
    Py_ssize_t i;
    for (i = 0; i < count && wanted > 0; i++) {
        size_t parent = folder_bytes(&known[i]);
        if (before == NULL || parent != folder_bytes(before)
            || memcmp(before->key, known[i].key, parent) != 0) {
            char path[MAX_LONGEST_KEY + 1];
            if (folder != root && folder >= 0)
                close(folder);
            memcpy(path, known[i].key, parent);
            path[parent] = 0;
            folder = parent ? open_beneath(root, path, O_RDONLY | O_DIRECTORY) : root;
        }
        before = folder < 0 ? NULL : &known[i];
        known[i].removed =
            known[i].is_locked ? remove_from(folder, &known[i], protected) : STAYS;
        if (known[i].removed >= 0)
            wanted -= taken_by((unsigned long long)known[i].removed);
    }
    if (folder != root && folder >= 0)
        close(folder);
    return i;
}

/* Read values from a list of them, at most so many. Returns how many; -1 with an
   exception. */
static Py_ssize_t
read_known(PyObject *list, Known *known, Py_ssize_t most)
{
    Py_ssize_t count = Py_MIN(PyList_Size(list), most);
    for (Py_ssize_t i = 0; i < count; i++) {
        if (!PyArg_ParseTuple(PyList_GetItem(list, i), "LKy#", &known[i].accessed_ns,
                              &known[i].inode, &known[i].key, &known[i].key_bytes))
            return -1;
        if (known[i].key_bytes > MAX_LONGEST_KEY) {
            PyErr_SetString(PyExc_ValueError, "the key is too long");
            return -1;
        }
    }
    return count;
}

PyObject *
remove_unchanged(PyObject *Py_UNUSED(module), PyObject *args)
{
    int root, lock;
    PyObject *list;
    long long wanted;
    Protected protected;
    Known known[MOST_REMOVED];
    if (!PyArg_ParseTuple(args, "iiO!LLL:remove_unchanged", &root, &lock, &PyList_Type,
                          &list, &wanted, &protected.from_ns, &protected.to_ns))
        return NULL;
    Py_ssize_t count = read_known(list, known, MOST_REMOVED), done = -1;
    if (count < 0)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    if (lock_keys(root, lock, known, count) == 0)
        done = remove_locked(root, known, count, wanted, protected);
    unlock_all(lock);
    Py_END_ALLOW_THREADS
    if (done < 0)
        Py_RETURN_NONE;
    PyObject *results = PyList_New(done);
    for (Py_ssize_t i = 0; results != NULL && i < done; i++)
        PyList_SetItem(results, i, PyLong_FromLongLong(known[i].removed));
    return results;
}
