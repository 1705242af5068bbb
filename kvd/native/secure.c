/*
 * Connections over TLS: OpenSSL decrypts and encrypts, by Python's ssl module
 * (kvd.net.secure_socket.SecureSocket). For a request of one record, this does what the
 * methods of that class do, without a call of Python's; whatever is unusual is left to them.
 */

#include "fast_path.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEADER_BYTES 5
#define MOST_ENCRYPTED_BYTES (RECORD_BYTES + 2048)

/* How many records of a body are taken in one turn of the reactor. */
#define MOST_BODY_RECORDS 64

/* The functions of a connection, in the order of RecordFunctions. */
enum { FEED, READ, WRITE, TAKE };

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

/* Whether an attribute of the connection is empty bytes; -1 with an exception. */
static int
is_empty(FastPath *self, PyObject **name, const char *text)
{
    if (*name == NULL)
        *name = PyUnicode_InternFromString(text);
    PyObject *bytes = *name == NULL ? NULL : PyObject_GetAttr(self->secure, *name);
    if (bytes == NULL)
        return -1;
    Py_ssize_t size = PyBytes_Size(bytes);
    Py_DECREF(bytes);
    return size < 0 ? -1 : size == 0;
}

/* Let a method of the connection know. Returns -1 with an exception. */
static int
tell(PyObject *called)
{
    Py_XDECREF(called);
    return called == NULL ? -1 : 0;
}

/*
 * Take the bytes of the next record, if all of it has come; otherwise the connection keeps
 * what has.
 *
 * Returns them, NULL if there are none, or NULL with an exception.
 */
static PyObject *
next_record(FastPath *self, int socket)
{
    char record[HEADER_BYTES + MOST_ENCRYPTED_BYTES];
    ssize_t come = recv(socket, record, HEADER_BYTES, MSG_DONTWAIT), size = HEADER_BYTES;
    if (come <= 0)
        /* An end or an error comes again. */
        return NULL;
    if (come == HEADER_BYTES) {
        size += (unsigned char)record[3] << 8 | (unsigned char)record[4];
        if (size <= (ssize_t)sizeof record) {
            ssize_t more = recv(socket, record + HEADER_BYTES,
                                (size_t)(size - HEADER_BYTES), MSG_DONTWAIT);
            come += Py_MAX(more, 0);
        }
    }
    PyObject *bytes = PyBytes_FromStringAndSize(record, come);
    if (bytes == NULL || come == size)
        return bytes;
    (void)PyObject_SetAttrString(self->secure, "begun", bytes);
    Py_DECREF(bytes);
    return NULL;
}

/*
 * Take a record without a call of Python's. Returns as `receive_record`, and -1 also where
 * that has to be called.
 */
static Py_ssize_t
read_record(FastPath *self, int socket)
{
    if (self->records == NULL)
        return -1;
    if (self->view == NULL)
        self->view = PyMemoryView_FromMemory(self->buffer, RECORD_BYTES, PyBUF_WRITE);
    if (self->record_bytes == NULL)
        self->record_bytes = PyLong_FromLong(RECORD_BYTES);
    if (self->view == NULL || self->record_bytes == NULL)
        return -2;
    int empty = is_empty(self, &self->begun_name, "begun");
    if (empty <= 0)
        return empty < 0 ? -2 : -1;
    PyObject *record = next_record(self, socket);
    if (record == NULL)
        return PyErr_Occurred() ? -2 : -1;
    int fed = tell(PyObject_CallFunctionObjArgs(PyTuple_GetItem(self->records, FEED),
                                                record, NULL));
    Py_DECREF(record);
    if (fed < 0)
        return -2;
    PyObject *taken = PyObject_CallFunctionObjArgs(PyTuple_GetItem(self->records, READ),
                                                   self->record_bytes, self->view, NULL);
    if (taken == NULL) {
        PyObject *type, *error, *traceback;
        PyErr_Fetch(&type, &error, &traceback);
        PyErr_NormalizeException(&type, &error, &traceback);
        int told = tell(PyObject_CallMethod(self->secure, "without_data", "O", error));
        Py_XDECREF(type);
        Py_XDECREF(error);
        Py_XDECREF(traceback);
        return told < 0 ? -2 : -1;
    }
    Py_ssize_t size = PyLong_AsSsize_t(taken);
    Py_DECREF(taken);
    if (size == 0 && PyObject_SetAttrString(self->secure, "ended", Py_True) < 0)
        return -2;
    return size < 0 ? -2 : size;
}

