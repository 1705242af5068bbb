/*
 * Reads what one event brought to a socket, finds the key and the template, and serves the
 * whole request, or returns the bytes to Python.
 */

#include "fast_path.h"

#include <errno.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/* Whether a connection can be closed now without loss, as kvd.net.sockets says. */
static int
is_drained(int socket)
{
    int count, domain;
    socklen_t size = sizeof domain;
    if (ioctl(socket, SIOCINQ, &count) < 0 || count)
        return 0;
    if (ioctl(socket, SIOCOUTQ, &count) < 0)
        return 0;
    return !count || (getsockopt(socket, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0
                      && domain == AF_UNIX);
}

PyObject *
is_drained_socket(PyObject *Py_UNUSED(module), PyObject *connection)
{
    int descriptor = PyObject_AsFileDescriptor(connection);
    return descriptor < 0 ? NULL : PyBool_FromLong(is_drained(descriptor));
}

/*
 * What `serve` returns for a request that was served, which is reported unless its reply goes
 * on.
 *
 * is_known: see `report`.
 */
PyObject *
outcome_of(FastPath *self, int socket, Joined *joined, const Request *request,
           int is_known)
{
    self->head_bytes = request->head_bytes;
    if (self->rest_file >= 0)
        return PyLong_FromLong(SERVED | REMAINS);
    if (report(self, socket, joined, request, is_known) < 0)
        return NULL;
    int outcome = SERVED;
    if (!request->template->keep)
        outcome |= is_drained(socket) ? CLOSES : CLOSES | LINGERS;
    if (self->unsent != NULL)
        outcome |= QUEUED;
    return PyLong_FromLong(outcome);
}

static PyObject *
key_of(const Request *request)
{
    return PyBytes_FromStringAndSize(request->bytes + request->line_bytes,
                                     request->key_bytes);
}

/* Returns as `serve` does; None if the request is left to Python. */
static PyObject *
serve_known(FastPath *self, int socket, const Request *request, Joined *joined)
{
    HeadTemplate *template = request->template;
    int served;
    PyObject *key = key_of(request);
    if (key == NULL)
        return NULL;
    if (template->is_put)
        served = serve_put(self, socket, request, key);
    else
        served = serve_get(self, socket, template, request->varying, key, request->size,
                           request->began);
    Py_DECREF(key);
    if (served < 0)
        return NULL;
    if (!served)
        Py_RETURN_NONE;
    return self->commit != NULL ? PyLong_FromLong(COMMITS)
        : outcome_of(self, socket, joined, request, 0);
}

/* Begin a PUT whose body has not come, but for so much of it. Returns as `serve_known`. */
static PyObject *
serve_partial(FastPath *self, int socket, const Request *request, Py_ssize_t received,
              Joined *joined)
{
    PyObject *key = key_of(request);
    if (key == NULL)
        return NULL;
    int begun = begin_upload(self, request, key, joined);
    Py_DECREF(key);
    if (begun < 0)
        return NULL;
    if (!begun)
        Py_RETURN_NONE;
    PartialUpload **place = joined == NULL ? &self->new_upload : &joined->upload;
    int asked = received ? 1 : ask_for_body(self, socket, *place);
    if (asked <= 0)
        return asked < 0 ? NULL : PyLong_FromLong(LEAVES_UPLOAD);
    return receive_body(self, socket, place, joined, request->bytes + request->head_bytes,
                        received);
}

/* Make sure that no other thread enters while the global lock is released. */
static int
enter(FastPath *self)
{
    if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "a request is being served already");
        return -1;
    }
    self->busy = 1;
    /* From a connection that was dropped; it must not reach another one. */
    drop_rest(self);
    drop_commit(self);
    drop_new_upload(self);
    return 0;
}

/*
 * Read what has come, up to a size of which so much is there.
 *
 * Returns how much is there now. If it is not all, errno is EAGAIN where more may come.
 * An end or an error is met again by whoever reads next.
 */
