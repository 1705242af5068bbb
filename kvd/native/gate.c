/*
 * The gate of a worker that shares a listening socket: what its policy has said of what the
 * scoreboard shows (kvd.dispatch.gate). A view that is new is Python's.
 */

#include "dispatch.h"

#include <string.h>

typedef struct {
    PyObject_HEAD
    Py_buffer words, marks;
    Words at;
    Signs signs;
    Py_ssize_t in_use;          /* the word of the number of workers */
    long long silent_ns, turn_ns;
    PyObject *ask, *clock;
    PyObject *answers;          /* by views */
    Py_ssize_t most;            /* of them */
} Answers;

/* What a view shows of a worker. */
typedef struct {
    unsigned long long is_ready;
    Tasks tasks;
} Shown;

static PyObject *
Answers_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(keywords))
{
    PyObject *words, *marks, *ask, *clock;
    Words at;
    Signs signs;
    Py_ssize_t in_use, most;
    long long silent_ns, turn_ns;
    if (!PyArg_ParseTuple(args, "OOnnnnnnnLLOOn:Answers", &words, &marks, &at.row_words,
                          &in_use, &at.open, &at.begun, &at.done, &signs.awake, &signs.beat,
                          &silent_ns, &turn_ns, &ask, &clock, &most))
        return NULL;
    Answers *self = (Answers *)PyType_GenericAlloc(type, 0);
    if (self == NULL)
        return NULL;
    self->at = at;
    self->signs = signs;
    self->in_use = in_use;
    self->silent_ns = silent_ns;
    self->turn_ns = turn_ns;
    self->most = most;
    self->ask = Py_NewRef(ask);
    self->clock = Py_NewRef(clock);
    self->answers = PyDict_New();
    if (self->answers == NULL || PyObject_GetBuffer(words, &self->words, PyBUF_SIMPLE) < 0
        || PyObject_GetBuffer(marks, &self->marks, PyBUF_SIMPLE) < 0) {
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    if (at.row_words <= 0 || in_use < 0 || in_use >= at.row_words
        || !has_rows(&self->words, &at, 0)) {
        PyErr_SetString(PyExc_ValueError, "the scoreboard has no such words");
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    return (PyObject *)self;
}

static int
Answers_traverse(Answers *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE((PyObject *)self));
    Py_VISIT(self->ask);
    Py_VISIT(self->clock);
    return 0;
}

static int
Answers_clear(Answers *self)
{
    Py_CLEAR(self->ask);
    Py_CLEAR(self->clock);
    return 0;
}

static void
Answers_dealloc(Answers *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    PyObject_GC_UnTrack(self);
    Answers_clear(self);
    Py_CLEAR(self->answers);
    if (self->words.obj != NULL)
        PyBuffer_Release(&self->words);
    if (self->marks.obj != NULL)
        PyBuffer_Release(&self->marks);
    PyObject_GC_Del(self);
    Py_DECREF((PyObject *)type);
}

/* What the scoreboard shows now: so many connections that wait, and `Shown` of each worker,
   as bytes. NULL with an exception. */
static PyObject *
look(Answers *self, unsigned long long waiting)
{
    const unsigned long long *words = self->words.buf;
    Py_ssize_t count = (Py_ssize_t)read_word(words + self->in_use);
    Words signs = {self->at.row_words, self->signs.awake, self->signs.beat,
                   self->signs.beat};
    if (!has_rows(&self->words, &self->at, count)
        || !has_rows(&self->words, &signs, count) || count > self->marks.len) {
        PyErr_SetString(PyExc_ValueError, "the scoreboard has no such rows");
        return NULL;
    }
    PyObject *time = PyObject_CallNoArgs(self->clock);
    long long now = time == NULL ? -1 : PyLong_AsLongLong(time);
    Py_XDECREF(time);
    if (PyErr_Occurred())
        return NULL;
    PyObject *view = PyBytes_FromStringAndSize(
        NULL, (Py_ssize_t)sizeof waiting + count * (Py_ssize_t)sizeof(Shown));
    if (view == NULL)
        return NULL;
    char *at = PyBytes_AsString(view);
    memcpy(at, &waiting, sizeof waiting);
    at += sizeof waiting;
    for (Py_ssize_t worker = 0; worker < count; worker++) {
        Shown shown = {
            ((const char *)self->marks.buf)[worker]
                && gives_signs(words, &self->signs, self->at.row_words, worker,
                               now - self->silent_ns, now - self->turn_ns),
            tasks_of(words, &self->at, worker),
        };
        memcpy(at, &shown, sizeof shown);
        at += sizeof shown;
    }
    return view;
}

/* The numbers of the workers that are ready, and what each has. Returns 0; -1 with an
   exception. */
static int
unpack(const char *at, Py_ssize_t count, PyObject **ready, PyObject **connections,
       PyObject **requests)
{
    *ready = PyList_New(0);
    *connections = PyTuple_New(count);
    *requests = PyTuple_New(count);
    for (Py_ssize_t worker = 0; *ready && *connections && *requests && worker < count;
         worker++) {
        Shown shown;
        memcpy(&shown, at + worker * (Py_ssize_t)sizeof shown, sizeof shown);
        if (set_number(*connections, worker, shown.tasks.open) < 0
            || set_number(*requests, worker, shown.tasks.in_progress) < 0)
            break;
        PyObject *number = shown.is_ready ? PyLong_FromSsize_t(worker) : NULL;
        if (number != NULL && PyList_Append(*ready, number) < 0) {
            Py_DECREF(number);
            break;
        }
        Py_XDECREF(number);
    }
    return PyErr_Occurred() ? -1 : 0;
}

/* Ask Python about a view, and remember the answer if it may. */
static PyObject *
ask(Answers *self, PyObject *view, PyObject *waiting)
{
    PyObject *ready, *connections, *requests, *answer = NULL, *said = NULL;
    const char *at = PyBytes_AsString(view) + sizeof(unsigned long long);
    Py_ssize_t count = (PyBytes_Size(view) - (Py_ssize_t)sizeof(unsigned long long))
        / (Py_ssize_t)sizeof(Shown);
    int remembers = 0;
    if (unpack(at, count, &ready, &connections, &requests) == 0)
        said = PyObject_CallFunctionObjArgs(self->ask, ready, connections, requests,
                                            waiting, NULL);
    Py_XDECREF(ready);
    Py_XDECREF(connections);
    Py_XDECREF(requests);
    if (said == NULL || !PyArg_ParseTuple(said, "Op:ask", &answer, &remembers)) {
        Py_XDECREF(said);
        return NULL;
    }
    Py_INCREF(answer);
    Py_DECREF(said);
    if (remembers) {
        if (PyDict_Size(self->answers) >= self->most)
            PyDict_Clear(self->answers);
        if (PyDict_SetItem(self->answers, view, answer) < 0)
            Py_CLEAR(answer);
    }
    return answer;
}

PyDoc_STRVAR(is_open_doc,
"is_open(waiting) -> bool\n"
"\n"
"Whether to accept now, when so many connections seem to wait.");

static PyObject *
Answers_is_open(Answers *self, PyObject *waiting)
{
    unsigned long long number = PyLong_AsUnsignedLongLong(waiting);
    PyObject *view = PyErr_Occurred() ? NULL : look(self, number);
    if (view == NULL)
        return NULL;
    PyObject *answer = PyDict_GetItemWithError(self->answers, view);
    if (answer != NULL)
        Py_INCREF(answer);
    else if (!PyErr_Occurred())
        answer = ask(self, view, waiting);
    Py_DECREF(view);
    return answer;
}

static PyMethodDef Answers_methods[] = {
    {"is_open", (PyCFunction)Answers_is_open, METH_O, is_open_doc},
    {NULL},
};

static PyType_Slot Answers_slots[] = {
    {Py_tp_doc, "See kvd.dispatch.gate.Answers."},
    {Py_tp_new, Answers_new},
    {Py_tp_dealloc, Answers_dealloc},
    {Py_tp_traverse, Answers_traverse},
    {Py_tp_clear, Answers_clear},
    {Py_tp_methods, Answers_methods},
    {0, NULL},
};

PyType_Spec Answers_spec = {
    .name = "kvd.native._dispatch.Answers",
    .basicsize = sizeof(Answers),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = Answers_slots,
};