/* As recv(2); -2 with an exception that is not about the connection. */
Py_ssize_t
receive_secure(FastPath *self, int socket)
{
    Py_ssize_t size = read_record(self, socket);
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
 * Take records up to a size of which so much is there, but not many: each may have a byte.
 * Returns how much is there now, perhaps more than that. An end or an error is met again by
 * whoever reads next.
 */
Py_ssize_t
receive_more_secure(FastPath *self, Py_ssize_t received, Py_ssize_t size)
{
    for (int records = 0; received < size && records < MOST_BODY_RECORDS; records++) {
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
 * Send a record without a call of Python's, if nothing is unsent. Returns how many bytes were
 * sent, which are all or none; -1 where `transmit` has to be called, perhaps with an
 * exception.
 */
static Py_ssize_t
write_record(FastPath *self, int socket, PyObject *bytes)
{
    Py_ssize_t size = PyBytes_Size(bytes);
    if (self->records == NULL || size > RECORD_BYTES
        || is_empty(self, &self->unsent_name, "unsent") <= 0
        || tell(PyObject_CallFunctionObjArgs(PyTuple_GetItem(self->records, WRITE), bytes,
                                             NULL)) < 0)
        return -1;
    PyObject *record = PyObject_CallNoArgs(PyTuple_GetItem(self->records, TAKE));
    char *text;
    Py_ssize_t record_bytes;
    if (record == NULL || PyBytes_AsStringAndSize(record, &text, &record_bytes) < 0) {
        Py_XDECREF(record);
        return -1;
    }
    ssize_t sent = send(socket, text, (size_t)record_bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
    sent = Py_MAX(sent, 0);
    if (sent < record_bytes)
        tell(PyObject_CallMethod(self->secure, "hold", "y#n", text + sent,
                                 record_bytes - sent, size));
    Py_DECREF(record);
    return sent < record_bytes ? 0 : size;
}

/*
 * Send bytes, which this takes. What the socket does not take, or cannot, is left in
 * `unsent`.
 *
 * Returns how much was sent, or -1 with an exception.
 */
static Py_ssize_t
transmit(FastPath *self, int socket, PyObject *bytes)
{
    Py_ssize_t size = PyBytes_Size(bytes), sent = write_record(self, socket, bytes);
    if (sent < 0 && !PyErr_Occurred()) {
        PyObject *taken = PyObject_CallMethod(self->secure, "transmit", "O", bytes);
        if (taken != NULL) {
            sent = PyLong_AsSsize_t(taken);
            Py_DECREF(taken);
        }
    }
    /* The next send meets the error again. */
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
send_reply_secure(FastPath *self, int socket, const char *head, size_t head_bytes,
                  const char *body, size_t body_bytes)
{
    PyObject *reply
        = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(head_bytes + body_bytes));
    if (reply == NULL)
        return -1;
    memcpy(PyBytes_AsString(reply), head, head_bytes);
    memcpy(PyBytes_AsString(reply) + head_bytes, body, body_bytes);
    return transmit(self, socket, reply);
}

/*
 * As `send_file`: the head and the beginning of the file fill whole records; the rest of a
 * longer one is left to Python.
 */
int
send_file_secure(FastPath *self, int socket, Value *value, const Selection *selected,
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
    Py_ssize_t sent = transmit(self, socket, reply);
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
    /* Mostly the request that comes with the end of the handshake. */
    PyObject *joined = PyDict_GetItemWithError(self->joined, arguments[0]);
    if (joined == NULL && PyErr_Occurred())
        return NULL;
    Py_XINCREF(joined);
    self->secure = arguments[1];
    self->records = joined == NULL ? NULL : ((Joined *)joined)->records;
    PyObject *outcome = FastPath_serve(self, arguments[0]);
    self->secure = self->records = NULL;
    Py_XDECREF(joined);
    return outcome;
}