Py_ssize_t
read_more(int socket, char *bytes, Py_ssize_t received, Py_ssize_t size)
{
    while (received < size) {
        ssize_t count = recv(socket, bytes + received, (size_t)(size - received),
                             MSG_DONTWAIT);
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

/* Returns as `serve` does. */
static PyObject *
serve_request(FastPath *self, int socket, Joined *joined)
{
    char *data = self->buffer;
    /* A socket that was just accepted may be blocking. */
    ssize_t size = self->secure == NULL ? recv(socket, data, EVENT_BYTES, MSG_DONTWAIT)
                                        : receive_secure(self, socket);
    if (size == -2)
        return NULL;
    if (size < 0)
        /* Not an exception: callbacks raise those, and they do not mean the socket. */
        return PyLong_FromLong(errno == EAGAIN || errno == EINTR ? NOTHING : LOST);
    double began = now();
    /* A method and a slash, then a key, " HTTP/1.1" and fields. */
    if (size < 16)
        goto other;
    Py_ssize_t line = 5;
    if (memcmp(data, "HEAD /", 6) == 0)
        line = 6;
    else if (memcmp(data, "GET /", 5) && memcmp(data, "PUT /", 5))
        goto other;
    char *end = memmem(data, (size_t)Py_MIN(size, self->most_head), "\r\n\r\n", 4);
    if (end == NULL)
        goto other;
    Py_ssize_t head = end + 4 - data;
    Py_ssize_t length = plain_key_bytes(data + line, end);
    if (length == 0 || length > self->most_key || data[line + length] != ' ')
        goto other;

    char shape[MAX_HEAD_BYTES];
    Varying varying;
    Py_ssize_t shape_bytes
        = cut_head(shape, data, line, line + length, head, varying.texts);
    if (shape_bytes == 0 || !read_varying(&varying))
        goto other;
    /* Another request follows. */
    Py_ssize_t body = varying.body_bytes;
    if (size > head + body)
        goto other;

    PyObject *template = template_of(self, shape, shape_bytes, data, head);
    if (template == NULL)
        return NULL;
    PyObject *outcome = Py_NewRef(Py_None);
    HeadTemplate *known = template == Py_None ? NULL : (HeadTemplate *)template;
    if (known != NULL)
        self->method = known->method;
    int is_for = known != NULL && body <= known->most_bytes
        && is_for_key(known, data + line, length);
    if (is_for && known->is_by_password
        && (is_for = logs_in_at_once(self, socket, joined)) < 0) {
        Py_DECREF(outcome);
        Py_DECREF(template);
        return NULL;
    }
    if (is_for) {
        Request request = {
            known, &varying, data, line, length, head, head + body, began,
        };
        /* Else nothing more is there; but see serve_partial. */
        int is_open = size < EVENT_BYTES;
        if (self->secure != NULL) {
            size = receive_more_secure(self, size, request.size);
            is_open = 0;
        } else if (!is_open) {
            size = read_more(socket, data, size, request.size);
            is_open = errno == EAGAIN;
        }
        Py_DECREF(outcome);
        if (size == request.size)
            outcome = serve_known(self, socket, &request, joined);
        else if (is_open && body <= MAX_PARTIAL_BYTES)
            outcome = serve_partial(self, socket, &request, size - head, joined);
        else
            outcome = Py_NewRef(Py_None);
    }
    Py_DECREF(template);
    if (outcome != Py_None)
        return outcome;
    Py_DECREF(outcome);
other:
    return PyBytes_FromStringAndSize(data, size);
}

/* Serve what has arrived on a connection; NULL if it has not joined. Returns as `serve`
   does. */
PyObject *
serve_one(FastPath *self, int socket, Joined *joined)
{
    if (enter(self) < 0)
        return NULL;
    if (joined == NULL) {
        if (self->new_socket != socket)
            Py_CLEAR(self->new_peer);
        self->new_socket = socket;
        self->new_account = (Account){0};
    }
    PyObject *outcome = joined != NULL && joined->upload != NULL
        ? receive_body(self, socket, &joined->upload, joined, self->buffer, 0)
        : serve_request(self, socket, joined);
    self->busy = 0;
    return outcome;
}
