/*
 * What the supervisor does for each connection that it hands over, without deciding
 * anything (kvd.dispatch.primitives). lane.c remembers what is on its way, timer.c bounds
 * decisions, and lone.c does all at once for a lone connection. gate.c is for
 * workers that accept from one socket.
 */

#include "dispatch.h"

#include <errno.h>
#include <sys/socket.h>

PyDoc_STRVAR(accept_doc,
"accept(listener, group, most) -> list[tuple[int, int]]\n"
"\n"
"Accept connections, up to so many, and no more than wait. Each has a descriptor, which\n"
"does not block, and the number of the group of listening sockets.\n"
"\n"
"Raises OSError: none could be accepted, or none waits.");

static PyObject *
accept_some(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "accept takes three arguments");
        return NULL;
    }
    long listener = PyLong_AsLong(arguments[0]);
    Py_ssize_t most = PyLong_AsSsize_t(arguments[2]);
    if (PyErr_Occurred())
        return NULL;
    PyObject *accepted = PyList_New(0);
    if (accepted == NULL)
        return NULL;
    for (Py_ssize_t i = 0; i < most; i++) {
        /* The caller listens without waiting, so this does not wait. */
        int socket = accept4((int)listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (socket < 0 && i == 0) {
            Py_DECREF(accepted);
            return PyErr_SetFromErrno(PyExc_OSError);
        }
        /* An error of this process comes again. */
        if (socket < 0)
            break;
        PyObject *one = Py_BuildValue("(iO)", socket, arguments[1]);
        if (one == NULL || PyList_Append(accepted, one) < 0) {
            Py_XDECREF(one);
            Py_DECREF(accepted);
            return NULL;
        }
        Py_DECREF(one);
    }
    return accepted;
}

/* Of the worker whose row comes so many rows after the header. */
Tasks
tasks_of(const unsigned long long *words, const Words *at, Py_ssize_t worker)
{
    const unsigned long long *row = words + (worker + 1) * at->row_words;
    unsigned long long begun = read_word(row + at->begun);
    unsigned long long done = read_word(row + at->done);
    /* The words were not read at the same moment. */
    return (Tasks){read_word(row + at->open), begun > done ? begun - done : 0};
}

/* Whether a scoreboard has the rows of so many workers, with these words. */
int
has_rows(const Py_buffer *buffer, const Words *at, Py_ssize_t count)
{
    Py_ssize_t least = Py_MIN(at->open, Py_MIN(at->begun, at->done));
    Py_ssize_t most = Py_MAX(at->open, Py_MAX(at->begun, at->done));
    return least >= 0 && most < at->row_words && count >= 0
        && count <= buffer->len / (Py_ssize_t)sizeof(long long) / at->row_words - 1;
}

int
set_number(PyObject *tuple, Py_ssize_t at, unsigned long long value)
{
    PyObject *number = PyLong_FromUnsignedLongLong(value);
    return number == NULL ? -1 : PyTuple_SetItem(tuple, at, number);
}

/* The tuples of the open connections and of the requests in progress. Returns 0; -1 with
   an exception. */
int
read_tasks(const unsigned long long *words, const Words *at, Py_ssize_t count,
           PyObject **connections, PyObject **requests)
{
    *connections = PyTuple_New(count);
    *requests = PyTuple_New(count);
    for (Py_ssize_t worker = 0; *requests && *connections && worker < count; worker++) {
        Tasks tasks = tasks_of(words, at, worker);
        if (set_number(*connections, worker, tasks.open) < 0
            || set_number(*requests, worker, tasks.in_progress) < 0)
            break;
    }
    if (!PyErr_Occurred())
        return 0;
    Py_CLEAR(*connections);
    Py_CLEAR(*requests);
    return -1;
}

PyDoc_STRVAR(tasks_doc,
"tasks(words, row_words, count, open, begun, done) -> tuple[tuple, tuple]\n"
"\n"
"The open connections, and the requests in progress, of so many rows of a scoreboard\n"
"from the second on.");

static PyObject *
tasks(PyObject *Py_UNUSED(module), PyObject *args)
{
    Py_buffer buffer;
    Words at;
    Py_ssize_t count;
    if (!PyArg_ParseTuple(args, "y*nnnnn:tasks", &buffer, &at.row_words, &count, &at.open,
                          &at.begun, &at.done))
        return NULL;
    PyObject *connections, *requests, *both = NULL;
    if (!has_rows(&buffer, &at, count))
        PyErr_SetString(PyExc_ValueError, "the scoreboard has no such rows");
    else if (read_tasks(buffer.buf, &at, count, &connections, &requests) == 0) {
        both = PyTuple_Pack(2, connections, requests);
        Py_DECREF(connections);
        Py_DECREF(requests);
    }
    PyBuffer_Release(&buffer);
    return both;
}

/* Whether a worker that waits has begun after a time, and one that does not has woken after
   another. */
