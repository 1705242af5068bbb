/*
 * A lone connection (kvd.dispatch.lone). It finds the processor's caches cold;
 * there each call in Python takes a microsecond or two. So it is accepted, shown to the
 * policy and sent in one call. Whatever is unusual is left to kvd.dispatch.dispatcher.
 */

#include "dispatch.h"
#include "message.h"

#include <stdint.h>
#include <string.h>
#include <structmember.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Where a connection came so long ago, the next one comes alone. */
#define ALONE_SECONDS 0.0005

/* Hands over a lone connection, while nothing is unusual. */
typedef struct {
    PyObject_HEAD
    Py_buffer words;            /* of the scoreboard */
    Words at;
    Py_ssize_t in_use;          /* the word with the number of workers */
    PyObject *view, *names;     /* the class, and its fields */
    PyObject *random, *waiting; /* two of them */
    PyObject *numbers;          /* of batches: an iterator */
    PyObject *clock;            /* NULL: the monotonic one, as it is read here */
    PyObject *groups;         /* of listening sockets, by their descriptors */
    PyObject *held;             /* connections that wait for a worker: a deque */
    PyObject *dispatch;         /* called with the descriptor of a listening socket where
                                   others wait than this can hand over */
    PyObject *looks_later;      /* called when the first batch is on its way */
    /* What Python sets, as things are. */
    PyObject *ready;            /* the workers that are open; empty: this does nothing */
    PyObject *lanes;            /* a list by workers */
    PyObject *ask, *whose_turn; /* for a worker */
    PyObject *timer;
    Py_ssize_t turn, most_connections, most_waiting;
    char looks;                 /* whether it will look after what is on its way */
    double last;                /* when it handed over the last one, or was made */
} Lone;

static double
monotonic(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* The time; below 0 with an exception. */
static double
seconds(const Lone *self)
{
    if (self->clock == NULL)
        return monotonic();
    PyObject *time = PyObject_CallNoArgs(self->clock);
    double read = time == NULL ? -1 : PyFloat_AsDouble(time);
    Py_XDECREF(time);
    return read;
}

static PyObject *
Lone_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(keywords))
{
    PyObject *words, *clock, *monotonic_clock;
    Lone *self = (Lone *)PyType_GenericAlloc(type, 0);
    if (self == NULL)
        return NULL;
    if (!PyArg_ParseTuple(
            args, "Onnnnn(O!O!)OOOOO!OOO:Lone", &words, &self->at.row_words,
            &self->in_use, &self->at.open, &self->at.begun, &self->at.done, &PyType_Type,
            &self->view, &PyTuple_Type, &self->names, &self->random, &self->numbers,
            &clock, &monotonic_clock, &PyDict_Type, &self->groups, &self->held,
            &self->dispatch, &self->looks_later)) {
        /* None of these is held yet. */
        self->view = self->names = self->random = self->numbers = self->groups = NULL;
        self->held = self->dispatch = self->looks_later = NULL;
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    Py_INCREF(self->view);
    Py_INCREF(self->names);
    Py_INCREF(self->random);
    Py_INCREF(self->numbers);
    Py_INCREF(self->groups);
    Py_INCREF(self->held);
    Py_INCREF(self->dispatch);
    Py_INCREF(self->looks_later);
    self->clock = clock == monotonic_clock ? NULL : Py_NewRef(clock);
    self->waiting = PyLong_FromLong(1);
    self->last = seconds(self);
    if (self->waiting == NULL || PyErr_Occurred() || PyTuple_Size(self->names) != FIELDS
        || PyObject_GetBuffer(words, &self->words, PyBUF_SIMPLE) < 0
        || !has_rows(&self->words, &self->at, 0)
        || self->in_use < 0 || self->in_use >= self->at.row_words) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "the scoreboard has no such rows");
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    return (PyObject *)self;
}

static int
Lone_traverse(Lone *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE((PyObject *)self));
    Py_VISIT(self->clock);
    Py_VISIT(self->dispatch);
    Py_VISIT(self->looks_later);
    Py_VISIT(self->lanes);
    Py_VISIT(self->ask);
    Py_VISIT(self->whose_turn);
    return 0;
}

static int
Lone_clear(Lone *self)
{
    Py_CLEAR(self->clock);
    Py_CLEAR(self->dispatch);
    Py_CLEAR(self->looks_later);
    Py_CLEAR(self->ready);
    Py_CLEAR(self->lanes);
    Py_CLEAR(self->ask);
    Py_CLEAR(self->whose_turn);
    return 0;
}

static void
Lone_dealloc(Lone *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    PyObject_GC_UnTrack(self);
    Lone_clear(self);
    Py_XDECREF(self->view);
    Py_XDECREF(self->names);
    Py_XDECREF(self->random);
    Py_XDECREF(self->waiting);
    Py_XDECREF(self->numbers);
    Py_XDECREF(self->groups);
    Py_XDECREF(self->held);
    Py_XDECREF(self->timer);
    if (self->words.obj != NULL)
        PyBuffer_Release(&self->words);
    PyObject_GC_Del(self);
    Py_DECREF((PyObject *)type);
}

