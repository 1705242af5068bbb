/*
 * What all replies need: the date, and sending.
 */

#include "fast_path.h"

#include <sys/socket.h>
#include <sys/uio.h>

#define DAY_SECONDS 86400
/* What four digits of a year can say. */
#define FIRST_SECOND (-62135596800LL)
#define LAST_SECOND 253402300799LL

/* Write the digits of a number so that they end before `end`. Returns their start. */
char *
write_digits(char *end, unsigned long long number)
{
    do
        *--end = (char)('0' + number % 10);
    while (number /= 10);
    return end;
}

static char *
write_two(char *at, int number)
{
    at[0] = (char)('0' + number / 10);
    at[1] = (char)('0' + number % 10);
    return at + 2;
}

/* Write the date of a day, without the time. */
static void
write_day(char *text, time_t second)
{
    static const char DAYS[] = "SunMonTueWedThuFriSat";
    static const char MONTHS[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    struct tm at;
    gmtime_r(&second, &at);
    int year = at.tm_year + 1900;
    memcpy(text, "Day, 00 Mon 0000 ", DAY_BYTES);
    memcpy(text, DAYS + 3 * at.tm_wday, 3);
    write_two(text + 5, at.tm_mday);
    memcpy(text + 8, MONTHS + 3 * at.tm_mon, 3);
    write_two(write_two(text + 12, year / 100), year % 100);
}

/* Write the time of a day behind its date. */
static void
write_time(char *text, int time)
{
    memcpy(text + DAY_BYTES, "00:00:00 GMT", DATE_BYTES - DAY_BYTES);
    write_two(text + DAY_BYTES, time / 3600);
    write_two(text + DAY_BYTES + 3, time / 60 % 60);
    write_two(text + DAY_BYTES + 6, time % 60);
}

PyObject *
date_text(PyObject *Py_UNUSED(module), PyObject *argument)
{
    char text[DATE_BYTES];
    long long second = PyLong_AsLongLong(argument);
    if (second == -1 && PyErr_Occurred())
        return NULL;
    if (second < FIRST_SECOND || second > LAST_SECOND)
        return PyErr_Format(PyExc_ValueError, "second %lld is in none of the years 1 to 9999",
                            second);
    int time = (int)(second % DAY_SECONDS);
    write_day(text, (time_t)second);
    write_time(text, time < 0 ? time + DAY_SECONDS : time);
    return PyUnicode_FromStringAndSize(text, DATE_BYTES);
}

/* Write a date from 1970 up to the year 9999 in the format of RFC 9110 section 5.6.7. Most
   dates belong to the same day as the previous one. */
void
write_date(FastPath *self, char *text, time_t second)
{
    time_t day = second / DAY_SECONDS;
    if (day != self->day || !self->day_text[0]) {
        write_day(self->day_text, second);
        self->day = day;
    }
    memcpy(text, self->day_text, DAY_BYTES);
    write_time(text, (int)(second % DAY_SECONDS));
}

/* The current date; formatted once a second. */
const char *
http_date(FastPath *self)
{
    /* Not time(2): that can be a tick behind, and so before a date of publication. */
    struct timespec present;
    clock_gettime(CLOCK_REALTIME, &present);
    if (present.tv_sec != self->date_second) {
        write_date(self, self->date, present.tv_sec);
        self->date_second = present.tv_sec;
    }
    return self->date;
}

/* An upload has ended that `count_begun` has counted. */
void
count_upload_done(FastPath *self)
{
    count_done(self->counts, self->method, 1, self->status, self->seconds);
}

/* A request came, and its reply was sent. */
void
count(FastPath *self, Py_ssize_t received, Py_ssize_t sent)
{
    count_begun(self->counts, 0);
    count_received(self->counts, received);
    count_sent(self->counts, sent);
    count_done(self->counts, self->method, 0, self->status, self->seconds);
}

/*
 * Send a head and a body. What the socket does not take stays in `unsent`, also after an
 * error: the reactor sends it, and finds out whether the peer is gone.
 *
 * Returns how much was sent, or -1 with an exception.
 */
Py_ssize_t
send_reply(FastPath *self, int socket, char *head, size_t head_bytes, char *body,
           size_t body_bytes)
{
    if (self->secure != NULL)
        return send_reply_secure(self, socket, head, head_bytes, body, body_bytes);
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
