/*
 * Removing a value to make room, as kvd.store.removing says.
 */

#include "fast_path.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

/* Whether the file of locks is still the one that is found by its name. */
static int
is_found(int root, int lock)
{
    struct stat found, opened;
    return fstatat(root, LOCK_PATH, &found, AT_SYMLINK_NOFOLLOW) == 0
        && fstat(lock, &opened) == 0 && found.st_ino == opened.st_ino
        && found.st_dev == opened.st_dev;
}

static long long
nanoseconds(struct timespec time)
{
    return (long long)time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* What is known of a value that is to be removed. */
typedef struct {
    unsigned long long inode;
    long long accessed_ns, from_ns, to_ns;      /* published between these: protected */
} Known;

/* Returns the size of what was removed; -1 if it stays; -2 with errno. */
static long long
remove_known(int folder, const char *name, const Known *known)
{
    struct stat status;
    if (fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return -2;
    long long published_ns = nanoseconds(status.st_mtim);
    if ((unsigned long long)status.st_ino != known->inode
        || nanoseconds(status.st_atim) != known->accessed_ns
        || (published_ns > known->from_ns && published_ns <= known->to_ns))
        return -1;
    return unlinkat(folder, name, 0) < 0 ? -2 : (long long)status.st_size;
}

/* Returns as `remove_known`; -3 if the key cannot be locked now. */
static long long
remove_locked(int root, int lock, const char *key, size_t size, const Known *known)
{
    char path[MAX_LONGEST_KEY + 1];
    long long offset = lock_offset(key, size), removed = -3;
    int folder = root;
    memcpy(path, key, size + 1);
    char *slash = strrchr(path, '/');
    if (slash != NULL) {
        *slash = 0;
        folder = open_beneath(root, path, O_RDONLY | O_DIRECTORY);
        if (folder < 0)
            return -2;
    }
    if (set_lock(lock, F_WRLCK, offset) == 0) {
        if (is_found(root, lock))
            removed = remove_known(folder, slash == NULL ? path : slash + 1, known);
        int reason = errno;
        set_lock(lock, F_UNLCK, offset);
        errno = reason;
    }
    if (folder != root) {
        int reason = errno;
        close(folder);
        errno = reason;
    }
    return removed;
}

PyObject *
remove_unchanged(PyObject *Py_UNUSED(module), PyObject *args)
{
    int root, lock;
    const char *key;
    Py_ssize_t size;
    Known known;
    long long removed;
    if (!PyArg_ParseTuple(args, "iiy#KLLL:remove_unchanged", &root, &lock, &key, &size,
                          &known.inode, &known.accessed_ns, &known.from_ns,
                          &known.to_ns))
        return NULL;
    if (size > MAX_LONGEST_KEY) {
        PyErr_SetString(PyExc_ValueError, "the key is too long");
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    removed = remove_locked(root, lock, key, (size_t)size, &known);
    Py_END_ALLOW_THREADS
    if (removed == -2)
        return PyErr_SetFromErrno(PyExc_OSError);
    if (removed == -3)
        Py_RETURN_NONE;
    return PyLong_FromLongLong(removed);
}
