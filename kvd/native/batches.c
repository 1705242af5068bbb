/*
 * The worker's half of a hand-over: a batch of connections is read from the control
 * socket, its credit is taken, and each connection is served (kvd.dispatch.adopting).
 *
 * Whatever is not a whole batch with a credit is Python's, with what was read.
 */

#include "fast_path.h"
#include "message.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

/* A datagram, with what came with it. */
typedef struct {
    ssize_t bytes;
    int flags;
    int count;
    int descriptors[KERNEL_DESCRIPTORS];
} Datagram;

/* Into the buffer. Returns 0; -1 with errno. */
static int
receive(FastPath *self, Datagram *came)
{
    union {
        char bytes[CMSG_SPACE(sizeof came->descriptors)];
        struct cmsghdr aligned;
    } room;
    struct iovec into = {self->buffer, self->message_bytes};
    struct msghdr message = {
        .msg_iov = &into, .msg_iovlen = 1,
        .msg_control = room.bytes, .msg_controllen = CMSG_SPACE(self->message_descriptors * sizeof(int)),
    };
    came->bytes = recvmsg(self->channel, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (came->bytes < 0)
        return -1;
    came->flags = message.msg_flags;
    came->count = 0;
    struct cmsghdr *part = CMSG_FIRSTHDR(&message);
    for (; part != NULL; part = CMSG_NXTHDR(&message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
            continue;
        /* The room is for no more than these, in one part. */
        size_t bytes = part->cmsg_len - CMSG_LEN(0);
        came->count = (int)(bytes / sizeof(int));
        memcpy(came->descriptors, CMSG_DATA(part),
               (size_t)came->count * sizeof(int));
    }
    return 0;
}

/* Whether a datagram is a batch that nothing is unusual about. */
static int
is_plain(const Datagram *came, const PackedBatch *batch)
{
    return came->bytes == (ssize_t)sizeof *batch && batch->kind == BATCH_KIND
        && !(came->flags & (MSG_TRUNC | MSG_CTRUNC)) && !batch->asks
        && came->count > 0 && batch->connections == (uint32_t)came->count;
}

/* Whether the connections of a group of listening sockets speak no TLS. */
static int
is_plain_group(const FastPath *self, uint32_t group)
{
    return group < PyBytes_Size(self->plain_groups)
        && PyBytes_AsString(self->plain_groups)[group];
}

static int
take_credit(const FastPath *self)
{
    uint64_t credit;
    return read(self->credits, &credit, sizeof credit) == (ssize_t)sizeof credit;
}

/* A datagram is Python's. Returns 0; -1 with an exception. */
static int
leave(FastPath *self, const Datagram *came)
{
    PyObject *descriptors = PyList_New(came->count);
    for (int i = 0; descriptors != NULL && i < came->count; i++) {
        PyObject *number = PyLong_FromLong(came->descriptors[i]);
        if (number == NULL || PyList_SetItem(descriptors, i, number) < 0)
            Py_CLEAR(descriptors);
    }
    if (descriptors == NULL)
        return -1;
    PyObject *python = Py_NewRef(self->came);
    PyObject *done = PyObject_CallFunction(python, "y#Oi", self->buffer,
                                           (Py_ssize_t)came->bytes, descriptors,
                                           came->flags);
    Py_DECREF(python);
    Py_DECREF(descriptors);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* Serve the connections of a batch. What one of them fails with, the others do not
   suffer from. */
static void
serve_batch(FastPath *self, const Datagram *came, const PackedBatch *batch)
{
    PyObject *adopt = Py_NewRef(self->adopt);
    for (int i = 0; i < came->count; i++) {
        /* What Python does with one may be to leave the others to itself. */
        if (self->channel >= 0 && is_plain_group(self, batch->group)
            && serve_whole(self, came->descriptors[i], 0) != IS_LEFT)
            continue;
        PyObject *adopted = PyObject_CallFunction(adopt, "ii", came->descriptors[i],
                                                  (int)batch->group);
        if (adopted == NULL)
            PyErr_WriteUnraisable(adopt);
        Py_XDECREF(adopted);
    }
    Py_DECREF(adopt);
}

/* Returns 1 if nothing is left to do, 0 if Python should read, -1 with an exception. */
int
serve_channel(FastPath *self)
{
    Datagram came;
    do {
        if (receive(self, &came) < 0)
            return errno == EAGAIN || errno == EINTR;
        if (came.bytes == 0 && came.count == 0)
            return 0;
        PackedBatch batch;
        memcpy(&batch, self->buffer, sizeof batch);
        if (!is_plain(&came, &batch) || !take_credit(self))
            return leave(self, &came) < 0 ? -1 : 1;
        unsigned long long *row = word_of(self->counts, 0);
        serve_batch(self, &came, &batch);
        __atomic_store_n(row + self->batch_word, batch.number, __ATOMIC_RELEASE);
        /* Mostly no other message waits behind one connection. What a call of Python has
           done meanwhile may be to close the channel. */
    } while (came.count > 1 && self->channel >= 0);
    return 1;
}

const char take_batches_doc[] =
"take_batches(channel, credits, word, plain, adopt, came)\n"
"\n"
"From now on `serve_idle` also reads batches of connections from this control socket.";

PyObject *
FastPath_take_batches(FastPath *self, PyObject *args)
{
    int channel, credits;
    Py_ssize_t word;
    PyObject *groups, *adopt, *came;
    if (!PyArg_ParseTuple(args, "iinSOO:take_batches", &channel, &credits, &word,
                          &groups, &adopt, &came))
        return NULL;
    if (word < 0 || word >= words_of(self->counts)) {
        PyErr_SetString(PyExc_ValueError, "the row has no such word");
        return NULL;
    }
    leave_batches(self);
    self->channel = channel;
    self->credits = credits;
    self->batch_word = word;
    self->plain_groups = Py_NewRef(groups);
    self->adopt = Py_NewRef(adopt);
    self->came = Py_NewRef(came);
    Py_RETURN_NONE;
}

void
leave_batches(FastPath *self)
{
    self->channel = -1;
    Py_CLEAR(self->plain_groups);
    Py_CLEAR(self->adopt);
    Py_CLEAR(self->came);
}

const char leave_batches_doc[] =
"leave_batches()\n"
"\n"
"From now on all batches are Python's.";

PyObject *
FastPath_leave_batches(FastPath *self, PyObject *Py_UNUSED(none))
{
    leave_batches(self);
    Py_RETURN_NONE;
}
