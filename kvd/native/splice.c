/*
 * kvd.net.splice.move, compiled: it makes two system calls for some hundred kilobytes, and
 * the interpreter took as long as these calls.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define FLAGS (SPLICE_F_MOVE | SPLICE_F_NONBLOCK)

/* Move the content of the pipe to the target. Returns how many bytes it took; *failed says
   whether it has failed. */
static Py_ssize_t
empty(int pipe, int target, Py_ssize_t filled, int *failed)
{
    Py_ssize_t emptied = 0;
    while (emptied < filled) {
        ssize_t written = splice(pipe, NULL, target, NULL, (size_t)(filled - emptied),
                                 FLAGS);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0 && errno != EAGAIN)
            *failed = 1;
        if (written <= 0)
            break;
        emptied += written;
    }
    return emptied;
}

PyDoc_STRVAR(move_doc,
"move(source, pipe_in, pipe_out, pipe_bytes, target, limit, held) -> int | tuple\n"
"\n"
"Empty the pipe, which holds so many bytes, and move what is there, without waiting for\n"
"more.\n"
"\n"
"Returns how many bytes have reached the target; or that, how many are left in the\n"
"pipe because the target did not take them, whether the source has ended or failed,\n"
"and whether the target has failed, if any of these is so.\n"
"\n"
"Raises OSError: the source has failed, and nothing was moved.");

static PyObject *
move(PyObject *Py_UNUSED(module), PyObject *args)
{
    int source, pipe_in, pipe_out, target;
    Py_ssize_t pipe_bytes, limit, held, taken = 0;
    if (!PyArg_ParseTuple(args, "iiininn:move", &source, &pipe_in, &pipe_out,
                          &pipe_bytes, &target, &limit, &held))
        return NULL;
    int reason = 0, ended = 0, failed = 0;
    Py_ssize_t count, left;
    Py_BEGIN_ALLOW_THREADS
    count = empty(pipe_out, target, held, &failed);
    left = held - count;
    while (taken < limit && left == 0) {
        Py_ssize_t wanted = limit - taken < pipe_bytes ? limit - taken : pipe_bytes;
        ssize_t filled = splice(source, NULL, pipe_in, NULL, (size_t)wanted, FLAGS);
        if (filled < 0 && errno == EINTR)
            continue;
        if (filled <= 0) {
            reason = filled < 0 ? errno : 0;
            ended = filled == 0;
            break;
        }
        Py_ssize_t emptied = empty(pipe_out, target, filled, &failed);
        taken += filled;
        count += emptied;
        left = filled - emptied;
    }
    Py_END_ALLOW_THREADS
    if (reason && reason != EAGAIN && count) {
        /* What came before it counts. */
        ended = 1;
    } else if (reason && reason != EAGAIN) {
        errno = reason;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    if (left || ended)
        return Py_BuildValue("nnOO", count, left, ended ? Py_True : Py_False,
                             failed ? Py_True : Py_False);
    return PyLong_FromSsize_t(count);
}

static PyMethodDef functions[] = {
    {"move", move, METH_VARARGS, move_doc},
    {NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "kvd.native._splice",
    .m_doc = "kvd.net.splice.move, compiled.",
    .m_size = -1,
    .m_methods = functions,
};

PyMODINIT_FUNC
PyInit__splice(void)
{
    return PyModule_Create(&module);
}
