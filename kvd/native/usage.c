/*
 * How much the values of a store take, counted by all its processes in shared memory;
 * kvd.store.usage says what the words of it mean.
 */

#include "fast_path.h"

#include <stdint.h>

#define BLOCK_BYTES 4096

/* The numbers of words: of a cell; in the header; in a quota; in what one process has
   counted for a quota. kvd.store.usage gives them. */
typedef struct {
    Py_ssize_t cell, resolution, taken, limit;
    Py_ssize_t held, bytes_added, bytes_removed, values_added, values_removed;
} Words;

struct Usage {
    PyObject_HEAD
    Py_buffer memory;
    Words at;
    int64_t *quotas, *counts;   /* cells: of the quotas, and of this process */
    PyObject *prefixes;         /* of the quotas behind the first */
};

PyTypeObject *UsageType;

/* What a value of this length takes. */
long long
taken_by(unsigned long long length)
{
    unsigned long long blocks = length / BLOCK_BYTES + (length % BLOCK_BYTES != 0);
    return (long long)(Py_MAX(blocks, 1) * BLOCK_BYTES);
}

PyObject *
taken_by_length(PyObject *Py_UNUSED(module), PyObject *length)
{
    unsigned long long bytes = PyLong_AsUnsignedLongLong(length);
    if (bytes == (unsigned long long)-1 && PyErr_Occurred())
        return NULL;
    return PyLong_FromLongLong(taken_by(bytes));
}

/* The number of the quota that a key has beside that of the whole store; 0: none. */
static Py_ssize_t
find_quota(PyObject *prefixes, const char *key, size_t size)
{
    for (Py_ssize_t i = 0; i < PyTuple_Size(prefixes); i++) {
        PyObject *prefix = PyTuple_GetItem(prefixes, i);
        size_t prefix_bytes = (size_t)PyBytes_Size(prefix);
        if (prefix_bytes <= size
            && memcmp(PyBytes_AsString(prefix), key, prefix_bytes) == 0)
            return i + 1;
    }
    return 0;
}

Py_ssize_t
quota_of(const Usage *self, const char *key, size_t size)
{
    return find_quota(self->prefixes, key, size);
}

/* Whether these are prefixes; if not, with an exception. */
static int
are_prefixes(PyObject *prefixes)
{
    for (Py_ssize_t i = 0; i < PyTuple_Size(prefixes); i++)
        if (!PyBytes_CheckExact(PyTuple_GetItem(prefixes, i))) {
            PyErr_SetString(PyExc_TypeError, "a prefix is no bytes");
            return 0;
        }
    return 1;
}

PyObject *
quota_of_key(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *prefixes;
    const char *key;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(args, "O!y#:quota_of", &PyTuple_Type, &prefixes, &key, &size)
        || !are_prefixes(prefixes))
        return NULL;
    return PyLong_FromSsize_t(find_quota(prefixes, key, (size_t)size));
}

