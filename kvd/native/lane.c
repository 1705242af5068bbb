/*
 * What is on its way to one worker (kvd.dispatch.lane, which does the same where nothing is
 * compiled).
 */

#include "dispatch.h"

#include <string.h>
#include <structmember.h>
#include <unistd.h>

PyTypeObject *LaneType;

static Py_ssize_t
connections_in(const Batch *batch)
{
    if (batch->connections != NULL)
        return PyList_Size(batch->connections);
    return batch->descriptor >= 0;
}

/* A new list of what a batch has. */
static PyObject *
connections_of(const Batch *batch)
{
    if (batch->connections != NULL)
        return Py_NewRef(batch->connections);
    return batch->descriptor < 0
        ? PyList_New(0)
        : Py_BuildValue("[(ii)]", batch->descriptor, batch->group);
}

static void
close_connections(const Batch *batch)
{
    if (batch->descriptor >= 0)
        close(batch->descriptor);
    for (Py_ssize_t i = 0; batch->connections && i < PyList_Size(batch->connections); i++) {
        PyObject *one = PyList_GetItem(batch->connections, i);
        close((int)PyLong_AsLong(PyTuple_GetItem(one, 0)));
    }
}

static void
drop_first(Lane *self)
{
    Py_CLEAR(self->batches[self->first].connections);
    self->first++;
    self->count--;
}

static void
acknowledge(Lane *self, unsigned long long number)
{
    while (self->count && self->batches[self->first].number <= number) {
        Batch *batch = &self->batches[self->first];
        Py_ssize_t connections = connections_in(batch);
        if (connections == 0)
            self->revoked--;
        self->waiting -= connections;
        close_connections(batch);
        drop_first(self);
    }
}

void
read_done(Lane *self)
{
    const unsigned long long *row = self->row.buf;
    /* In this order: what it refused was written before. */
    unsigned long long done = read_word(row), refused = read_word(row + 1);
    /* If another refusal is on its way, it is not known yet which of the batches up to
       `done` were taken. */
    if (refused <= self->refused)
        acknowledge(self, done);
}

/* Makes room for one batch more. Returns it; NULL with an exception. */
Batch *
next_batch(Lane *self)
{
    if (self->first + self->count == self->room) {
        if (self->first > 0)
            memmove(self->batches, self->batches + self->first,
                    (size_t)self->count * sizeof *self->batches);
        else {
            Py_ssize_t room = self->room ? 2 * self->room : 16;
            void *more = PyMem_Realloc(self->batches,
                                       (size_t)room * sizeof *self->batches);
            if (more == NULL) {
                PyErr_NoMemory();
                return NULL;
            }
            self->batches = more;
            self->room = room;
        }
        self->first = 0;
    }
    return &self->batches[self->first + self->count];
}

