/*
 * PUTs whose body comes later than the head, or in pieces.
 *
 * Many clients send the head, and then the body. When a head has come, the file of its
 * upload is created; each piece of the body is written to it when it comes, and the last
 * one publishes the value. Whatever else happens meanwhile is Python's, which takes the
 * upload as it is then, with its file: the end of the client or of the process, an error,
 * or that some time has passed (kvd.http.connection).
 */

#include "fast_path.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

void
free_upload(PartialUpload *partial)
{
    if (partial->file >= 0)
        close(partial->file);
    Py_DECREF((PyObject *)partial->request.template);
    Py_DECREF(partial->key);
    Py_XDECREF(partial->unwritten);
    Py_XDECREF(partial->unsent);
    Py_DECREF(partial->make);
    release(&partial->upload);
    Py_XDECREF((PyObject *)partial->upload.usage);
    PyMem_Free(partial);
}

/* Discard the upload of a connection that nobody got to care for. */
void
drop_new_upload(FastPath *self)
{
    PartialUpload *partial = self->new_upload;
    if (partial == NULL)
        return;
    self->new_upload = NULL;
    unlinkat(self->uploads, partial->upload.name, 0);
    self->seconds = now() - partial->request.began;
    self->method = partial->request.template->method;
    self->status = 0;
    count_upload_done(self);
    free_upload(partial);
}

/*
 * Begin the upload of a request, whose body is still to come. It belongs to a connection,
 * or if that is new (NULL), to the one that joins next.
 *
 * Returns 1; 0 if the request is Python's; -1 with an exception.
 */
int
begin_upload(FastPath *self, const Request *request, PyObject *key, Joined *joined)
{
    PartialUpload *partial
        = PyMem_Malloc(sizeof *partial + (size_t)request->head_bytes);
    if (partial == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    int prepared = prepare_upload(self, request, key, &partial->upload);
    if (prepared > 0) {
        Py_BEGIN_ALLOW_THREADS
        partial->file = create_file_early(self, &partial->upload);
        Py_END_ALLOW_THREADS
        prepared = partial->file >= 0;
        if (!prepared)
            release(&partial->upload);
    }
    if (prepared <= 0) {
        PyMem_Free(partial);
        return prepared;
    }
    memcpy(partial->head, request->bytes, (size_t)request->head_bytes);
    partial->request = *request;
    partial->request.bytes = partial->head;
    partial->request.varying = NULL;
    Py_INCREF((PyObject *)request->template);
    Py_XINCREF((PyObject *)partial->upload.usage);
    partial->key = Py_NewRef(key);
    partial->may_keep = partial->upload.keeps;
    partial->received = 0;
    partial->waits_since = clock_seconds(self);
    partial->unwritten = partial->unsent = NULL;
    partial->sent = 0;
    partial->make = Py_NewRef(self->partial);
    count_begun(self->counts, 1);
    count_received(self->counts, request->head_bytes);
    if (joined != NULL)
        joined->upload = partial;
    else
        self->new_upload = partial;
    return 1;
}

/*
 * Tell a client that waits for it to send the body of an upload that has begun (RFC 9110
 * section 10.1.1). Returns 1; 0 if the socket did not take all of it, so that the upload is
 * left to Python; -1 with an exception.
 */
int
ask_for_body(FastPath *self, int socket, PartialUpload *partial)
{
    PyObject *interim = partial->request.template->interim;
    Py_ssize_t size = PyBytes_Size(interim);
    if (size == 0)
        return 1;
    ssize_t sent = send(socket, PyBytes_AsString(interim), (size_t)size,
                        MSG_DONTWAIT | MSG_NOSIGNAL);
    partial->sent = Py_MAX(sent, 0);
    count_sent(self->counts, partial->sent);
    if (partial->sent == size)
        return 1;
    partial->unsent = PyBytes_FromStringAndSize(
        PyBytes_AsString(interim) + partial->sent, size - partial->sent);
    return partial->unsent == NULL ? -1 : 0;
}

/* Publish a value that has come, and reply. Returns as `serve` does. */
static PyObject *
finish(FastPath *self, int socket, PartialUpload **place, Joined *joined)
{
    PartialUpload *partial = *place;
    int served = finish_put(self, socket, partial);
    if (served == 0)
        return PyLong_FromLong(LEAVES_UPLOAD);
    if (partial->upload.name[0])
        /* Nothing was done; the caller ends the connection, and with it the upload. */
        return NULL;
    *place = NULL;
    PyObject *outcome
        = served < 0 ? NULL
        : self->commit != NULL ? PyLong_FromLong(COMMITS)
        : outcome_of(self, socket, joined, &partial->request, 0);
    free_upload(partial);
    return outcome;
}

/*
 * Take what comes of the body of an upload: write it to the file, and after the last byte
 * publish it.
 *
 * bytes: where there is room for the rest of the body; so much of it has been read already.
 *
 * Returns as `serve` does; NOTHING if more is to come.
 */
PyObject *
receive_body(FastPath *self, int socket, PartialUpload **place, Joined *joined,
             char *bytes, Py_ssize_t received)
{
    PartialUpload *partial = *place;
    Py_ssize_t length = partial->upload.length;
    received = read_more(socket, bytes, received, length - partial->received);
    int is_open = errno == EAGAIN;
    Py_ssize_t written = received;
    if (received > 0) {
        Py_BEGIN_ALLOW_THREADS
        written = write_all(partial->file, bytes, received);
        Py_END_ALLOW_THREADS
    }
    partial->received += written;
    count_received(self->counts, written);
    if (written < received) {
        partial->unwritten
            = PyBytes_FromStringAndSize(bytes + written, received - written);
        return partial->unwritten == NULL ? NULL : PyLong_FromLong(LEAVES_UPLOAD);
    }
    if (partial->received == length)
        return finish(self, socket, place, joined);
    if (received > 0)
        partial->waits_since = clock_seconds(self);
    if (PyErr_Occurred())
        return NULL;
    return PyLong_FromLong(is_open ? NOTHING : LEAVES_UPLOAD);
}

const char take_upload_doc[] =
"take_upload() -> PartialUpload | None\n"
"\n"
"The upload that this connection has begun, with its file, which is the caller's from\n"
"now on; None if there is none.";

PyObject *
Joined_take_upload(Joined *self, PyObject *Py_UNUSED(none))
{
    PartialUpload *partial = self->upload;
    if (partial == NULL)
        Py_RETURN_NONE;
    PyObject *unwritten = partial->unwritten, *unsent = partial->unsent;
    PyObject *taken = PyObject_CallFunction(
        partial->make, "y#iyLny#ny#dd", partial->head, partial->request.head_bytes,
        partial->file, partial->upload.name, partial->upload.held, partial->received,
        unwritten == NULL ? "" : PyBytes_AsString(unwritten),
        unwritten == NULL ? 0 : PyBytes_Size(unwritten), partial->sent,
        unsent == NULL ? "" : PyBytes_AsString(unsent),
        unsent == NULL ? 0 : PyBytes_Size(unsent), now() - partial->request.began,
        partial->waits_since);
    if (taken == NULL)
        return NULL;
    self->upload = NULL;
    partial->file = -1;
    partial->upload.held = 0;
    free_upload(partial);
    return taken;
}