/* Take bytes of a quota, if so many are left. */
static int
take(const Usage *self, Py_ssize_t number, long long bytes)
{
    int64_t *quota = self->quotas + number * self->at.cell;
    int64_t *all = &quota[self->at.taken];
    int64_t limit = __atomic_load_n(&quota[self->at.limit], __ATOMIC_RELAXED);
    int64_t taken = __atomic_load_n(all, __ATOMIC_RELAXED);
    do {
        /* It is negative after others have removed what nobody has counted. */
        if (bytes > limit - (taken > 0 ? taken : 0))
            return 0;
    } while (!__atomic_compare_exchange_n(all, &taken, taken + bytes, 1,
                                          __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return 1;
}

static void
add_taken(const Usage *self, Py_ssize_t number, long long bytes)
{
    __atomic_add_fetch(&self->quotas[number * self->at.cell + self->at.taken], bytes,
                       __ATOMIC_RELAXED);
}

/*
 * Only this process writes these words, and any may read them.
 */
static void
count_in(const Usage *self, Py_ssize_t quota, Py_ssize_t word, long long number)
{
    int64_t *counts = self->counts + quota * self->at.cell;
    __atomic_store_n(&counts[word], counts[word] + number, __ATOMIC_RELAXED);
}

static void
hold(const Usage *self, Py_ssize_t quota, long long bytes)
{
    count_in(self, 0, self->at.held, bytes);
    if (quota)
        count_in(self, quota, self->at.held, bytes);
}

/*
 * Take bytes of the quotas of a key, and hold them. Returns whether all have so many left.
 */
int
reserve_bytes(const Usage *self, Py_ssize_t quota, long long bytes)
{
    if (!take(self, 0, bytes))
        return 0;
    if (quota && !take(self, quota, bytes)) {
        add_taken(self, 0, -bytes);
        return 0;
    }
    hold(self, quota, bytes);
    return 1;
}

/* Give back what was reserved for nothing. */
void
release_bytes(const Usage *self, Py_ssize_t quota, long long bytes)
{
    hold(self, quota, -bytes);
    add_taken(self, 0, -bytes);
    if (quota)
        add_taken(self, quota, -bytes);
}

/* A value is gone that took `bytes`. */
static void
count_ended(const Usage *self, Py_ssize_t quota, long long bytes)
{
    for (Py_ssize_t each = 0;; each = quota) {
        count_in(self, each, self->at.bytes_removed, bytes);
        count_in(self, each, self->at.values_removed, 1);
        add_taken(self, each, -bytes);
        if (each == quota)
            return;
    }
}

/*
 * A value was published for which `bytes` had been reserved; what it replaced, unless it is
 * below 0, took `replaced`.
 */
void
count_published(const Usage *self, Py_ssize_t quota, long long bytes,
                long long replaced)
{
    hold(self, quota, -bytes);
    for (Py_ssize_t each = 0;; each = quota) {
        count_in(self, each, self->at.bytes_added, bytes);
        count_in(self, each, self->at.values_added, 1);
        if (each == quota)
            break;
    }
    if (replaced >= 0)
        count_ended(self, quota, replaced);
}

/* How many seconds a read of a value is remembered in its file's access time before
   another one is noted; 0: reads are not noted. */
long long
read_resolution(const Usage *self)
{
    return __atomic_load_n((const int64_t *)self->memory.buf + self->at.resolution,
                           __ATOMIC_RELAXED);
}

static int
read_call(PyObject *self, PyObject *args, const char *format, Py_ssize_t *quota,
          long long *bytes, long long *replaced)
{
    const char *key;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(args, format, &key, &size, bytes, replaced))
        return 0;
    *quota = quota_of((Usage *)self, key, (size_t)size);
    return 1;
}

static PyObject *
Usage_reserve(PyObject *self, PyObject *args)
{
    Py_ssize_t quota;
    long long bytes;
    if (!read_call(self, args, "y#L:reserve", &quota, &bytes, NULL))
        return NULL;
    return PyBool_FromLong(reserve_bytes((Usage *)self, quota, bytes));
}

static PyObject *
Usage_release(PyObject *self, PyObject *args)
{
    Py_ssize_t quota;
    long long bytes;
    if (!read_call(self, args, "y#L:release", &quota, &bytes, NULL))
        return NULL;
    release_bytes((Usage *)self, quota, bytes);
    Py_RETURN_NONE;
}

static PyObject *
Usage_published(PyObject *self, PyObject *args)
{
    Py_ssize_t quota;
    long long bytes, replaced;
    if (!read_call(self, args, "y#LL:published", &quota, &bytes, &replaced))
        return NULL;
    count_published((Usage *)self, quota, bytes, replaced);
    Py_RETURN_NONE;
}

static PyObject *
Usage_removed(PyObject *self, PyObject *args)
{
    Py_ssize_t quota;
    long long bytes;
    if (!read_call(self, args, "y#L:removed", &quota, &bytes, NULL))
        return NULL;
    count_ended((Usage *)self, quota, bytes);
    Py_RETURN_NONE;
}

static PyObject *
Usage_correct(PyObject *self, PyObject *args)
{
    Py_ssize_t quota;
    long long bytes;
    if (!PyArg_ParseTuple(args, "nL:correct", &quota, &bytes))
        return NULL;
    if (quota < 0 || quota > PyTuple_Size(((Usage *)self)->prefixes)) {
        PyErr_SetString(PyExc_IndexError, "there is no such quota");
        return NULL;
    }
    add_taken((Usage *)self, quota, bytes);
    Py_RETURN_NONE;
}

static PyObject *
Usage_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"memory", "prefixes", "row", "words", NULL};
    PyObject *memory, *prefixes;
    Py_ssize_t row;
    Words at;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OO!n(nnnnnnnnn):Usage", names, &memory,
                                     &PyTuple_Type, &prefixes, &row, &at.cell,
                                     &at.resolution, &at.taken, &at.limit, &at.held,
                                     &at.bytes_added, &at.bytes_removed, &at.values_added,
                                     &at.values_removed)
        || !are_prefixes(prefixes))
        return NULL;
    Py_ssize_t inside[] = {at.resolution, at.taken, at.limit, at.held, at.bytes_added,
                           at.bytes_removed, at.values_added, at.values_removed};
    for (size_t i = 0; i < sizeof inside / sizeof *inside; i++)
        if (inside[i] < 0 || inside[i] >= at.cell)
            return PyErr_Format(PyExc_ValueError, "a cell has %zd words, and none is %zd",
                                at.cell, inside[i]);
    Usage *self = (Usage *)PyType_GenericAlloc(type, 0);
    if (self == NULL || PyObject_GetBuffer(memory, &self->memory, PyBUF_WRITABLE) < 0) {
        Py_XDECREF((PyObject *)self);
        return NULL;
    }
    Py_ssize_t quotas = 1 + PyTuple_Size(prefixes);
    Py_ssize_t cells = self->memory.len / at.cell / (Py_ssize_t)sizeof(int64_t);
    if (row < 0 || 1 + quotas > cells || row >= (cells - 1 - quotas) / quotas) {
        PyErr_SetString(PyExc_ValueError, "the memory has no such row");
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    self->at = at;
    self->quotas = (int64_t *)self->memory.buf + at.cell;
    self->counts = self->quotas + (1 + row) * quotas * at.cell;
    self->prefixes = Py_NewRef(prefixes);
    return (PyObject *)self;
}

static void
Usage_dealloc(Usage *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    if (self->memory.obj != NULL)
        PyBuffer_Release(&self->memory);
    Py_XDECREF(self->prefixes);
    PyObject_Free(self);
    Py_DECREF((PyObject *)type);
}

static PyMethodDef Usage_methods[] = {
    {"reserve", Usage_reserve, METH_VARARGS, NULL},
    {"release", Usage_release, METH_VARARGS, NULL},
    {"published", Usage_published, METH_VARARGS, NULL},
    {"removed", Usage_removed, METH_VARARGS, NULL},
    {"correct", Usage_correct, METH_VARARGS, NULL},
    {NULL},
};

static PyType_Slot Usage_slots[] = {
    {Py_tp_doc, "See `Usage` of kvd.store.usage."},
    {Py_tp_new, Usage_new},
    {Py_tp_dealloc, Usage_dealloc},
    {Py_tp_methods, Usage_methods},
    {0, NULL},
};

PyType_Spec Usage_spec = {
    .name = "kvd.native._fast_path.Usage",
    .basicsize = sizeof(Usage),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = Usage_slots,
};
