/*
 * One read from a socket: the request is served whole, or its bytes are left to Python.
 */

#include "fast_path.h"

#include <errno.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/* Whether a connection can be closed now without loss; as kvd.net.transport.is_settled. */
static int
is_settled(int socket)
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

/* Returns as `serve` does. */
PyObject *
serve_one(FastPath *self, int socket)
{
    char *data = self->buffer;
    /* Of a connection that nobody got to care for: never another's. */
    Py_CLEAR(self->unsent);
    /* A socket that was only just accepted may be a blocking one. */
    ssize_t size = recv(socket, data, BUFFER_BYTES, MSG_DONTWAIT);
    if (size < 0) {
        if (errno == EAGAIN || errno == EINTR)
            return PyLong_FromLong(NOTHING);
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    double began = now();
    /* "GET /" or "PUT /", then a key, " HTTP/1.1" and fields. */
    if (size < 16 || (memcmp(data, "GET /", 5) && memcmp(data, "PUT /", 5)))
        goto other;
    char *end = memmem(data, (size_t)Py_MIN(size, self->most_head), "\r\n\r\n", 4);
    if (end == NULL)
        goto other;
    Py_ssize_t head = end + 4 - data;
    Py_ssize_t length = key_bytes(data + 5, end, self->most_key);
    if (length == 0)
        goto other;

    int served = 0, keep = 0;
    PyObject *template = template_of(self, data, 5, 5 + length, head);
    if (template == NULL)
        return NULL;
    if (template != Py_None) {
        HeadTemplate *known = (HeadTemplate *)template;
        keep = known->keep;
        if (size == head + known->length) {
            PyObject *key = PyBytes_FromStringAndSize(data + 5, length);
            if (key == NULL)
                served = -1;
            else if (known->is_put)
                served = serve_put(self, socket, known, key, data + head, size,
                                   began);
            else
                served = serve_get(self, socket, known, key, size, began);
            Py_XDECREF(key);
        }
    }
    Py_DECREF(template);
    if (served < 0)
        return NULL;
    if (served) {
        self->target_bytes = length + 1;
        int outcome = SERVED;
        if (!keep)
            outcome |= is_settled(socket) ? CLOSES : CLOSES | LINGERS;
        if (self->unsent != NULL)
            outcome |= QUEUED;
        return PyLong_FromLong(outcome);
    }
other:
    return PyBytes_FromStringAndSize(data, size);
}