/* The lane of a worker; NULL: it has none. */
static Lane *
lane_of(const Lone *self, Py_ssize_t worker)
{
    if (worker < 0 || worker >= PyList_Size(self->lanes))
        return NULL;
    PyObject *lane = PyList_GetItem(self->lanes, worker);
    return Py_IS_TYPE(lane, LaneType) && ((Lane *)lane)->row.obj != NULL
        ? (Lane *)lane : NULL;
}

/*
 * Whether each open worker may get one connection more without a thought: far from the
 * limits, with nothing waiting for its control socket.
 */
static int
is_usual(Lone *self, Py_ssize_t workers)
{
    for (Py_ssize_t i = 0; i < PyList_Size(self->lanes); i++) {
        Lane *lane = lane_of(self, i);
        if (lane != NULL && lane->waiting)
            read_done(lane);
    }
    for (Py_ssize_t i = 0; i < PyTuple_Size(self->ready); i++) {
        Py_ssize_t worker = PyLong_AsSsize_t(PyTuple_GetItem(self->ready, i));
        Lane *lane = lane_of(self, worker);
        if (lane == NULL || worker >= workers || lane->revoked
            || lane->waiting + 1 >= self->most_waiting || PyObject_Size(lane->queue) != 0)
            return 0;
        Tasks tasks = tasks_of(self->words.buf, &self->at, worker);
        if (tasks.open + (unsigned long long)lane->waiting + 1
            >= (unsigned long long)self->most_connections)
            return 0;
    }
    return 1;
}

/* The view for a policy. */
static PyObject *
view_of(Lone *self, Py_ssize_t workers)
{
    PyObject *connections, *requests, *view = NULL;
    if (read_tasks(self->words.buf, &self->at, workers, &connections, &requests) < 0)
        return NULL;
    PyObject *turn = PyLong_FromSsize_t(self->turn);
    PyObject *handing_over = PyTuple_New(workers);
    if (turn == NULL || handing_over == NULL)
        goto end;
    for (Py_ssize_t worker = 0; worker < workers; worker++) {
        Lane *lane = lane_of(self, worker);
        unsigned long long waiting = lane == NULL ? 0 : (unsigned long long)lane->waiting;
        if (set_number(handing_over, worker, waiting) < 0)
            goto end;
    }
    /* As kvd.model.view.View has them. */
    PyObject *values[FIELDS] = {
        self->ready, turn, connections, requests, handing_over, self->random,
        self->waiting,
    };
    view = make_frozen((PyTypeObject *)self->view, self->names, values);
end:
    Py_DECREF(connections);
    Py_DECREF(requests);
    Py_XDECREF(handing_over);
    Py_XDECREF(turn);
    return view;
}

/* The number of a ready worker, which kvd.dispatch.deciding has judged; -1 with an
   exception. */
static Py_ssize_t
choose(Lone *self, Py_ssize_t workers)
{
    PyObject *view = view_of(self, workers);
    if (view == NULL)
        return -1;
    start_timer((Timer *)self->timer);
    PyObject *answer = PyObject_CallFunctionObjArgs(self->ask, view, NULL);
    stop_timer();
    if (answer == Py_None) {
        Py_DECREF(answer);
        answer = PyObject_CallFunctionObjArgs(self->whose_turn, view, NULL);
    }
    Py_DECREF(view);
    Py_ssize_t worker = answer == NULL ? -1 : PyLong_AsSsize_t(answer);
    Py_XDECREF(answer);
    return worker;
}

