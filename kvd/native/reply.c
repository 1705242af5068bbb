/*
 * What every reply has: its date, the way into the socket, and its place in the counts.
 */

#include "fast_path.h"

#include <math.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/uio.h>

/* The present as RFC 9110 section 5.6.7 wants it; formatted once a second. */
const char *
http_date(FastPath *self)
{
    static const char DAYS[] = "SunMonTueWedThuFriSat";
    static const char MONTHS[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    /* Not time(2): that can be a tick behind, and so before a date of publication. */
    struct timespec present;
    clock_gettime(CLOCK_REALTIME, &present);
    time_t second = present.tv_sec;
    if (second != self->date_second) {
        struct tm at;
        gmtime_r(&second, &at);
        char text[80];
        snprintf(text, sizeof text, "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT",
                 DAYS + 3 * at.tm_wday, at.tm_mday, MONTHS + 3 * at.tm_mon,
                 at.tm_year + 1900, at.tm_hour, at.tm_min, at.tm_sec);
        memcpy(self->date, text, sizeof self->date - 1);
        self->date_second = second;
    }
    return self->date;
}

void
count(FastPath *self, Py_ssize_t received, Py_ssize_t sent)
{
    unsigned long long *words = self->row.buf;
    int exponent;
    words[self->begun] += 1;
    words[self->done] += 1;
    words[self->bytes_in] += (unsigned long long)received;
    words[self->bytes_out] += (unsigned long long)sent;
    ((double *)self->row.buf)[self->serving] += self->seconds;
    frexp(self->seconds + 1e-9, &exponent);
    Py_ssize_t at = exponent - self->least_exponent;
    Py_ssize_t last = PyTuple_Size(self->bucket_of_exponent) - 1;
    at = at < 0 ? 0 : at > last ? last : at;
    PyObject *bucket = PyTuple_GetItem(self->bucket_of_exponent, at);
    words[self->latency + PyLong_AsSsize_t(bucket)] += 1;
}

/*
 * Send a head and a body. What the socket does not take, or cannot, is left in
 * `unsent`, for the reactor to try: it finds out whether the peer is gone.
 *
 * Returns how much was sent, or -1 with an exception.
 */
Py_ssize_t
send_reply(FastPath *self, int socket, char *head, size_t head_bytes, char *body,
           size_t body_bytes)
{
    struct iovec parts[2] = {{head, head_bytes}, {body, body_bytes}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = body_bytes ? 2 : 1};
    int flags = MSG_DONTWAIT | MSG_NOSIGNAL;
    ssize_t sent = body_bytes ? sendmsg(socket, &message, flags)
                              : send(socket, head, head_bytes, flags);
    size_t done = sent < 0 ? 0 : (size_t)sent;
    if (done == head_bytes + body_bytes)
        return (Py_ssize_t)done;
    PyObject *rest
        = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(head_bytes + body_bytes - done));
    if (rest == NULL)
        return -1;
    char *into = PyBytes_AsString(rest);
    if (done < head_bytes) {
        memcpy(into, head + done, head_bytes - done);
        memcpy(into + head_bytes - done, body, body_bytes);
    } else
        memcpy(into, body + (done - head_bytes), body_bytes - (done - head_bytes));
    self->unsent = rest;
    return (Py_ssize_t)done;
}
