/*
 * Sends a reply whose body is a file: as much as the socket takes at once. Python gets the
 * open file and sends the rest.
 */

#include "fast_path.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE_BYTES ((size_t)4096)
#define SEGMENT_PAGES 16

#define UNREPORTED 2

/* Whether a byte of a file seems to be in memory. Returns as `is_in_memory`. */
static int
has_in_memory(int file, long long offset)
{
    char byte;
    struct iovec where = {&byte, 1};
    if (preadv2(file, &where, 1, (off_t)offset, RWF_NOWAIT) >= 0)
        return 1;
    return errno == EOPNOTSUPP ? UNREPORTED : errno != EAGAIN;
}

/*
 * Whether a part of a file seems to be in memory, as kvd.net.readahead says. Returns 1 or 0;
 * UNREPORTED by tmpfs, which is in memory, and by file systems that cannot say it.
 */
static int
is_in_memory(int file, long long offset, long long bytes)
{
    /* The end first: readahead has usually brought the beginning. */
    int is_there = has_in_memory(file, offset + bytes - 1);
    return is_there == 1 ? has_in_memory(file, offset) : is_there;
}

PyObject *
is_part_in_memory(PyObject *Py_UNUSED(module), PyObject *args)
{
    int file, is_there;
    long long offset, bytes;
    if (!PyArg_ParseTuple(args, "iLL:is_in_memory", &file, &offset, &bytes))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    is_there = is_in_memory(file, offset, bytes);
    Py_END_ALLOW_THREADS
    return PyBool_FromLong(is_there);
}

/* Whether a client has had a round trip of at most so many microseconds, as
   kvd.net.sockets says. Returns 1 or 0; -1 with errno. */
static int
is_near(int socket, long long microseconds)
{
    struct tcp_info info = {0};
    socklen_t size = sizeof info;
    if (getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &size) < 0)
        return -1;
    return size >= offsetof(struct tcp_info, tcpi_min_rtt) + sizeof info.tcpi_min_rtt
        && (long long)info.tcpi_min_rtt <= microseconds;
}

PyObject *
is_near_socket(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *connection;
    long long microseconds;
    if (!PyArg_ParseTuple(args, "OL:is_near", &connection, &microseconds))
        return NULL;
    int descriptor = PyObject_AsFileDescriptor(connection);
    if (descriptor < 0) {
        if (!PyErr_ExceptionMatches(PyExc_ValueError))
            return NULL;
        /* It is closed: the kernel says EBADF. */
        PyErr_Clear();
    }
    int near = is_near(descriptor, microseconds);
    return near < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyBool_FromLong(near);
}

/*
 * Limit the send buffer for a client with a low round-trip time, with the figures of
 * kvd.net.sending. The kernel doubles the number.
 */
static void
fit_buffer(const FastPath *self, int socket)
{
    int bytes;
    socklen_t size = sizeof bytes;
    if (getsockopt(socket, SOL_SOCKET, SO_SNDBUF, &bytes, &size) < 0
        || bytes == 2 * self->low_round_trip_buffer_bytes
        || is_near(socket, self->low_round_trip_microseconds) != 1)
        return;
    setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &self->low_round_trip_buffer_bytes,
               sizeof self->low_round_trip_buffer_bytes);
}

/*
 * How much of a part of a file is sent by the call that completes the first segment.
 *
 * A segment has up to 64 KiB, in 17 pages at most (MAX_SKB_FRAGS), one of which has the
 * head. So it has no room for 64 KiB that begin within a page. If one call sends more than
 * fits, the kernel pushes no segment before it has all of them, and paces them (BBR, fq):
 * it waits for a timer between any two. For a range of 64 KiB that took 26 us instead of 10
 * on a virtual machine. From the start of a page, the segments fill up one after the other,
 * and each is pushed at once.
 */
static size_t
beside_the_head(off_t offset, size_t bytes)
{
    size_t into = (size_t)offset % PAGE_BYTES;
    if (into == 0 || into + bytes <= SEGMENT_PAGES * PAGE_BYTES)
        return bytes;
    /* A page less, for the head. */
    return (SEGMENT_PAGES - 1) * PAGE_BYTES - into;
}

/* Drop the rest of a reply that was never taken. */
void
drop_rest(FastPath *self)
{
    Py_CLEAR(self->unsent);
    Py_CLEAR(self->hit_info);
    if (self->rest_file >= 0)
        close(self->rest_file);
    self->rest_file = -1;
}

