/*
 * The values that may be removed to make room, as kvd.store.candidates says.
 *
 * What is remembered is sorted only when it is asked for, or when there is a quarter more
 * of it than is kept. Then the youngest are left out, and from then on whatever is younger
 * than the oldest of these.
 */

#include "fast_path.h"

#include <stdint.h>
#include <stdlib.h>

typedef struct {
    int64_t accessed_ns;
    uint64_t inode;
    uint32_t key, key_bytes;    /* a place among the keys */
} Entry;

struct Candidates {
    PyObject_HEAD
    size_t most;
    Entry *entries;
    size_t first, end, room;    /* those before the first were dropped */
    char *keys;
    size_t keys_bytes, keys_room;
    int is_sorted;
    int64_t until_ns;           /* what is younger is left out */
};

PyTypeObject *CandidatesType;

static size_t
count_of(const Candidates *self)
{
    return self->end - self->first;
}

static int
compare(const void *one, const void *other)
{
    const Entry *a = one, *b = other;
    if (a->accessed_ns != b->accessed_ns)
        return a->accessed_ns < b->accessed_ns ? -1 : 1;
    return (a->inode > b->inode) - (a->inode < b->inode);
}

static void
sort(Candidates *self)
{
    if (!self->is_sorted)
        qsort(self->entries + self->first, count_of(self), sizeof(Entry), compare);
    self->is_sorted = 1;
}