/* Send one connection, with its credit. Returns whether it was sent. */
static int
send_alone(const Lane *lane, unsigned long long number, int descriptor, int group)
{
    PackedBatch batch = {BATCH_KIND, number, 1, (uint32_t)group, 0};
    union {
        char bytes[CMSG_SPACE(sizeof descriptor)];
        struct cmsghdr aligned;
    } room = {{0}};
    struct iovec from = {&batch, sizeof batch};
    struct msghdr message = {
        .msg_iov = &from, .msg_iovlen = 1,
        .msg_control = room.bytes, .msg_controllen = sizeof room.bytes,
    };
    struct cmsghdr *part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(sizeof descriptor);
    memcpy(CMSG_DATA(part), &descriptor, sizeof descriptor);
    /* First, so that the worker never receives a batch before its credit. */
    uint64_t credit = 1;
    if (write(lane->credits, &credit, sizeof credit) < 0)
        return 0;
    if (sendmsg(lane->channel, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
        return 1;
    (void)!read(lane->credits, &credit, sizeof credit);
    return 0;
}

/* Returns 1 if a connection that was accepted now was handed over, 0 if that is Python's,
   -1 with an exception. */
static int
hand_over(Lone *self, int descriptor, int group, double now)
{
    Py_ssize_t workers
        = (Py_ssize_t)read_word((unsigned long long *)self->words.buf + self->in_use);
    if (!has_rows(&self->words, &self->at, workers) || !is_usual(self, workers))
        return 0;
    Py_ssize_t worker = choose(self, workers);
    if (worker < 0)
        return -1;
    /* What a policy does is anything. */
    Lane *lane = self->lanes == NULL ? NULL : lane_of(self, worker);
    Batch *batch = lane == NULL ? NULL : next_batch(lane);
    if (batch == NULL)
        return PyErr_Occurred() ? -1 : 0;
    PyObject *next = PyIter_Next(self->numbers);
    unsigned long long number = next == NULL ? 0 : PyLong_AsUnsignedLongLong(next);
    Py_XDECREF(next);
    if (PyErr_Occurred())
        return -1;
    if (!send_alone(lane, number, descriptor, group))
        return 0;
    *batch = (Batch){number, now, NULL, descriptor, group};
    lane->count++;
    lane->waiting++;
    self->turn = (worker + 1) % workers;
    self->last = now;
    return 1;
}

/* A connection waits for a worker. Returns 0; -1 with an exception. */
static int
hold(Lone *self, int descriptor, int group)
{
    PyObject *held = PyObject_CallMethod(self->held, "append", "((ii))", descriptor,
                                         group);
    Py_XDECREF(held);
    return held == NULL ? -1 : 0;
}

PyDoc_STRVAR(accept_from_doc,
"accept_from(listener) -> bool\n"
"\n"
"Accept what waits at a listening socket, and hand it over: after a pause, one. Returns\n"
"whether nothing is left to do in this turn.");

static PyObject *
Lone_accept_from(Lone *self, PyObject *listener)
{
    PyObject *known = PyDict_GetItemWithError(self->groups, listener);
    if (known == NULL)
        return PyErr_Occurred() ? NULL : PyBool_FromLong(0);
    int waits = self->ready != NULL && PyTuple_Check(self->ready)
        && PyTuple_Size(self->ready) > 0 && self->lanes != NULL
        && PyList_Check(self->lanes) && self->ask != NULL && self->whose_turn != NULL
        && self->timer != NULL && Py_IS_TYPE(self->timer, TimerType)
        && self->words.obj != NULL && PyObject_Size(self->held) == 0;
    if (waits) {
        int group = (int)PyLong_AsLong(known), from = (int)PyLong_AsLong(listener);
        int one = accept4(from, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (one < 0)
            /* Its port meets the error again, and copes with it. */
            Py_RETURN_FALSE;
        double now = seconds(self);
        /* After a pause, a second one is unlikely. If there is one, the next wait reports it
           at once, and then more are looked for. */
        int other = now - self->last > ALONE_SECONDS ? -1
            : accept4(from, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        int done = other < 0 ? hand_over(self, one, group, now) : 0;
        if (done > 0) {
            if (self->looks)
                Py_RETURN_TRUE;
            PyObject *looks = PyObject_CallNoArgs(self->looks_later);
            Py_XDECREF(looks);
            return looks == NULL ? NULL : PyBool_FromLong(1);
        }
        if (done < 0)
            /* It comes again, where it is dealt with. */
            PyErr_Clear();
        if (hold(self, one, group) < 0 || (other >= 0 && hold(self, other, group) < 0))
            return NULL;
    }
    return PyObject_CallFunctionObjArgs(self->dispatch, listener, NULL);
}

static PyObject *
Lone_close(Lone *self, PyObject *Py_UNUSED(none))
{
    Py_CLEAR(self->ready);
    Py_CLEAR(self->lanes);
    if (self->words.obj != NULL)
        PyBuffer_Release(&self->words);
    Py_RETURN_NONE;
}

static PyMethodDef Lone_methods[] = {
    {"close", (PyCFunction)Lone_close, METH_NOARGS,
     "close()\n\nLeave everything, and the scoreboard too."},
    {"accept_from", (PyCFunction)Lone_accept_from, METH_O, accept_from_doc},
    {NULL},
};

static PyMemberDef Lone_members[] = {
    {"ready", T_OBJECT, offsetof(Lone, ready), 0, NULL},
    {"lanes", T_OBJECT, offsetof(Lone, lanes), 0, NULL},
    {"ask", T_OBJECT, offsetof(Lone, ask), 0, NULL},
    {"whose_turn", T_OBJECT, offsetof(Lone, whose_turn), 0, NULL},
    {"timer", T_OBJECT, offsetof(Lone, timer), 0, NULL},
    {"turn", T_PYSSIZET, offsetof(Lone, turn), 0, NULL},
    {"most_connections", T_PYSSIZET, offsetof(Lone, most_connections), 0, NULL},
    {"most_waiting", T_PYSSIZET, offsetof(Lone, most_waiting), 0, NULL},
    {"looks", T_BOOL, offsetof(Lone, looks), 0, NULL},
    {NULL},
};

static PyType_Slot Lone_slots[] = {
    {Py_tp_doc, "Lone(...)\n\nSee kvd.dispatch.lone."},
    {Py_tp_new, Lone_new},
    {Py_tp_dealloc, Lone_dealloc},
    {Py_tp_traverse, Lone_traverse},
    {Py_tp_clear, Lone_clear},
    {Py_tp_methods, Lone_methods},
    {Py_tp_members, Lone_members},
    {0, NULL},
};

PyType_Spec Lone_spec = {
    .name = "kvd.native._dispatch.Lone",
    .basicsize = sizeof(Lone),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = Lone_slots,
};