/*
 * Send a head and a part of a value's file. If the socket does not take all of it now, the
 * rest stays in `unsent` and `rest_file`, and nothing is counted yet.
 *
 * Returns 1; 0 if the file has to be read from a disk first, so the request is left to
 * Python; -1 with an exception.
 */
int
send_file(FastPath *self, int socket, Value *value, const Selection *selected,
          char *head, size_t head_bytes, Py_ssize_t received, double began)
{
    if (self->secure != NULL)
        return send_file_secure(self, socket, value, selected, head, head_bytes, received,
                                began);
    off_t offset = (off_t)selected->first;
    int file = value->file, is_there = 1, yes = 1;
    unsigned long long end = selected->first + selected->bytes, rest = 0;
    size_t most = (size_t)Py_MIN(selected->bytes, (unsigned long long)self->file_bytes);
    ssize_t head_sent = -1;
    Py_BEGIN_ALLOW_THREADS
    if (most > (size_t)self->at_once_bytes) {
        if (!self->is_all_in_memory)
            is_there = is_in_memory(file, (long long)offset, (long long)most);
        self->is_all_in_memory |= is_there == UNREPORTED;
        if (is_there && most >= (size_t)self->large_file_bytes)
            fit_buffer(self, socket);
    }
    if (is_there) {
        if (self->may_block)
            ioctl(socket, FIONBIO, &yes);
        head_sent = send(socket, head, head_bytes,
                         MSG_DONTWAIT | MSG_NOSIGNAL | MSG_MORE);
        if (head_sent == (ssize_t)head_bytes) {
            size_t first = beside_the_head(offset, most);
            /* Whatever fails here fails again when Python tries. */
            if (sendfile(socket, file, &offset, first) == (ssize_t)first && first < most)
                (void)!sendfile(socket, file, &offset, most - first);
        }
        rest = end - (unsigned long long)offset;
        if (rest == 0) {
            close(file);
            value->file = -1;
        }
    }
    Py_END_ALLOW_THREADS
    if (!is_there)
        return 0;
    if (head_sent < 0)
        head_sent = 0;
    self->body_bytes = (Py_ssize_t)((unsigned long long)offset - selected->first);
    Py_ssize_t sent = head_sent + self->body_bytes;
    self->sent_bytes = sent;
    self->moved_bytes = received + sent;
    self->seconds = now() - began;
    if (rest == 0) {
        count(self, received, sent);
        return 1;
    }
    self->unsent = PyBytes_FromStringAndSize(head + head_sent,
                                             (Py_ssize_t)head_bytes - head_sent);
    if (self->unsent == NULL)
        return -1;
    self->rest_file = file;
    self->rest_offset = (unsigned long long)offset;
    self->rest_bytes = rest;
    value->file = -1;
    return 1;
}

const char take_remainder_doc[] =
"take_remainder() -> Remainder\n"
"\n"
"The end of the reply that the socket did not take, in an open file, which is the\n"
"caller's from now on.";

PyObject *
FastPath_take_remainder(FastPath *self, PyObject *Py_UNUSED(none))
{
    if (self->rest_file < 0) {
        PyErr_SetString(PyExc_ValueError, "nothing remains");
        return NULL;
    }
    PyObject *rest = PyObject_CallFunction(
        self->rest, "y#OiiKKnndO", self->buffer, self->head_bytes, self->unsent,
        self->status, self->rest_file, self->rest_offset, self->rest_bytes,
        self->sent_bytes, self->body_bytes, self->seconds,
        self->hit_info == NULL ? Py_None : self->hit_info);
    if (rest != NULL)
        self->rest_file = -1;
    Py_CLEAR(self->unsent);
    Py_CLEAR(self->hit_info);
    return rest;
}

const char send_at_most_doc[] =
"send_at_most(size)\n"
"\n"
"Send so many bytes of a file at once from now on; the rest remains.";

PyObject *
FastPath_send_at_most(FastPath *self, PyObject *size)
{
    Py_ssize_t bytes = PyLong_AsSsize_t(size);
    if (bytes == -1 && PyErr_Occurred())
        return NULL;
    if (bytes <= 0) {
        PyErr_SetString(PyExc_ValueError, "the size is not positive");
        return NULL;
    }
    self->file_bytes = bytes;
    Py_RETURN_NONE;
}