/* Make room for so many bytes. Returns -1 with an exception. */
static int
grow(void *memory, size_t *room, size_t needed)
{
    if (needed <= *room)
        return 0;
    size_t more = Py_MAX(needed, *room + *room / 2);
    void *grown = PyMem_Realloc(*(void **)memory, more);
    if (grown == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    *(void **)memory = grown;
    *room = more;
    return 0;
}

static int
add_entry(Candidates *self, int64_t accessed_ns, uint64_t inode, const char *prefix,
          size_t prefix_bytes, const char *name, size_t name_bytes)
{
    size_t key_bytes = prefix_bytes + name_bytes;
    if (self->keys_bytes + key_bytes > UINT32_MAX) {
        PyErr_SetString(PyExc_OverflowError, "there are too many keys");
        return -1;
    }
    if (grow(&self->entries, &self->room, (self->end + 1) * sizeof(Entry)) < 0
        || grow(&self->keys, &self->keys_room, self->keys_bytes + key_bytes) < 0)
        return -1;
    char *key = self->keys + self->keys_bytes;
    memcpy(key, prefix, prefix_bytes);
    memcpy(key + prefix_bytes, name, name_bytes);
    self->entries[self->end++] = (Entry){accessed_ns, inode, (uint32_t)self->keys_bytes,
                                         (uint32_t)key_bytes};
    self->keys_bytes += key_bytes;
    return 0;
}

/* Keep these entries alone, and give the other memory back. */
static int
keep(Candidates *self, size_t first, size_t end)
{
    Candidates kept = {.most = self->most};
    size_t bytes = 0;
    for (size_t i = first; i < end; i++)
        bytes += self->entries[i].key_bytes;
    if (grow(&kept.entries, &kept.room, Py_MAX(end - first, 1) * sizeof(Entry)) < 0
        || grow(&kept.keys, &kept.keys_room, Py_MAX(bytes, 1)) < 0) {
        PyMem_Free(kept.entries);
        return -1;
    }
    for (size_t i = first; i < end; i++) {
        const Entry *each = &self->entries[i];
        add_entry(&kept, each->accessed_ns, each->inode, self->keys + each->key,
                  each->key_bytes, "", 0);
    }
    PyMem_Free(self->entries);
    PyMem_Free(self->keys);
    self->entries = kept.entries;
    self->room = kept.room;
    self->keys = kept.keys;
    self->keys_bytes = kept.keys_bytes;
    self->keys_room = kept.keys_room;
    self->first = 0;
    self->end = kept.end;
    return 0;
}

/* Leave out what is more than may be. */
static int
cut(Candidates *self)
{
    sort(self);
    if (count_of(self) <= self->most)
        return 0;
    self->until_ns = self->entries[self->first + self->most].accessed_ns;
    return keep(self, self->first, self->first + self->most);
}

/* Add the value with this key, in two parts, unless it is too young. Returns -1 with an
   exception. */
int
remember_value(Candidates *self, long long accessed_ns, unsigned long long inode,
               const char *prefix, size_t prefix_bytes, const char *name,
               size_t name_bytes)
{
    if (accessed_ns > self->until_ns)
        return 0;
    self->is_sorted = 0;
    if (add_entry(self, accessed_ns, inode, prefix, prefix_bytes, name, name_bytes) < 0)
        return -1;
    return count_of(self) > self->most + self->most / 4 ? cut(self) : 0;
}

static Py_ssize_t
Candidates_length(PyObject *self)
{
    return (Py_ssize_t)Py_MIN(count_of((Candidates *)self), ((Candidates *)self)->most);
}

static PyObject *
Candidates_remember(PyObject *self, PyObject *args)
{
    long long accessed_ns;
    unsigned long long inode;
    const char *key;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(args, "LKy#:remember", &accessed_ns, &inode, &key, &size)
        || remember_value((Candidates *)self, accessed_ns, inode, key, (size_t)size, "",
                          0) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* Read a number of candidates, at most as many as there are; -1 with an exception. */
static Py_ssize_t
read_count(Candidates *self, PyObject *number)
{
    Py_ssize_t count = PyLong_AsSsize_t(number);
    if (count == -1 && PyErr_Occurred())
        return -1;
    return cut(self) < 0 ? -1 : Py_MIN(Py_MAX(count, 0), (Py_ssize_t)count_of(self));
}

static PyObject *
Candidates_oldest(PyObject *object, PyObject *number)
{
    Candidates *self = (Candidates *)object;
    Py_ssize_t count = read_count(self, number);
    PyObject *found = count < 0 ? NULL : PyList_New(count);
    for (Py_ssize_t i = 0; found != NULL && i < count; i++) {
        const Entry *each = &self->entries[self->first + (size_t)i];
        PyObject *one = Py_BuildValue(
            "(LKy#)", (long long)each->accessed_ns, (unsigned long long)each->inode,
            self->keys + each->key, (Py_ssize_t)each->key_bytes);
        if (one == NULL)
            Py_CLEAR(found);
        else
            PyList_SetItem(found, i, one);
    }
    return found;
}

static PyObject *
Candidates_drop(PyObject *object, PyObject *number)
{
    Candidates *self = (Candidates *)object;
    Py_ssize_t count = read_count(self, number);
    if (count < 0)
        return NULL;
    self->first += (size_t)count;
    /* Each is moved once for each time that half of all are dropped. */
    if (self->first > self->end / 2 && keep(self, self->first, self->end) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static Candidates *
make(size_t most)
{
    Candidates *made = (Candidates *)PyType_GenericAlloc(CandidatesType, 0);
    if (made != NULL) {
        made->most = most;
        made->until_ns = INT64_MAX;
        made->is_sorted = 1;
    }
    return made;
}

static PyObject *
Candidates_take(PyObject *object, PyObject *number)
{
    Candidates *self = (Candidates *)object;
    Py_ssize_t count = read_count(self, number);
    Candidates *taken = count < 0 ? NULL : make(self->most);
    if (taken == NULL)
        return NULL;
    for (size_t i = self->first; i < self->first + (size_t)count; i++) {
        const Entry *each = &self->entries[i];
        if (add_entry(taken, each->accessed_ns, each->inode, self->keys + each->key,
                      each->key_bytes, "", 0) < 0)
            goto failed;
    }
    if (keep(self, self->first + (size_t)count, self->end) < 0)
        goto failed;
    return (PyObject *)taken;
failed:
    Py_DECREF((PyObject *)taken);
    return NULL;
}

static PyObject *
Candidates_new(PyTypeObject *Py_UNUSED(type), PyObject *args, PyObject *keywords)
{
    static char *names[] = {"", NULL};
    Py_ssize_t most;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "n:Candidates", names, &most))
        return NULL;
    if (most < 1) {
        PyErr_SetString(PyExc_ValueError, "at least one candidate must be kept");
        return NULL;
    }
    return (PyObject *)make((size_t)most);
}

static void
Candidates_dealloc(Candidates *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    PyMem_Free(self->entries);
    PyMem_Free(self->keys);
    PyObject_Free(self);
    Py_DECREF((PyObject *)type);
}

static PyMethodDef Candidates_methods[] = {
    {"remember", Candidates_remember, METH_VARARGS, NULL},
    {"oldest", Candidates_oldest, METH_O, NULL},
    {"drop", Candidates_drop, METH_O, NULL},
    {"take", Candidates_take, METH_O, NULL},
    {NULL},
};

static PyType_Slot Candidates_slots[] = {
    {Py_tp_doc, "See `Candidates` of kvd.store.candidates."},
    {Py_tp_new, Candidates_new},
    {Py_tp_dealloc, Candidates_dealloc},
    {Py_tp_methods, Candidates_methods},
    {Py_sq_length, Candidates_length},
    {0, NULL},
};

PyType_Spec Candidates_spec = {
    .name = "kvd.native._fast_path.Candidates",
    .basicsize = sizeof(Candidates),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = Candidates_slots,
};
