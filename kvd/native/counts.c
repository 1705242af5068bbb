/*
 * Counts connections and requests in the row of a process; kvd.ipc.row says what its words
 * mean, and has the ordinary way count here too.
 */

#include "fast_path.h"

#include <limits.h>
#include <math.h>

PyTypeObject *RequestCountsType;

/* Read the bucket of each exponent from a tuple. Returns 0; -1 with an exception. */
int
read_durations(Durations *durations, PyObject *buckets, int least_exponent)
{
    durations->least_exponent = least_exponent;
    durations->count = PyTuple_Size(buckets);
    durations->most = 0;
    if (durations->count < 1 || durations->count > MAX_EXPONENTS) {
        PyErr_SetString(PyExc_ValueError, "there are too many exponents, or none");
        return -1;
    }
    for (Py_ssize_t i = 0; i < durations->count; i++) {
        Py_ssize_t bucket = PyLong_AsSsize_t(PyTuple_GetItem(buckets, i));
        if (bucket < 0 || bucket > UCHAR_MAX) {
            if (!PyErr_Occurred())
                PyErr_SetString(PyExc_ValueError, "a bucket is negative, or too high");
            return -1;
        }
        durations->bucket[i] = (unsigned char)bucket;
        durations->most = Py_MAX(durations->most, bucket);
    }
    return 0;
}

Py_ssize_t
bucket_of(const Durations *durations, double seconds)
{
    int exponent;
    frexp(seconds + 1e-9, &exponent);
    Py_ssize_t at = exponent - durations->least_exponent;
    return durations->bucket[at < 0 ? 0 : Py_MIN(at, durations->count - 1)];
}

unsigned long long *
word_of(const RequestCounts *self, Py_ssize_t number)
{
    return (unsigned long long *)self->row.buf + number;
}

Py_ssize_t
words_of(const RequestCounts *self)
{
    return self->row.len / (Py_ssize_t)sizeof(unsigned long long);
}

/* Whether the row has the words of a method. */
int
has_method(const RequestCounts *self, Py_ssize_t method)
{
    return method >= 0 && method < words_of(self) - self->method_words;
}

/* A connection has begun. A reader that no longer counts it as on its way must find it
   open. */
void
count_opened(const RequestCounts *self)
{
    *word_of(self, self->open) += 1;
    *word_of(self, self->accepted) += 1;
}

void
count_closed(const RequestCounts *self)
{
    *word_of(self, self->open) -= 1;
}

/* A connection has begun and ended. */
void
count_accepted(const RequestCounts *self)
{
    *word_of(self, self->accepted) += 1;
}

/* A request has begun, before it is known that it ends. */
void
count_begun(const RequestCounts *self, int is_upload)
{
    *word_of(self, self->begun) += 1;
    *word_of(self, self->uploads) += is_upload ? 1 : 0;
}

void
count_received(const RequestCounts *self, Py_ssize_t bytes)
{
    *word_of(self, self->bytes_in) += (unsigned long long)bytes;
}

void
count_sent(const RequestCounts *self, Py_ssize_t bytes)
{
    *word_of(self, self->bytes_out) += (unsigned long long)bytes;
}

/*
 * What was counted by `count_begun` has ended.
 *
 * method: the first of the words that count it.
 * status: below STATUSES.
 */
void
count_done(const RequestCounts *self, Py_ssize_t method, int is_upload, int status,
           double seconds)
{
    const unsigned char *words = (unsigned char *)PyBytes_AsString(self->status_words);
    *word_of(self, self->done) += 1;
    *word_of(self, self->uploads) -= is_upload ? 1 : 0;
    ((double *)self->row.buf)[method] += seconds;
    *word_of(self, method + 1 + bucket_of(&self->durations, seconds)) += 1;
    *word_of(self, method + words[status]) += 1;
}

static PyObject *
RequestCounts_opened(PyObject *self, PyObject *Py_UNUSED(none))
{
    count_opened((RequestCounts *)self);
    Py_RETURN_NONE;
}

static PyObject *
RequestCounts_closed(PyObject *self, PyObject *Py_UNUSED(none))
{
    count_closed((RequestCounts *)self);
    Py_RETURN_NONE;
}

static PyObject *
RequestCounts_began(PyObject *self, PyObject *is_upload)
{
    count_begun((RequestCounts *)self, is_upload == Py_True);
    Py_RETURN_NONE;
}

