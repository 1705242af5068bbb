/*
 * Connections over TLS: the bytes come from Python's ssl module, and go to it
 * (kvd.net.tls.SecureSocket), in place of a socket.
 */

#include "fast_path.h"

#include <errno.h>
#include <unistd.h>

/*
 * Take a record.
 *
 * Returns how many bytes it has; 0 at the end; -1 if none has come; -2 with an exception.
 */
static Py_ssize_t
receive_record(FastPath *self, char *into)
{
    PyObject *record = PyObject_CallMethod(self->secure, "receive", NULL);
    if (record == NULL)
        return -2;
    Py_ssize_t size = -1;
    if (record != Py_None) {
        char *bytes;
        if (PyBytes_AsStringAndSize(record, &bytes, &size) < 0 || size > RECORD_BYTES) {
            Py_DECREF(record);
            if (!PyErr_Occurred())
                PyErr_SetString(PyExc_ValueError, "a record is too long");
            return -2;
        }
        memcpy(into, bytes, (size_t)size);
    }
    Py_DECREF(record);
    return size;
}

/*
 * Take a record without a call of Python's. Returns as `receive_record`; at the end too, -1:
 * `receive` has to say what it is.
 */
static Py_ssize_t
read_record(FastPath *self)
{
    if (self->read == NULL)
        return -1;
    if (self->view == NULL)
        self->view = PyMemoryView_FromMemory(self->buffer, RECORD_BYTES, PyBUF_WRITE);
    if (self->record_bytes == NULL)
        self->record_bytes = PyLong_FromLong(RECORD_BYTES);
    if (self->view == NULL || self->record_bytes == NULL)
        return -2;
    PyObject *taken
        = PyObject_CallFunctionObjArgs(self->read, self->record_bytes, self->view, NULL);
    Py_ssize_t size = taken == NULL ? -1 : PyLong_AsSsize_t(taken);
    Py_XDECREF(taken);
    PyErr_Clear();
    return size > 0 ? size : -1;
}

/* As recv(2); -2 with an exception that is not about the connection. */
Py_ssize_t
receive_secure(FastPath *self)
{
    Py_ssize_t size = read_record(self);
    if (size == -1)
        size = receive_record(self, self->buffer);
    errno = EAGAIN;
    if (size == -2 && PyErr_ExceptionMatches(PyExc_OSError)) {
        PyErr_Clear();
        errno = EIO;
        return -1;
    }
    return size;
}

/*
 * Take records up to a size of which so much is there. Returns how much is there now,
 * perhaps more than that. An end or an error is met again by whoever reads next.
 */
Py_ssize_t
receive_more_secure(FastPath *self, Py_ssize_t received, Py_ssize_t size)
{
    while (received < size) {
        Py_ssize_t count = receive_record(self, self->buffer + received);
        if (count <= 0) {
            PyErr_Clear();
            break;
        }
        received += count;
    }
    return received;
}

/*
 * Send bytes, which this takes. What the socket does not take, or cannot, is left in
 * `unsent`.
 *
 * Returns how much was sent, or -1 with an exception.
 */
static Py_ssize_t
transmit(FastPath *self, PyObject *bytes)
{
    Py_ssize_t size = PyBytes_Size(bytes), sent = 0;
    PyObject *taken = self->write != NULL && size <= RECORD_BYTES
        ? PyObject_CallFunctionObjArgs(self->write, bytes, NULL)
        : PyObject_CallMethod(self->secure, "transmit", "O", bytes);
    if (taken != NULL) {
        sent = PyLong_AsSsize_t(taken);
        Py_DECREF(taken);
    }
    /* Whoever sends the rest meets it again. */
    PyErr_Clear();
    if (sent < 0 || sent > size)
        sent = 0;
    if (sent == size) {
        Py_DECREF(bytes);
        return sent;
    }
    if (sent == 0)
        self->unsent = bytes;
    else {
        self->unsent = PyBytes_FromStringAndSize(PyBytes_AsString(bytes) + sent,
                                                 size - sent);
        Py_DECREF(bytes);
    }
    return self->unsent == NULL ? -1 : sent;
}

/* As `send_reply`. */
Py_ssize_t
send_reply_secure(FastPath *self, const char *head, size_t head_bytes, const char *body,
                  size_t body_bytes)
{
    PyObject *reply
        = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(head_bytes + body_bytes));
    if (reply == NULL)
        return -1;
    memcpy(PyBytes_AsString(reply), head, head_bytes);
    memcpy(PyBytes_AsString(reply) + head_bytes, body, body_bytes);
    return transmit(self, reply);
}

/*
 * As `send_file`: the head and the beginning of the file fill whole records; the rest of a
 * longer one is left to Python.
 */
int
send_file_secure(FastPath *self, Value *value, const Selection *selected,
                 const char *head, size_t head_bytes, Py_ssize_t received, double began)
{
    size_t bytes = (size_t)Py_MIN(selected->bytes,
                                  (unsigned long long)(4 * RECORD_BYTES - head_bytes));
    PyObject *reply = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(head_bytes + bytes));
    if (reply == NULL)
        return -1;
    char *text = PyBytes_AsString(reply);
    ssize_t got;
    memcpy(text, head, head_bytes);
    Py_BEGIN_ALLOW_THREADS
    got = pread(value->file, text + head_bytes, bytes, (off_t)selected->first);
    Py_END_ALLOW_THREADS
    if (got < 0 || (size_t)got != bytes) {
        /* Another program may just be cutting it short. */
        Py_DECREF(reply);
        return 0;
    }
    Py_ssize_t sent = transmit(self, reply);
    if (sent < 0)
        return -1;
    self->body_bytes = (Py_ssize_t)bytes;
    self->sent_bytes = sent;
    self->moved_bytes = received + sent;
    self->seconds = now() - began;
    if (bytes == selected->bytes) {
        count(self, received, sent);
        return 1;
    }
    if (self->unsent == NULL)
        self->unsent = Py_NewRef(self->nothing);
    self->rest_file = value->file;
    self->rest_offset = selected->first + bytes;
    self->rest_bytes = selected->bytes - bytes;
    value->file = -1;
    return 1;
}

const char serve_secure_doc[] =
"serve_secure(socket, secure) -> int | bytes\n"
"\n"
"As `serve`, over TLS: with what encrypts and decrypts for the socket.";

PyObject *
FastPath_serve_secure(FastPath *self, PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "serve_secure takes two arguments");
        return NULL;
    }
    self->secure = arguments[1];
    PyObject *outcome = FastPath_serve(self, arguments[0]);
    self->secure = NULL;
    return outcome;
}