static PyObject *
Lane_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(keywords))
{
    int channel, credits;
    unsigned long long refused;
    PyObject *queue, *row;
    if (!PyArg_ParseTuple(args, "iOiOK:Lane", &channel, &queue, &credits, &row, &refused))
        return NULL;
    Lane *self = (Lane *)PyType_GenericAlloc(type, 0);
    if (self == NULL)
        return NULL;
    self->channel = channel;
    self->credits = credits;
    self->refused = refused;
    self->queue = Py_NewRef(queue);
    if (PyObject_GetBuffer(row, &self->row, PyBUF_SIMPLE) < 0) {
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    if (self->row.len < 2 * (Py_ssize_t)sizeof(long long)) {
        PyErr_SetString(PyExc_ValueError, "the row has no two words");
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    return (PyObject *)self;
}

static void
forget_batches(Lane *self)
{
    while (self->count)
        drop_first(self);
    self->waiting = self->revoked = 0;
    if (self->row.obj != NULL)
        PyBuffer_Release(&self->row);
}

static void
Lane_dealloc(Lane *self)
{
    forget_batches(self);
    PyMem_Free(self->batches);
    Py_XDECREF(self->queue);
    free_object((PyObject *)self);
}

static int
is_closed(const Lane *self)
{
    if (self->row.obj != NULL)
        return 0;
    PyErr_SetString(PyExc_ValueError, "the worker is lost");
    return 1;
}

static PyObject *
Lane_sent(Lane *self, PyObject *args)
{
    unsigned long long number;
    PyObject *connections;
    double now;
    if (!PyArg_ParseTuple(args, "KO!d:sent", &number, &PyList_Type, &connections, &now)
        || is_closed(self))
        return NULL;
    Batch *batch = next_batch(self);
    if (batch == NULL)
        return NULL;
    *batch = (Batch){number, now, Py_NewRef(connections), -1, 0};
    self->count++;
    self->waiting += PyList_Size(connections);
    Py_RETURN_NONE;
}

static PyObject *
Lane_read_done(Lane *self, PyObject *Py_UNUSED(none))
{
    if (is_closed(self))
        return NULL;
    read_done(self);
    Py_RETURN_NONE;
}

static PyObject *
Lane_acknowledged(Lane *self, PyObject *argument)
{
    unsigned long long number = PyLong_AsUnsignedLongLong(argument);
    if (PyErr_Occurred())
        return NULL;
    acknowledge(self, number);
    Py_RETURN_NONE;
}

static PyObject *
Lane_refuse(Lane *self, PyObject *argument)
{
    unsigned long long number = PyLong_AsUnsignedLongLong(argument);
    if (PyErr_Occurred())
        return NULL;
    if (number > 0)
        acknowledge(self, number - 1);
    if (self->count == 0 || self->batches[self->first].number != number) {
        PyErr_SetString(PyExc_AssertionError, "no such batch is on its way");
        return NULL;
    }
    PyObject *connections = connections_of(&self->batches[self->first]);
    if (connections == NULL)
        return NULL;
    self->refused = number;
    self->waiting -= PyList_Size(connections);
    drop_first(self);
    return connections;
}

static PyObject *
Lane_oldest(Lane *self, PyObject *Py_UNUSED(none))
{
    for (Py_ssize_t i = 0; i < self->count; i++) {
        const Batch *batch = &self->batches[self->first + i];
        if (connections_in(batch))
            return PyFloat_FromDouble(batch->sent);
    }
    Py_RETURN_NONE;
}

static PyObject *
Lane_revoke(Lane *self, PyObject *argument)
{
    Py_ssize_t last = PyLong_AsSsize_t(argument);
    if (PyErr_Occurred())
        return NULL;
    if (last < 0 || last > self->count) {
        PyErr_SetString(PyExc_AssertionError, "there are not so many batches");
        return NULL;
    }
    PyObject *all = PyList_New(0);
    for (Py_ssize_t i = self->count - last; all != NULL && i < self->count; i++) {
        Batch *batch = &self->batches[self->first + i];
        PyObject *connections = connections_of(batch);
        Py_ssize_t size = PyList_Size(all);
        if (connections == NULL || PyList_SetSlice(all, size, size, connections) < 0) {
            Py_XDECREF(connections);
            Py_CLEAR(all);
            break;
        }
        self->waiting -= PyList_Size(connections);
        self->revoked++;
        Py_DECREF(connections);
        Py_CLEAR(batch->connections);
        batch->descriptor = -1;
    }
    return all;
}

static PyObject *
Lane_close(Lane *self, PyObject *Py_UNUSED(none))
{
    for (Py_ssize_t i = 0; i < self->count; i++)
        close_connections(&self->batches[self->first + i]);
    forget_batches(self);
    Py_RETURN_NONE;
}

static PyMethodDef Lane_methods[] = {
    {"sent", (PyCFunction)Lane_sent, METH_VARARGS, NULL},
    {"read_done", (PyCFunction)Lane_read_done, METH_NOARGS, NULL},
    {"acknowledged", (PyCFunction)Lane_acknowledged, METH_O, NULL},
    {"refuse", (PyCFunction)Lane_refuse, METH_O, NULL},
    {"oldest", (PyCFunction)Lane_oldest, METH_NOARGS, NULL},
    {"revoke", (PyCFunction)Lane_revoke, METH_O, NULL},
    {"close", (PyCFunction)Lane_close, METH_NOARGS, NULL},
    {NULL},
};

static PyMemberDef Lane_members[] = {
    {"waiting", T_PYSSIZET, offsetof(Lane, waiting), READONLY, NULL},
    {"revoked", T_PYSSIZET, offsetof(Lane, revoked), READONLY, NULL},
    {NULL},
};

static PyType_Slot Lane_slots[] = {
    {Py_tp_doc, "Lane(channel, queue, credits, row, refused)\n\nSee kvd.dispatch.lane."},
    {Py_tp_new, Lane_new},
    {Py_tp_dealloc, Lane_dealloc},
    {Py_tp_methods, Lane_methods},
    {Py_tp_members, Lane_members},
    {0, NULL},
};

PyType_Spec Lane_spec = {
    .name = "kvd.native._dispatch.Lane",
    .basicsize = sizeof(Lane),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = Lane_slots,
};
