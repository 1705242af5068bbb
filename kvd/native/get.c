/*
 * GET: values that are held in memory, with the heads of their replies.
 */

#include "fast_path.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

PyTypeObject *CachedValueType;

static void
CachedValue_dealloc(CachedValue *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    Py_XDECREF(self->line);
    Py_XDECREF(self->fields);
    Py_XDECREF(self->body);
    PyObject_Free(self);
    Py_DECREF((PyObject *)type);
}

static PyType_Slot CachedValue_slots[] = {
    {Py_tp_dealloc, CachedValue_dealloc},
    {0, NULL},
};

PyType_Spec CachedValue_spec = {
    .name = "kvd.native._fast_path.CachedValue",
    .basicsize = sizeof(CachedValue),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = CachedValue_slots,
};

PyObject *
cached_value(PyObject *Py_UNUSED(module), PyObject *args)
{
    unsigned long long device, inode, size, changed_ns, touched_ns;
    PyObject *line, *fields, *body;
    if (!PyArg_ParseTuple(args, "(KKKKK)SSS:cached_value", &device, &inode, &size,
                          &changed_ns, &touched_ns, &line, &fields, &body))
        return NULL;
    CachedValue *value = PyObject_New(CachedValue, CachedValueType);
    if (value == NULL)
        return NULL;
    value->device = device;
    value->inode = inode;
    value->size = size;
    value->changed_ns = changed_ns;
    value->touched_ns = touched_ns;
    value->line = Py_NewRef(line);
    value->fields = Py_NewRef(fields);
    value->body = Py_NewRef(body);
    return (PyObject *)value;
}

static unsigned long long
nanoseconds(struct timespec time)
{
    return (unsigned long long)time.tv_sec * 1000000000ULL
        + (unsigned long long)time.tv_nsec;
}

static int
is_unchanged(const CachedValue *value, const struct stat *found)
{
    return S_ISREG(found->st_mode)
        && value->device == (unsigned long long)found->st_dev
        && value->inode == (unsigned long long)found->st_ino
        && value->size == (unsigned long long)found->st_size
        && value->changed_ns == nanoseconds(found->st_mtim)
        && value->touched_ns == nanoseconds(found->st_ctim);
}

/*
 * What a key leads to, through folders alone. Returns 0; -1 for nothing.
 *
 * None of the folders may be a link. readlink(2) tells that in 177 ns, where stat(2)
 * takes 252; that it is a folder shows when the path leads through it.
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

/*
 * Returns 1 if the request was served, 0 if it is Python's, -1 with an exception.
 */
int
serve_get(FastPath *self, int socket, HeadTemplate *template, PyObject *key,
          Py_ssize_t received, double began)
{
    PyObject *found = PyDict_GetItemWithError(self->values, key);
    if (found == NULL) {
        if (PyErr_Occurred())
            return -1;
        found = PyObject_CallFunctionObjArgs(self->value_of, key, NULL);
        if (found == NULL)
            return -1;
        if (found == Py_None) {
            Py_DECREF(found);
            return 0;
        }
        if (!Py_IS_TYPE(found, CachedValueType)) {
            PyErr_SetString(PyExc_TypeError, "value_of gave no value");
            Py_DECREF(found);
            return -1;
        }
        int kept = PyDict_SetItem(self->values, key, found);
        Py_DECREF(found);
        if (kept < 0)
            return -1;
    }
    CachedValue *value = (CachedValue *)found;
    struct stat status;
    if (stat_key(self->root, PyBytes_AsString(key), &status) < 0
        || !is_unchanged(value, &status))
        return 0;

    const char *date = http_date(self);
    /* Its fields say when it was published, which must not be later than the date. */
    if (value->changed_ns / 1000000000ULL > (unsigned long long)self->date_second)
        return 0;

    char head[HEAD_ROOM];
    size_t used = append(head, 0, value->line);
    if (used + DATE_BYTES > HEAD_ROOM)
        return 0;
    memcpy(head + used, date, DATE_BYTES);
    used = append(head, used + DATE_BYTES, value->fields);
    if (used <= HEAD_ROOM)
        used = append(head, used, template->tail);
    if (used > HEAD_ROOM)
        return 0;
    Py_ssize_t body_bytes = PyBytes_Size(value->body);
    Py_ssize_t sent = send_reply(self, socket, head, used,
                                 PyBytes_AsString(value->body), (size_t)body_bytes);
    if (sent < 0)
        return -1;
    self->status = 200;
    self->method_is_put = 0;
    self->body_bytes = body_bytes;
    self->moved_bytes = received + sent;
    self->seconds = now() - began;
    count(self, received, sent);
    return 1;
}
