/*
 * What the supervisor does for each connection that it hands over: to accept it, to read
 * what the workers are doing, and to make the view by which a policy chooses. Each is a
 * dozen calls in Python, in a processor's caches that are cold when a connection comes
 * alone.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <sys/socket.h>

PyDoc_STRVAR(accept_doc,
"accept(listener, family, most) -> list[tuple[int, int]]\n"
"\n"
"Accept connections, up to so many, and no more than wait. Each has a descriptor, which\n"
"does not block, and that family.\n"
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

/* A word that another process may be writing. */
static unsigned long long
read_word(const unsigned long long *word)
{
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

/* Add two numbers to the tuples of all workers. Returns 0; -1 with an exception. */
static int
set_tasks(PyObject *connections, PyObject *requests, Py_ssize_t worker,
          unsigned long long open, unsigned long long in_progress)
{
    PyObject *number = PyLong_FromUnsignedLongLong(open);
    if (number == NULL || PyTuple_SetItem(connections, worker, number) < 0)
        return -1;
    number = PyLong_FromUnsignedLongLong(in_progress);
    return number == NULL ? -1 : PyTuple_SetItem(requests, worker, number);
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
    Py_ssize_t row_words, count, open, begun, done;
    if (!PyArg_ParseTuple(args, "y*nnnnn:tasks", &buffer, &row_words, &count, &open,
                          &begun, &done))
        return NULL;
    PyObject *connections = NULL, *requests = NULL, *both = NULL;
    Py_ssize_t last = Py_MAX(open, Py_MAX(begun, done));
    if (Py_MIN(open, Py_MIN(begun, done)) < 0 || last >= row_words || count < 0
        || count > buffer.len / (Py_ssize_t)sizeof(long long) / row_words - 1) {
        PyErr_SetString(PyExc_ValueError, "the scoreboard has no such rows");
        goto end;
    }
    connections = PyTuple_New(count);
    requests = PyTuple_New(count);
    if (connections == NULL || requests == NULL)
        goto end;
    for (Py_ssize_t worker = 0; worker < count; worker++) {
        const unsigned long long *row = buffer.buf;
        row += (worker + 1) * row_words;
        unsigned long long has_begun = read_word(row + begun);
        unsigned long long has_done = read_word(row + done);
        /* The two words were not read at the same moment. */
        if (set_tasks(connections, requests, worker, read_word(row + open),
                      has_begun > has_done ? has_begun - has_done : 0) < 0)
            goto end;
    }
    both = PyTuple_Pack(2, connections, requests);
end:
    Py_XDECREF(connections);
    Py_XDECREF(requests);
    PyBuffer_Release(&buffer);
    return both;
}

PyDoc_STRVAR(frozen_doc,
"frozen(type, names, values) -> object\n"
"\n"
"An object of a frozen dataclass that has slots, with all its fields. Its own `__init__`\n"
"does the same by a call of `object.__setattr__` for each.");

static PyObject *
frozen(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *type, *names, *values;
    if (!PyArg_ParseTuple(args, "O!O!O!:frozen", &PyType_Type, &type, &PyTuple_Type,
                          &names, &PyTuple_Type, &values))
        return NULL;
    if (PyTuple_Size(names) != PyTuple_Size(values)) {
        PyErr_SetString(PyExc_TypeError, "each field has a value");
        return NULL;
    }
    PyObject *made = PyType_GenericAlloc((PyTypeObject *)type, 0);
    if (made == NULL)
        return NULL;
    for (Py_ssize_t i = 0; i < PyTuple_Size(names); i++)
        if (PyObject_GenericSetAttr(made, PyTuple_GetItem(names, i),
                                    PyTuple_GetItem(values, i)) < 0) {
            Py_DECREF(made);
            return NULL;
        }
    return made;
}

static PyMethodDef functions[] = {
    {"accept", (PyCFunction)(void (*)(void))accept_some, METH_FASTCALL, accept_doc},
    {"tasks", tasks, METH_VARARGS, tasks_doc},
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

PyMODINIT_FUNC
PyInit__dispatch(void)
{
    return PyModule_Create(&module);
}
