/*
 * Requests whose heads come before their bodies.
 *
 * Many clients send a head, and then the body. Until the body begins, the head waits here.
 * If the whole body is there then, the request is served. Otherwise the bytes go to Python
 * as if nobody had read them: it writes each piece of a body to the file when it comes.
 */

#include "fast_path.h"

#include <errno.h>
#include <sys/socket.h>

/* Of all heads that wait. Further ones are left to Python. */
#define MAX_WAITING_BYTES (1024 * 1024)

PyTypeObject *PartialRequestType;

static Py_ssize_t waiting_bytes;

static void
drop_bytes(PartialRequest *self)
{
    if (self->request.bytes != NULL)
        waiting_bytes -= self->request.head_bytes;
    PyMem_Free(self->request.bytes);
    self->request.bytes = NULL;
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
"Its head, which is the caller's from now on; empty if it was taken before.");

static PyObject *
PartialRequest_take(PartialRequest *self, PyObject *Py_UNUSED(none))
{
    Py_ssize_t size = self->request.bytes == NULL ? 0 : self->request.head_bytes;
    PyObject *bytes = PyBytes_FromStringAndSize(self->request.bytes, size);
    if (bytes != NULL)
        drop_bytes(self);
    return bytes;
}

static PyMethodDef PartialRequest_methods[] = {
    {"take", (PyCFunction)PartialRequest_take, METH_NOARGS, take_doc},
    {NULL},
};

static PyType_Slot PartialRequest_slots[] = {
    {Py_tp_dealloc, PartialRequest_dealloc},
    {Py_tp_methods, PartialRequest_methods},
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
 * Let a request wait for its body. Returns a PartialRequest; None if there is no room for
 * it, or if its body may be refused: Python does that before it has come.
 */
PyObject *
wait_for_body(FastPath *self, const Request *request)
{
    char key[MAX_KEY_BYTES + 1];
    memcpy(key, request->bytes + request->line_bytes, (size_t)request->key_bytes);
    key[request->key_bytes] = 0;
    if (request->head_bytes > MAX_WAITING_BYTES - waiting_bytes
        || !may_begin(self, key, request->size - request->head_bytes))
        Py_RETURN_NONE;
    char *bytes = PyMem_Malloc((size_t)request->head_bytes);
    if (bytes == NULL)
        return PyErr_NoMemory();
    PartialRequest *partial = PyObject_New(PartialRequest, PartialRequestType);
    if (partial == NULL) {
        PyMem_Free(bytes);
        return NULL;
    }
    memcpy(bytes, request->bytes, (size_t)request->head_bytes);
    partial->request = *request;
    partial->request.bytes = bytes;
    partial->request.varying = NULL;
    Py_INCREF((PyObject *)request->template);
    waiting_bytes += request->head_bytes;
    ((unsigned long long *)self->row.buf)[self->begun] += 1;
    return (PyObject *)partial;
}

const char serve_body_doc[] =
"serve_body(socket, partial) -> int | bytes\n"
"\n"
"Read the body of a request that `serve` returned, and serve it if all of it has come.\n"
"\n"
"Returns NOTHING if nothing of it has come, and else what `serve` does; the bytes are all\n"
"that came of the request, of which nothing was done. The scoreboard knows in any case\n"
"that the request has begun.";

PyObject *
FastPath_serve_body(FastPath *self, PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 2 || !Py_IS_TYPE(arguments[1], PartialRequestType)) {
        PyErr_SetString(PyExc_TypeError, "serve_body takes a socket and a request");
        return NULL;
    }
    long socket = PyLong_AsLong(arguments[0]);
    if (socket == -1 && PyErr_Occurred())
        return NULL;
    PartialRequest *partial = (PartialRequest *)arguments[1];
    if (partial->request.bytes == NULL) {
        PyErr_SetString(PyExc_ValueError, "the request was taken");
        return NULL;
    }
    drop_left(self);
    if (enter(self) < 0)
        return NULL;
    Request request = partial->request;
    request.bytes = self->buffer;
    memcpy(request.bytes, partial->request.bytes, (size_t)request.head_bytes);
    Py_ssize_t size = read_more((int)socket, &request, request.head_bytes);
    PyObject *outcome;
    if (size == request.head_bytes && errno == EAGAIN)
        outcome = PyLong_FromLong(NOTHING);
    else {
        drop_bytes(partial);
        self->is_begun = 1;
        outcome = size == request.size ? serve_known(self, (int)socket, &request)
                                       : Py_NewRef(Py_None);
        self->is_begun = 0;
    }
    if (outcome == Py_None) {
        Py_DECREF(outcome);
        outcome = PyBytes_FromStringAndSize(self->buffer, size);
    }
    self->busy = 0;
    return outcome;
}
