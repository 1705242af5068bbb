/*
 * Requests whose bodies come in several pieces.
 *
 * Most of a body follows its head at once; it is read in the same event. What has come
 * until the socket is empty waits here, in memory, for the rest. If anything but the rest
 * comes, the bytes go back to Python as if nobody had read them.
 */

#include "fast_path.h"

#include <errno.h>
#include <structmember.h>
#include <sys/socket.h>

/* Of all that wait. Further ones are left to Python, which waits with a file. */
#define MAX_WAITING_BYTES (8 * 1024 * 1024)

PyTypeObject *PartialRequestType;

static Py_ssize_t waiting_bytes;

static void
drop_bytes(PartialRequest *self)
{
    if (self->request.bytes != NULL)
        waiting_bytes -= self->request.size;
    PyMem_Free(self->request.bytes);
    self->request.bytes = NULL;
    self->received = 0;
}

static void
PartialRequest_dealloc(PartialRequest *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    drop_bytes(self);
    Py_DECREF((PyObject *)self->request.template);
    PyObject_Free(self);
    Py_DECREF((PyObject *)type);
}

PyDoc_STRVAR(take_doc,
"take() -> bytes\n"
"\n"
"What has come of it, which is the caller's from now on.");

static PyObject *
PartialRequest_take(PartialRequest *self, PyObject *Py_UNUSED(none))
{
    PyObject *bytes = PyBytes_FromStringAndSize(self->request.bytes, self->received);
    if (bytes != NULL)
        drop_bytes(self);
    return bytes;
}

static PyMethodDef PartialRequest_methods[] = {
    {"take", (PyCFunction)PartialRequest_take, METH_NOARGS, take_doc},
    {NULL},
};

static PyMemberDef PartialRequest_members[] = {
    {"received", T_PYSSIZET, offsetof(PartialRequest, received), READONLY, NULL},
    {NULL},
};

static PyType_Slot PartialRequest_slots[] = {
    {Py_tp_dealloc, PartialRequest_dealloc},
    {Py_tp_methods, PartialRequest_methods},
    {Py_tp_members, PartialRequest_members},
    {0, NULL},
};

PyType_Spec PartialRequest_spec = {
    .name = "kvd.native._fast_path.PartialRequest",
    .basicsize = sizeof(PartialRequest),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = PartialRequest_slots,
};

/*
 * Read what has come, up to the end of a request of which so much is there.
 *
 * Returns how much is there now. If it is not all, errno is EAGAIN where more may come.
 * An end or an error is met again by whoever reads next.
 */
Py_ssize_t
read_more(int socket, const Request *request, Py_ssize_t received)
{
    while (received < request->size) {
        ssize_t count = recv(socket, request->bytes + received,
                             (size_t)(request->size - received), MSG_DONTWAIT);
        if (count > 0)
            received += count;
        else if (count == 0) {
            errno = 0;
            break;
        } else if (errno != EINTR)
            break;
    }
    return received;
}

/*
 * Let a request wait for the rest of its body. Returns a PartialRequest; None if there is
 * no room for it, or if its body may be refused: Python does that before it has come.
 */
PyObject *
wait_for_rest(FastPath *self, const Request *request, Py_ssize_t received)
{
    char key[MAX_KEY_BYTES + 1];
    memcpy(key, request->bytes + request->line_bytes, (size_t)request->key_bytes);
    key[request->key_bytes] = 0;
    if (request->size > MAX_WAITING_BYTES - waiting_bytes
        || !may_begin(self, key, request->size - request->head_bytes))
        Py_RETURN_NONE;
    char *bytes = PyMem_Malloc((size_t)request->size);
    if (bytes == NULL)
        return PyErr_NoMemory();
    PartialRequest *partial = PyObject_New(PartialRequest, PartialRequestType);
    if (partial == NULL) {
        PyMem_Free(bytes);
        return NULL;
    }
    memcpy(bytes, request->bytes, (size_t)received);
    partial->request = *request;
    partial->request.bytes = bytes;
    partial->request.varying = NULL;
    Py_INCREF((PyObject *)request->template);
    partial->received = received;
    waiting_bytes += request->size;
    ((unsigned long long *)self->row.buf)[self->begun] += 1;
    return (PyObject *)partial;
}

const char serve_rest_doc[] =
"serve_rest(socket, partial) -> int | bytes\n"
"\n"
"Read more of a request that `serve` returned, and serve it if it is whole now.\n"
"\n"
"Returns NOTHING if more must come, and else what `serve` does; the bytes are all that\n"
"came of the request, of which nothing was done. The scoreboard knows in any case that\n"
"the request has begun.";

PyObject *
FastPath_serve_rest(FastPath *self, PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 2 || !Py_IS_TYPE(arguments[1], PartialRequestType)) {
        PyErr_SetString(PyExc_TypeError, "serve_rest takes a socket and a request");
        return NULL;
    }
    long socket = PyLong_AsLong(arguments[0]);
    if (socket == -1 && PyErr_Occurred())
        return NULL;
    PartialRequest *partial = (PartialRequest *)arguments[1];
    const Request *request = &partial->request;
    if (request->bytes == NULL) {
        PyErr_SetString(PyExc_ValueError, "the request was taken");
        return NULL;
    }
    drop_left(self);
    partial->received = read_more((int)socket, request, partial->received);
    if (partial->received == request->size) {
        /* For the report. */
        memcpy(self->buffer, request->bytes, (size_t)request->head_bytes);
        self->is_begun = 1;
        PyObject *outcome = serve_complete(self, (int)socket, request);
        self->is_begun = 0;
        if (outcome == NULL)
            return NULL;
        if (outcome != Py_None) {
            drop_bytes(partial);
            return outcome;
        }
        Py_DECREF(outcome);
    } else if (errno == EAGAIN)
        return PyLong_FromLong(NOTHING);
    return PartialRequest_take(partial, NULL);
}
