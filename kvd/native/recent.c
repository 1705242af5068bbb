/*
 * Keeps small values in memory when they are read for the second time.
 *
 * Opening and reading a value takes 2.0 us (4 KiB on tmpfs); checking whether a value in
 * memory is current takes 0.5. It is current if its name still leads to the same,
 * unchanged inode. The number of an inode is not reused while its file is open, and kvd
 * never writes to a published file; if another program does, the file's times change.
 *
 * A key that is read once is not kept, since it would only displace others. So some bits of
 * the hash of each key that was read are remembered, until another key overwrites them.
 *
 * A removed value can stay on the disk without a name until it is displaced. On file
 * systems that would give it another name instead (NFS, FUSE), and so keep its folder from
 * being removed, nothing is kept.
 */

#include "fast_path.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <unistd.h>

#define MOST_BYTES (8 * 1024 * 1024)
/* For larger values, opening costs little compared with sending. */
#define MAX_VALUE_BYTES (16 * 1024)
#define READ_KEYS 4096              /* a power of two */

struct RecentValues {
    PyObject *by_key;
    RecentValue *newest, *oldest;
    unsigned long long bytes;
    uint32_t read[READ_KEYS];
};

PyTypeObject *RecentValueType;

static void
RecentValue_dealloc(RecentValue *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    Py_XDECREF(self->value.parts);
    Py_XDECREF(self->key);
    Py_XDECREF(self->body);
    /* If the file was removed meanwhile, this frees its blocks. */
    Py_BEGIN_ALLOW_THREADS
    close(self->value.file);
    Py_END_ALLOW_THREADS
    PyObject_Free(self);
    Py_DECREF((PyObject *)type);
}

static PyType_Slot RecentValue_slots[] = {
    {Py_tp_dealloc, RecentValue_dealloc},
    {0, NULL},
};

PyType_Spec RecentValue_spec = {
    .name = "kvd.native._fast_path.RecentValue",
    .basicsize = sizeof(RecentValue),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = RecentValue_slots,
};

/*
 * Find the status of a key's file, through folders only. Returns 0; -1 if there is none.
 *
 * None of the folders may be a link. readlink(2) finds that out in 177 ns, stat(2) in 252;
 * if one is not a folder, the last call fails.
 */
static int
stat_key(int root, const char *key, struct stat *found)
{
    char path[MAX_KEY_BYTES + 1], target;
    const char *end = key;
    while ((end = strchr(end, '/')) != NULL) {
        size_t size = (size_t)(end++ - key);
        memcpy(path, key, size);
        path[size] = 0;
        if (readlinkat(root, path, &target, 1) >= 0 || errno != EINVAL)
            return -1;
    }
    return fstatat(root, key, found, AT_SYMLINK_NOFOLLOW);
}

static void
link_newest(RecentValues *all, RecentValue *one)
{
    one->newer = NULL;
    one->older = all->newest;
    *(one->older != NULL ? &one->older->newer : &all->oldest) = one;
    all->newest = one;
}

static void
unlink_one(RecentValues *all, RecentValue *one)
{
    *(one->newer != NULL ? &one->newer->older : &all->newest) = one->older;
    *(one->older != NULL ? &one->older->newer : &all->oldest) = one->newer;
}

/* Drop one value. Returns -1 with an exception. */
static int
forget(RecentValues *all, RecentValue *one)
{
    unlink_one(all, one);
    all->bytes -= one->value.size;
    return PyDict_DelItem(all->by_key, one->key);
}

/*
 * The value of a key, if it is in memory and current. A new reference; NULL if not, or
 * with an exception.
 *
 * The global lock is held: these files are open and on a disk of this machine, so the
 * kernel has what it is asked for in memory.
 */
RecentValue *
find_recent(FastPath *self, PyObject *key)
{
    struct stat status;
    if (self->recent == NULL)
        return NULL;
    RecentValue *found
        = (RecentValue *)PyDict_GetItemWithError(self->recent->by_key, key);
    if (found == NULL)
        return NULL;
    if (stat_key(self->root, PyBytes_AsString(key), &status) == 0
        && is_unchanged(&found->value, &status)) {
        unlink_one(self->recent, found);
        link_newest(self->recent, found);
        /* Which changes the file, so it is opened again next time. */
        note_if_stale(self, found->value.file, &status);
        return (RecentValue *)Py_NewRef((PyObject *)found);
    }
    forget(self->recent, found);
    return NULL;
}

/*
 * Whether a value may be kept, and was read not long ago, as far as is remembered; it is
 * from now on.
 */
int
was_read(FastPath *self, PyObject *key, const Value *value)
{
    if (value->size > MAX_VALUE_BYTES || self->most_recent <= 0)
        return 0;
    if (self->recent == NULL) {
        RecentValues *made = PyMem_Calloc(1, sizeof(RecentValues));
        if (made == NULL)
            return 0;
        if ((made->by_key = PyDict_New()) == NULL) {
            PyErr_Clear();
            PyMem_Free(made);
            return 0;
        }
        self->recent = made;
    }
    uint64_t hash = (uint64_t)PyObject_Hash(key);
    uint32_t rest = (uint32_t)(hash >> 32);
    uint32_t *place = &self->recent->read[hash % READ_KEYS];
    int is_same = *place == rest;
    *place = rest;
    return is_same;
}

/*
 * Keep a value that was read; its file belongs to it then.
 *
 * Returns 0, also if another program has written to the file meanwhile, and nothing was
 * kept; -1 with an exception.
 */
int
keep_recent(FastPath *self, PyObject *key, Value *value, PyObject *body)
{
    RecentValues *all = self->recent;
    struct stat status;
    if (fstat(value->file, &status) < 0 || !is_unchanged(value, &status))
        return 0;
    RecentValue *one = PyObject_New(RecentValue, RecentValueType);
    if (one == NULL)
        return -1;
    one->value = *value;
    value->file = -1;
    Py_INCREF(one->value.parts);
    one->key = Py_NewRef(key);
    one->body = Py_NewRef(body);
    int done = PyDict_SetItem(all->by_key, key, (PyObject *)one);
    Py_DECREF((PyObject *)one);
    if (done < 0)
        return -1;
    link_newest(all, one);
    all->bytes += one->value.size;
    while (all->bytes > MOST_BYTES || PyDict_Size(all->by_key) > self->most_recent)
        if (forget(all, all->oldest) < 0)
            return -1;
    return 0;
}

/* Drop all values. */
void
forget_recent(FastPath *self)
{
    RecentValues *all = self->recent;
    self->recent = NULL;
    if (all != NULL)
        Py_DECREF(all->by_key);
    PyMem_Free(all);
}