int
gives_signs(const unsigned long long *words, const Signs *at, Py_ssize_t row_words,
            Py_ssize_t worker, long long since, long long woken_since)
{
    const unsigned long long *row = words + (worker + 1) * row_words;
    long long woke = (long long)read_word(row + at->awake);
    long long began = (long long)read_word(row + at->beat);
    return woke ? woke > woken_since : began > since;
}

PyDoc_STRVAR(ready_doc,
"ready(words, marks, row_words, count, awake, beat, since_ns, woken_since_ns)"
" -> tuple[int, ...]\n"
"\n"
"See kvd.ipc.scoreboard.ReadReady.");

static PyObject *
ready(PyObject *Py_UNUSED(module), PyObject *args)
{
    Py_buffer buffer, marks;
    Py_ssize_t row_words, count, awake, beat;
    long long since, woken_since;
    if (!PyArg_ParseTuple(args, "y*y*nnnnLL:ready", &buffer, &marks, &row_words, &count,
                          &awake, &beat, &since, &woken_since))
        return NULL;
    Words at = {row_words, awake, beat, beat};
    Signs signs = {awake, beat};
    PyObject *numbers = NULL, *tuple = NULL;
    if (row_words <= 0 || !has_rows(&buffer, &at, count) || count > marks.len)
        PyErr_SetString(PyExc_ValueError, "the scoreboard has no such rows");
    else
        numbers = PyList_New(0);
    for (Py_ssize_t worker = 0; numbers != NULL && worker < count; worker++) {
        if (!((const char *)marks.buf)[worker]
            || !gives_signs(buffer.buf, &signs, row_words, worker, since, woken_since))
            continue;
        PyObject *number = PyLong_FromSsize_t(worker);
        if (number == NULL || PyList_Append(numbers, number) < 0)
            Py_CLEAR(numbers);
        Py_XDECREF(number);
    }
    if (numbers != NULL)
        tuple = PyList_AsTuple(numbers);
    Py_XDECREF(numbers);
    PyBuffer_Release(&marks);
    PyBuffer_Release(&buffer);
    return tuple;
}

/* An object of a frozen dataclass that has slots. */
PyObject *
make_frozen(PyTypeObject *type, PyObject *names, PyObject *const *values)
{
    PyObject *made = PyType_GenericAlloc(type, 0);
    for (Py_ssize_t i = 0; made != NULL && i < PyTuple_Size(names); i++)
        if (PyObject_GenericSetAttr(made, PyTuple_GetItem(names, i), values[i]) < 0)
            Py_CLEAR(made);
    return made;
}

PyDoc_STRVAR(frozen_doc,
"frozen(type, names, values) -> object\n"
"\n"
"An object of a frozen dataclass that has slots, with all its fields. Its own `__init__`\n"
"does the same by a call of `object.__setattr__` for each.");

static PyObject *
frozen(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *type, *names, *values, *each[FIELDS];
    if (!PyArg_ParseTuple(args, "O!O!O!:frozen", &PyType_Type, &type, &PyTuple_Type,
                          &names, &PyTuple_Type, &values))
        return NULL;
    if (PyTuple_Size(names) != FIELDS || PyTuple_Size(values) != FIELDS) {
        PyErr_SetString(PyExc_TypeError, "a view has seven fields");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < FIELDS; i++)
        each[i] = PyTuple_GetItem(values, i);
    return make_frozen((PyTypeObject *)type, names, each);
}

/* Of a type without cycles. */
void
free_object(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_Free(self);
    Py_DECREF((PyObject *)type);
}

static PyMethodDef functions[] = {
    {"accept", (PyCFunction)(void (*)(void))accept_some, METH_FASTCALL, accept_doc},
    {"tasks", tasks, METH_VARARGS, tasks_doc},
    {"ready", ready, METH_VARARGS, ready_doc},
    {"frozen", frozen, METH_VARARGS, frozen_doc},
    {NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "kvd.native._dispatch",
    .m_doc = "What the supervisor does for each connection, compiled.",
    .m_size = -1,
    .m_methods = functions,
};

static PyTypeObject *
add_type(PyObject *to, PyType_Spec *spec)
{
    PyTypeObject *type = (PyTypeObject *)PyType_FromModuleAndSpec(to, spec, NULL);
    if (type != NULL && PyModule_AddType(to, type) < 0)
        Py_CLEAR(type);
    return type;
}

PyMODINIT_FUNC
PyInit__dispatch(void)
{
    PyObject *self = PyModule_Create(&module);
    if (self == NULL)
        return NULL;
    PyTypeObject *lone = NULL, *answers = NULL;
    if ((TimerType = add_type(self, &Timer_spec)) == NULL
        || (LaneType = add_type(self, &Lane_spec)) == NULL
        || (lone = add_type(self, &Lone_spec)) == NULL
        || (answers = add_type(self, &Answers_spec)) == NULL)
        Py_CLEAR(self);
    Py_XDECREF((PyObject *)lone);
    Py_XDECREF((PyObject *)answers);
    return self;
}