static PyObject *
RequestCounts_finished(PyObject *self, PyObject *args)
{
    RequestCounts *counts = (RequestCounts *)self;
    Py_ssize_t method;
    int is_upload, status;
    double seconds;
    if (!PyArg_ParseTuple(args, "npid:finished", &method, &is_upload, &status, &seconds))
        return NULL;
    if (!has_method(counts, method))
        return PyErr_Format(PyExc_IndexError, "the row has no room for a method at %zd",
                            method);
    count_done(counts, method, is_upload, status < 0 || status >= STATUSES ? STATUSES - 1
               : status, seconds);
    Py_RETURN_NONE;
}

static PyObject *
RequestCounts_received(PyObject *self, PyObject *bytes)
{
    Py_ssize_t count = PyLong_AsSsize_t(bytes);
    if (count == -1 && PyErr_Occurred())
        return NULL;
    count_received((RequestCounts *)self, count);
    Py_RETURN_NONE;
}

static PyObject *
RequestCounts_sent(PyObject *self, PyObject *bytes)
{
    Py_ssize_t count = PyLong_AsSsize_t(bytes);
    if (count == -1 && PyErr_Occurred())
        return NULL;
    count_sent((RequestCounts *)self, count);
    Py_RETURN_NONE;
}

/* Returns 0; -1 with an exception. */
static int
read_status_words(RequestCounts *self, PyObject *words)
{
    if (PyBytes_Size(words) < STATUSES) {
        PyErr_SetString(PyExc_ValueError, "a status has no word");
        return -1;
    }
    self->status_words = Py_NewRef(words);
    self->method_words = 1 + self->durations.most;
    for (Py_ssize_t i = 0; i < STATUSES; i++) {
        Py_ssize_t word = (unsigned char)PyBytes_AsString(words)[i];
        self->method_words = Py_MAX(self->method_words, word);
    }
    return 0;
}

static PyObject *
RequestCounts_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(keywords))
{
    PyObject *row, *status_words, *buckets;
    int least_exponent;
    Py_ssize_t all[8];          /* the last one is `awake` */
    if (!PyArg_ParseTuple(args, "O(nnnnnnn)SO!in:RequestCounts", &row, &all[0], &all[1],
                          &all[2], &all[3], &all[4], &all[5], &all[6], &status_words,
                          &PyTuple_Type, &buckets, &least_exponent, &all[7]))
        return NULL;
    RequestCounts *self = (RequestCounts *)PyType_GenericAlloc(type, 0);
    if (self == NULL)
        return NULL;
    if (PyObject_GetBuffer(row, &self->row, PyBUF_WRITABLE) < 0
        || read_durations(&self->durations, buckets, least_exponent) < 0
        || read_status_words(self, status_words) < 0) {
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    for (int i = 0; i < 8; i++)
        if (all[i] < 0 || all[i] >= words_of(self)) {
            PyErr_SetString(PyExc_ValueError, "the row has no room for these words");
            Py_DECREF((PyObject *)self);
            return NULL;
        }
    self->accepted = all[0];
    self->open = all[1];
    self->begun = all[2];
    self->done = all[3];
    self->bytes_in = all[4];
    self->bytes_out = all[5];
    self->uploads = all[6];
    self->awake = all[7];
    return (PyObject *)self;
}

static void
RequestCounts_dealloc(RequestCounts *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    if (self->row.obj != NULL)
        PyBuffer_Release(&self->row);
    Py_XDECREF(self->status_words);
    PyObject_Free(self);
    Py_DECREF((PyObject *)type);
}

static PyMethodDef RequestCounts_methods[] = {
    {"opened", RequestCounts_opened, METH_NOARGS, NULL},
    {"closed", RequestCounts_closed, METH_NOARGS, NULL},
    {"began", RequestCounts_began, METH_O, NULL},
    {"finished", RequestCounts_finished, METH_VARARGS, NULL},
    {"received", RequestCounts_received, METH_O, NULL},
    {"sent", RequestCounts_sent, METH_O, NULL},
    {NULL},
};

static PyType_Slot RequestCounts_slots[] = {
    {Py_tp_doc, "See `RequestCounts` of kvd.ipc.row."},
    {Py_tp_new, RequestCounts_new},
    {Py_tp_dealloc, RequestCounts_dealloc},
    {Py_tp_methods, RequestCounts_methods},
    {0, NULL},
};

PyType_Spec RequestCounts_spec = {
    .name = "kvd.native._fast_path.RequestCounts",
    .basicsize = sizeof(RequestCounts),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = RequestCounts_slots,
};
