/*
 * The connections of a process: new ones, those that stay open, and the outcome of an event
 * that the next `serve` of the same socket returns.
 */

#include "fast_path.h"

#include <errno.h>
#include <structmember.h>
#include <sys/socket.h>
#include <unistd.h>

PyTypeObject *JoinedType;

static void
Joined_dealloc(Joined *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    leave_commit(self);
    Py_XDECREF(self->connection);
    /* Its file is swept with the folder of uploads. */
    if (self->upload != NULL)
        free_upload(self->upload);
    Py_XDECREF(self->served);
    Py_XDECREF(self->secure);
    Py_XDECREF(self->records);
    Py_XDECREF(self->number);
    Py_XDECREF(self->joined);
    PyObject_Free(self);
    Py_DECREF((PyObject *)type);
}

PyDoc_STRVAR(leave_doc,
"leave()\n"
"\n"
"The connection is closed. Its descriptor will be reused.");

static PyObject *
Joined_leave(Joined *self, PyObject *Py_UNUSED(none))
{
    self->idle = 0;
    leave_commit(self);
    Py_CLEAR(self->connection);
    if (PyDict_GetItemWithError(self->joined, self->number) == (PyObject *)self
        && PyDict_DelItem(self->joined, self->number) < 0)
        return NULL;
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef Joined_methods[] = {
    {"leave", (PyCFunction)Joined_leave, METH_NOARGS, leave_doc},
    {"take_commit", (PyCFunction)Joined_take_commit, METH_O, joined_take_commit_doc},
    {"take_upload", (PyCFunction)Joined_take_upload, METH_NOARGS, take_upload_doc},
    {NULL},
};

static PyMemberDef Joined_members[] = {
    {"idle", T_BOOL, offsetof(Joined, idle), 0, NULL},
    {"connection", T_OBJECT, offsetof(Joined, connection), 0, NULL},
    {"served", T_OBJECT, offsetof(Joined, served), READONLY, NULL},
    {"secure", T_OBJECT, offsetof(Joined, secure), 0, NULL},
    {"records", T_OBJECT, offsetof(Joined, records), 0, NULL},
    {NULL},
};

static PyType_Slot Joined_slots[] = {
    {Py_tp_dealloc, Joined_dealloc},
    {Py_tp_methods, Joined_methods},
    {Py_tp_members, Joined_members},
    {0, NULL},
};

PyType_Spec Joined_spec = {
    .name = "kvd.native._fast_path.Joined",
    .basicsize = sizeof(Joined),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = Joined_slots,
};

void
drop_left(FastPath *self)
{
    self->left_socket = -1;
    Py_CLEAR(self->left);
    Py_CLEAR(self->left_type);
    Py_CLEAR(self->left_value);
    Py_CLEAR(self->left_traceback);
}

const char serve_doc[] =
"serve(socket) -> int | bytes\n"
"\n"
"Read from a socket between two requests, without waiting, and serve the request that\n"
"has arrived, if it has a template and nothing about it is unusual.\n"
"\n"
"Returns NOTHING if nothing has arrived; LOST if the socket cannot be read; SERVED, with\n"
"CLOSES if the connection ends with this reply, LINGERS if it must not be closed at once\n"
"then, and QUEUED if `unsent` is still to be sent; otherwise the bytes that were read,\n"
"empty if the client has closed its half.";

PyObject *
FastPath_serve(FastPath *self, PyObject *argument)
{
    long socket = PyLong_AsLong(argument);
    if (socket == -1 && PyErr_Occurred())
        return NULL;
    if (socket < 0 || socket != self->left_socket) {
        /* From a connection that was dropped; it must not reach another one. */
        drop_left(self);
        Joined *joined = (Joined *)PyDict_GetItemWithError(self->joined, argument);
        if (joined == NULL && PyErr_Occurred())
            return NULL;
        Py_XINCREF((PyObject *)joined);
        PyObject *outcome = serve_one(self, (int)socket, joined);
        Py_XDECREF((PyObject *)joined);
        return outcome;
    }
    PyObject *left = self->left;
    self->left = NULL;
    if (left == NULL) {
        PyErr_Restore(self->left_type, self->left_value, self->left_traceback);
        self->left_type = self->left_value = self->left_traceback = NULL;
    }
    drop_left(self);
    return left;
}

/*
 * Serve what has arrived on a connection; NULL if it has not joined. Returns the outcome if
 * it is one of the two expected ones; otherwise -1, and the next `serve` of this socket
 * returns the outcome, or raises the exception.
 */
static long
serve_or_leave(FastPath *self, int socket, Joined *joined, long expected, long or_else)
{
    drop_left(self);
    PyObject *outcome = serve_one(self, socket, joined);
    if (outcome != NULL && PyLong_Check(outcome)) {
        long number = PyLong_AsLong(outcome);
        if (number == expected || number == or_else) {
            Py_DECREF(outcome);
            return number;
        }
    }
    self->left_socket = socket;
    self->left = outcome;
    PyErr_Fetch(&self->left_type, &self->left_value, &self->left_traceback);
    return -1;
}

const char serve_idle_doc[] =
"serve_idle(socket) -> bool\n"
"\n"
"Serve the request that has arrived on a connection that has joined and is idle, or read\n"
"more of its body; or serve the connections that have arrived on the channel of\n"
"`take_batches`.\n"
"\n"
"Returns whether nothing is left to do. Otherwise `serve` must be called next for the\n"
"socket of such a connection: it reads nothing, but returns the outcome.";

PyObject *
FastPath_serve_idle(FastPath *self, PyObject *argument)
{
    Joined *joined = (Joined *)PyDict_GetItemWithError(self->joined, argument);
    if (joined == NULL && PyErr_Occurred())
        return NULL;
    if (joined == NULL) {
        long descriptor = PyLong_AsLong(argument);
        if (descriptor == -1 && PyErr_Occurred())
            return NULL;
        int is_all = descriptor == self->channel ? serve_channel(self) : 0;
        return is_all < 0 ? NULL : PyBool_FromLong(is_all);
    }
    if (!joined->idle || joined->reports || joined->commit != NULL)
        Py_RETURN_FALSE;
    Py_INCREF((PyObject *)joined);
    self->may_block = 0;
    self->secure = joined->secure;
    self->records = joined->records;
    long outcome = serve_or_leave(self, (int)PyLong_AsLong(argument), joined, SERVED,
                                  NOTHING);
    self->secure = self->records = NULL;
    self->may_block = 1;
    if (outcome < 0 && wait_alone(self, joined)) {
        Py_DECREF((PyObject *)joined);
        Py_RETURN_TRUE;
    }
    if (outcome == SERVED) {
        PyObject *before = joined->served;
        joined->served = PyObject_CallNoArgs(self->clock);
        Py_XDECREF(before);
        if (joined->served == NULL) {
            Py_DECREF((PyObject *)joined);
            return NULL;
        }
    }
    Py_DECREF((PyObject *)joined);
    return PyBool_FromLong(outcome >= 0);
}

/*
 * Close a connection that `is_settled`; as kvd.net.transport.close_both_ways. Bytes that
 * have come since then make close(2) alone send a reset in place of the end, and the
 * client reads an error behind the reply.
 */
static void
close_both_ways(int socket)
{
    shutdown(socket, SHUT_RDWR);
    close(socket);
}

/*
 * Serve the request that came with a new connection, and close its socket. Returns
 * whether this was all; else as `serve_or_leave`.
 */
int
serve_whole(FastPath *self, int socket, int may_block)
{
    self->may_block = may_block;
    long outcome
        = serve_or_leave(self, socket, NULL, SERVED | CLOSES, SERVED | CLOSES);
    self->may_block = 1;
    if (outcome < 0)
        return 0;
    /* Before the client can see the end. */
    ((unsigned long long *)self->row.buf)[self->accepted] += 1;
    close_both_ways(socket);
    return 1;
}

const char serve_new_doc[] =
"serve_new(sockets) -> int\n"
"\n"
"Serve the request that has arrived with each new connection, if the connection ends\n"
"with it, and close the socket, of which other processes may have descriptors. Stop at\n"
"the first connection that stays open.\n"
"\n"
"Returns how many were served. The caller keeps the next socket, and must call `serve`\n"
"for it, which reads nothing, but returns the outcome.";

PyObject *
FastPath_serve_new(FastPath *self, PyObject *argument)
{
    Py_ssize_t count = PySequence_Size(argument);
    if (count < 0)
        return NULL;
    Py_ssize_t served = 0;
    while (served < count) {
        PyObject *number = PySequence_GetItem(argument, served);
        if (number == NULL)
            return NULL;
        long socket = PyLong_AsLong(number);
        Py_DECREF(number);
        if (socket == -1 && PyErr_Occurred())
            return NULL;
        /* Whoever has accepted it may have let it block. */
        if (!serve_whole(self, (int)socket, 1))
            break;
        served++;
    }
    return PyLong_FromSsize_t(served);
}

const char accept_doc[] =
"accept(listener, count) -> (int, int)\n"
"\n"
"Accept up to `count` connections, and serve each as `serve_new` does, until one stays\n"
"open.\n"
"\n"
"Returns how many were accepted, fewer if no more wait; and the descriptor of the last\n"
"one if the caller keeps it, as after `serve_new`, else -1.\n"
"\n"
"Raises OSError: none could be accepted, or none waits.";

PyObject *
FastPath_accept(FastPath *self, PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "accept takes two arguments");
        return NULL;
    }
    long listener = PyLong_AsLong(arguments[0]);
    long most = PyLong_AsLong(arguments[1]);
    if (PyErr_Occurred())
        return NULL;
    long accepted = 0;
    int socket = -1;
    while (accepted < most) {
        /* The listening socket is non-blocking, so this does not block. */
        socket = accept4((int)listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (socket < 0)
            break;
        accepted++;
        if (!serve_whole(self, socket, 0))
            break;
        socket = -1;
    }
    /* Otherwise the next call gets the error, or it concerned a single connection. */
    if (accepted == 0 && most > 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return Py_BuildValue("(li)", accepted, socket);
}

const char join_doc[] =
"join(socket, reports) -> Joined\n"
"\n"
"A connection stays open; its socket does not block. `serve_idle` serves it from now on,\n"
"unless its requests are reported.";

PyObject *
FastPath_join(FastPath *self, PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 2 || !PyLong_Check(arguments[0]) || !PyBool_Check(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "join takes a socket and whether it reports");
        return NULL;
    }
    PyObject *argument = arguments[0];
    long socket = PyLong_AsLong(argument);
    if (socket == -1 && PyErr_Occurred())
        return NULL;
    Joined *joined = PyObject_New(Joined, JoinedType);
    if (joined == NULL)
        return NULL;
    joined->idle = 1;
    joined->secure = joined->records = NULL;
    joined->commit = NULL;
    joined->connection = NULL;
    joined->reports = arguments[1] == Py_True;
    joined->upload = NULL;
    joined->served = NULL;
    joined->number = Py_NewRef(argument);
    joined->joined = Py_NewRef(self->joined);
    if (PyDict_SetItem(self->joined, argument, (PyObject *)joined) < 0) {
        Py_DECREF((PyObject *)joined);
        return NULL;
    }
    if (self->new_upload != NULL && self->new_upload_socket == socket) {
        joined->upload = self->new_upload;
        self->new_upload = NULL;
    }
    return (PyObject *)joined;
}
