/*
 * What the supervisor does for each connection that it hands over. A connection that comes
 * alone finds the processor's caches cold; there each call in Python takes a microsecond or
 * two. So such a connection is accepted, shown to the policy and sent in one call, if
 * nothing is unusual; what is, is left to kvd.dispatch.dispatcher. The parts of it are the
 * dispatcher's too.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "message.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <structmember.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

PyDoc_STRVAR(accept_doc,
"accept(listener, family, most) -> list[tuple[int, int]]\n"
"\n"
"Accept connections, up to so many, and no more than wait. Each has a descriptor, which\n"
"does not block, and that family.\n"
"\n"
"Raises OSError: none could be accepted, or none waits.");

static PyObject *
accept_some(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "accept takes three arguments");
        return NULL;
    }
    long listener = PyLong_AsLong(arguments[0]);
    Py_ssize_t most = PyLong_AsSsize_t(arguments[2]);
    if (PyErr_Occurred())
        return NULL;
    PyObject *accepted = PyList_New(0);
    if (accepted == NULL)
        return NULL;
    for (Py_ssize_t i = 0; i < most; i++) {
        /* The caller listens without waiting, so this does not wait. */
        int socket = accept4((int)listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (socket < 0 && i == 0) {
            Py_DECREF(accepted);
            return PyErr_SetFromErrno(PyExc_OSError);
        }
        /* An error of this process comes again. */
        if (socket < 0)
            break;
        PyObject *one = Py_BuildValue("(iO)", socket, arguments[1]);
        if (one == NULL || PyList_Append(accepted, one) < 0) {
            Py_XDECREF(one);
            Py_DECREF(accepted);
            return NULL;
        }
        Py_DECREF(one);
    }
    return accepted;
}

/* A word that another process may be writing. */
static unsigned long long
read_word(const unsigned long long *word)
{
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

/* Where a scoreboard has what. */
typedef struct {
    Py_ssize_t row_words, open, begun, done;
} Words;

/* What a worker is doing. */
typedef struct {
    unsigned long long open, in_progress;
} Tasks;

/* Of the worker whose row comes so many rows after the header. */
static Tasks
tasks_of(const unsigned long long *words, const Words *at, Py_ssize_t worker)
{
    const unsigned long long *row = words + (worker + 1) * at->row_words;
    unsigned long long begun = read_word(row + at->begun);
    unsigned long long done = read_word(row + at->done);
    /* The words were not read at the same moment. */
    return (Tasks){read_word(row + at->open), begun > done ? begun - done : 0};
}

/* Whether a scoreboard has the rows of so many workers, with these words. */
static int
has_rows(const Py_buffer *buffer, const Words *at, Py_ssize_t count)
{
    Py_ssize_t least = Py_MIN(at->open, Py_MIN(at->begun, at->done));
    Py_ssize_t most = Py_MAX(at->open, Py_MAX(at->begun, at->done));
    return least >= 0 && most < at->row_words && count >= 0
        && count <= buffer->len / (Py_ssize_t)sizeof(long long) / at->row_words - 1;
}

static int
set_number(PyObject *tuple, Py_ssize_t at, unsigned long long value)
{
    PyObject *number = PyLong_FromUnsignedLongLong(value);
    return number == NULL ? -1 : PyTuple_SetItem(tuple, at, number);
}

/* The tuples of the open connections and of the requests in progress. Returns 0; -1 with
   an exception. */
static int
read_tasks(const unsigned long long *words, const Words *at, Py_ssize_t count,
           PyObject **connections, PyObject **requests)
{
    *connections = PyTuple_New(count);
    *requests = PyTuple_New(count);
    for (Py_ssize_t worker = 0; *requests && *connections && worker < count; worker++) {
        Tasks tasks = tasks_of(words, at, worker);
        if (set_number(*connections, worker, tasks.open) < 0
            || set_number(*requests, worker, tasks.in_progress) < 0)
            break;
    }
    if (!PyErr_Occurred())
        return 0;
    Py_CLEAR(*connections);
    Py_CLEAR(*requests);
    return -1;
}

PyDoc_STRVAR(tasks_doc,
"tasks(words, row_words, count, open, begun, done) -> tuple[tuple, tuple]\n"
"\n"
"The open connections, and the requests in progress, of so many rows of a scoreboard\n"
"from the second on.");

static PyObject *
tasks(PyObject *Py_UNUSED(module), PyObject *args)
{
    Py_buffer buffer;
    Words at;
    Py_ssize_t count;
    if (!PyArg_ParseTuple(args, "y*nnnnn:tasks", &buffer, &at.row_words, &count, &at.open,
                          &at.begun, &at.done))
        return NULL;
    PyObject *connections, *requests, *both = NULL;
    if (!has_rows(&buffer, &at, count))
        PyErr_SetString(PyExc_ValueError, "the scoreboard has no such rows");
    else if (read_tasks(buffer.buf, &at, count, &connections, &requests) == 0) {
        both = PyTuple_Pack(2, connections, requests);
        Py_DECREF(connections);
        Py_DECREF(requests);
    }
    PyBuffer_Release(&buffer);
    return both;
}

/* An object of a frozen dataclass that has slots. */
static PyObject *
make_frozen(PyTypeObject *type, PyObject *names, PyObject *const *values)
{
    PyObject *made = PyType_GenericAlloc(type, 0);
    for (Py_ssize_t i = 0; made != NULL && i < PyTuple_Size(names); i++)
        if (PyObject_GenericSetAttr(made, PyTuple_GetItem(names, i), values[i]) < 0)
            Py_CLEAR(made);
    return made;
}

/* How many fields a view has. */
#define FIELDS 7

PyDoc_STRVAR(frozen_doc,
"frozen(type, names, values) -> object\n"
"\n"
"An object of a frozen dataclass that has slots, with all its fields. Its own `__init__`\n"
"does the same by a call of `object.__setattr__` for each.");

static PyObject *
frozen(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *type, *names, *values, *each[FIELDS];
    if (!PyArg_ParseTuple(args, "O!O!O!:frozen", &PyType_Type, &type, &PyTuple_Type,
                          &names, &PyTuple_Type, &values))
        return NULL;
    if (PyTuple_Size(names) != FIELDS || PyTuple_Size(values) != FIELDS) {
        PyErr_SetString(PyExc_TypeError, "a view has seven fields");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < FIELDS; i++)
        each[i] = PyTuple_GetItem(values, i);
    return make_frozen((PyTypeObject *)type, names, each);
}

/* -- the timer of a decision ----------------------------------------------------------- */

/* Bounds a batch of decisions (kvd.dispatch.deciding). */
typedef struct {
    PyObject_HEAD
    double began;               /* seconds of this thread's processor time */
    int rings;                  /* how often it rang since then */
    double interval;
} Timer;

static PyTypeObject *TimerType;

static void
set_timer(double seconds)
{
    struct timeval each = {
        (time_t)seconds, (suseconds_t)((seconds - (double)(time_t)seconds) * 1e6),
    };
    struct itimerval timer = {each, each};
    setitimer(ITIMER_REAL, &timer, NULL);
}

static void
start_timer(Timer *self)
{
    struct timespec used;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    self->began = (double)used.tv_sec + (double)used.tv_nsec * 1e-9;
    self->rings = 0;
    set_timer(self->interval);
}

static PyObject *
Timer_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(keywords))
{
    double interval;
    if (!PyArg_ParseTuple(args, "d:Timer", &interval))
        return NULL;
    Timer *self = (Timer *)PyType_GenericAlloc(type, 0);
    if (self != NULL)
        self->interval = interval;
    return (PyObject *)self;
}

static void
free_object(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_Free(self);
    Py_DECREF((PyObject *)type);
}

static PyObject *
Timer_start(Timer *self, PyObject *Py_UNUSED(none))
{
    start_timer(self);
    Py_RETURN_NONE;
}

static PyObject *
Timer_stop(Timer *Py_UNUSED(self), PyObject *Py_UNUSED(none))
{
    set_timer(0);
    Py_RETURN_NONE;
}

static PyMethodDef Timer_methods[] = {
    {"start", (PyCFunction)Timer_start, METH_NOARGS, "start()\n\nRing from now on."},
    {"stop", (PyCFunction)Timer_stop, METH_NOARGS, "stop()\n\nRing no more."},
    {NULL},
};

static PyMemberDef Timer_members[] = {
    {"began", T_DOUBLE, offsetof(Timer, began), READONLY, NULL},
    {"rings", T_INT, offsetof(Timer, rings), 0, NULL},
    {NULL},
};

static PyType_Slot Timer_slots[] = {
    {Py_tp_doc, "Timer(interval)\n\nSee kvd.dispatch.timer."},
    {Py_tp_new, Timer_new},
    {Py_tp_dealloc, free_object},
    {Py_tp_methods, Timer_methods},
    {Py_tp_members, Timer_members},
    {0, NULL},
};

static PyType_Spec Timer_spec = {
    .name = "kvd.native._dispatch.Timer",
    .basicsize = sizeof(Timer),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = Timer_slots,
};

/* -- the batches on their way to a worker ----------------------------------------------- */

typedef struct {
    unsigned long long number;
    double sent;
    PyObject *connections;      /* a list; NULL: one, or none if it was revoked */
    int descriptor, family;     /* of that one; below 0: none */
} Batch;

typedef struct {
    PyObject_HEAD
    int channel, credits;       /* descriptors */
    PyObject *queue;            /* of messages that the channel does not take yet */
    Py_buffer row;              /* two words: see Scoreboard.batches */
    unsigned long long refused;
    Py_ssize_t waiting, revoked;
    Batch *batches;             /* `count` of them, from `first` on; there is `room` */
    Py_ssize_t first, count, room;
} Lane;

static PyTypeObject *LaneType;

static Py_ssize_t
connections_in(const Batch *batch)
{
    if (batch->connections != NULL)
        return PyList_Size(batch->connections);
    return batch->descriptor >= 0;
}

/* A new list of what a batch has. */
static PyObject *
connections_of(const Batch *batch)
{
    if (batch->connections != NULL)
        return Py_NewRef(batch->connections);
    return batch->descriptor < 0
        ? PyList_New(0)
        : Py_BuildValue("[(ii)]", batch->descriptor, batch->family);
}

static void
close_connections(const Batch *batch)
{
    if (batch->descriptor >= 0)
        close(batch->descriptor);
    for (Py_ssize_t i = 0; batch->connections && i < PyList_Size(batch->connections); i++) {
        PyObject *one = PyList_GetItem(batch->connections, i);
        close((int)PyLong_AsLong(PyTuple_GetItem(one, 0)));
    }
}

static void
drop_first(Lane *self)
{
    Py_CLEAR(self->batches[self->first].connections);
    self->first++;
    self->count--;
}

static void
acknowledge(Lane *self, unsigned long long number)
{
    while (self->count && self->batches[self->first].number <= number) {
        Batch *batch = &self->batches[self->first];
        Py_ssize_t connections = connections_in(batch);
        if (connections == 0)
            self->revoked--;
        self->waiting -= connections;
        close_connections(batch);
        drop_first(self);
    }
}

static void
settle(Lane *self)
{
    const unsigned long long *row = self->row.buf;
    /* In this order: what it refused was written before. */
    unsigned long long done = read_word(row), refused = read_word(row + 1);
    /* If another refusal is on its way, it is not known yet which of the batches up to
       `done` were taken. */
    if (refused <= self->refused)
        acknowledge(self, done);
}

/* Makes room for one batch more. Returns it; NULL with an exception. */
static Batch *
next_batch(Lane *self)
{
    if (self->first + self->count == self->room) {
        if (self->first > 0)
            memmove(self->batches, self->batches + self->first,
                    (size_t)self->count * sizeof *self->batches);
        else {
            Py_ssize_t room = self->room ? 2 * self->room : 16;
            void *more = PyMem_Realloc(self->batches,
                                       (size_t)room * sizeof *self->batches);
            if (more == NULL) {
                PyErr_NoMemory();
                return NULL;
            }
            self->batches = more;
            self->room = room;
        }
        self->first = 0;
    }
    return &self->batches[self->first + self->count];
}

static PyObject *
Lane_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(keywords))
{
    int channel, credits;
    unsigned long long refused;
    PyObject *queue, *row;
    if (!PyArg_ParseTuple(args, "iOiOK:Lane", &channel, &queue, &credits, &row, &refused))
        return NULL;
    Lane *self = (Lane *)PyType_GenericAlloc(type, 0);
    if (self == NULL)
        return NULL;
    self->channel = channel;
    self->credits = credits;
    self->refused = refused;
    self->queue = Py_NewRef(queue);
    if (PyObject_GetBuffer(row, &self->row, PyBUF_SIMPLE) < 0) {
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    if (self->row.len < 2 * (Py_ssize_t)sizeof(long long)) {
        PyErr_SetString(PyExc_ValueError, "the row has no two words");
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    return (PyObject *)self;
}

static void
forget_batches(Lane *self)
{
    while (self->count)
        drop_first(self);
    self->waiting = self->revoked = 0;
    if (self->row.obj != NULL)
        PyBuffer_Release(&self->row);
}

static void
Lane_dealloc(Lane *self)
{
    forget_batches(self);
    PyMem_Free(self->batches);
    Py_XDECREF(self->queue);
    free_object((PyObject *)self);
}

static int
is_closed(const Lane *self)
{
    if (self->row.obj != NULL)
        return 0;
    PyErr_SetString(PyExc_ValueError, "the worker is lost");
    return 1;
}

static PyObject *
Lane_sent(Lane *self, PyObject *args)
{
    unsigned long long number;
    PyObject *connections;
    double now;
    if (!PyArg_ParseTuple(args, "KO!d:sent", &number, &PyList_Type, &connections, &now)
        || is_closed(self))
        return NULL;
    Batch *batch = next_batch(self);
    if (batch == NULL)
        return NULL;
    *batch = (Batch){number, now, Py_NewRef(connections), -1, 0};
    self->count++;
    self->waiting += PyList_Size(connections);
    Py_RETURN_NONE;
}

static PyObject *
Lane_settle(Lane *self, PyObject *Py_UNUSED(none))
{
    if (is_closed(self))
        return NULL;
    settle(self);
    Py_RETURN_NONE;
}

static PyObject *
Lane_acknowledged(Lane *self, PyObject *argument)
{
    unsigned long long number = PyLong_AsUnsignedLongLong(argument);
    if (PyErr_Occurred())
        return NULL;
    acknowledge(self, number);
    Py_RETURN_NONE;
}

static PyObject *
Lane_refuse(Lane *self, PyObject *argument)
{
    unsigned long long number = PyLong_AsUnsignedLongLong(argument);
    if (PyErr_Occurred())
        return NULL;
    if (number > 0)
        acknowledge(self, number - 1);
    if (self->count == 0 || self->batches[self->first].number != number) {
        PyErr_SetString(PyExc_AssertionError, "no such batch is on its way");
        return NULL;
    }
    PyObject *connections = connections_of(&self->batches[self->first]);
    if (connections == NULL)
        return NULL;
    self->refused = number;
    self->waiting -= PyList_Size(connections);
    drop_first(self);
    return connections;
}

static PyObject *
Lane_oldest(Lane *self, PyObject *Py_UNUSED(none))
{
    for (Py_ssize_t i = 0; i < self->count; i++) {
        const Batch *batch = &self->batches[self->first + i];
        if (connections_in(batch))
            return PyFloat_FromDouble(batch->sent);
    }
    Py_RETURN_NONE;
}

static PyObject *
Lane_revoke(Lane *self, PyObject *argument)
{
    Py_ssize_t last = PyLong_AsSsize_t(argument);
    if (PyErr_Occurred())
        return NULL;
    if (last < 0 || last > self->count) {
        PyErr_SetString(PyExc_AssertionError, "there are not so many batches");
        return NULL;
    }
    PyObject *all = PyList_New(0);
    for (Py_ssize_t i = self->count - last; all != NULL && i < self->count; i++) {
        Batch *batch = &self->batches[self->first + i];
        PyObject *connections = connections_of(batch);
        Py_ssize_t size = PyList_Size(all);
        if (connections == NULL || PyList_SetSlice(all, size, size, connections) < 0) {
            Py_XDECREF(connections);
            Py_CLEAR(all);
            break;
        }
        self->waiting -= PyList_Size(connections);
        self->revoked++;
        Py_DECREF(connections);
        Py_CLEAR(batch->connections);
        batch->descriptor = -1;
    }
    return all;
}

static PyObject *
Lane_close(Lane *self, PyObject *Py_UNUSED(none))
{
    for (Py_ssize_t i = 0; i < self->count; i++)
        close_connections(&self->batches[self->first + i]);
    forget_batches(self);
    Py_RETURN_NONE;
}

static PyMethodDef Lane_methods[] = {
    {"sent", (PyCFunction)Lane_sent, METH_VARARGS, NULL},
    {"settle", (PyCFunction)Lane_settle, METH_NOARGS, NULL},
    {"acknowledged", (PyCFunction)Lane_acknowledged, METH_O, NULL},
    {"refuse", (PyCFunction)Lane_refuse, METH_O, NULL},
    {"oldest", (PyCFunction)Lane_oldest, METH_NOARGS, NULL},
    {"revoke", (PyCFunction)Lane_revoke, METH_O, NULL},
    {"close", (PyCFunction)Lane_close, METH_NOARGS, NULL},
    {NULL},
};

static PyMemberDef Lane_members[] = {
    {"waiting", T_PYSSIZET, offsetof(Lane, waiting), READONLY, NULL},
    {"revoked", T_PYSSIZET, offsetof(Lane, revoked), READONLY, NULL},
    {NULL},
};

static PyType_Slot Lane_slots[] = {
    {Py_tp_doc, "Lane(channel, queue, credits, row, refused)\n\nSee kvd.dispatch.lane."},
    {Py_tp_new, Lane_new},
    {Py_tp_dealloc, Lane_dealloc},
    {Py_tp_methods, Lane_methods},
    {Py_tp_members, Lane_members},
    {0, NULL},
};

static PyType_Spec Lane_spec = {
    .name = "kvd.native._dispatch.Lane",
    .basicsize = sizeof(Lane),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = Lane_slots,
};

/* -- a connection that comes alone ------------------------------------------------------ */

/* Hands over a connection that comes alone, while nothing is unusual. */
typedef struct {
    PyObject_HEAD
    Py_buffer words;            /* of the scoreboard */
    Words at;
    Py_ssize_t in_use;          /* the word with the number of workers */
    PyObject *view, *names;     /* the class, and its fields */
    PyObject *random, *waiting; /* two of them */
    PyObject *numbers;          /* of batches: an iterator */
    PyObject *clock;            /* NULL: the monotonic one, as it is read here */
    PyObject *families;         /* of listening sockets, by their descriptors */
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
} Lone;

static PyTypeObject *LoneType;

static double
monotonic(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
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
            &clock, &monotonic_clock, &PyDict_Type, &self->families, &self->held,
            &self->dispatch, &self->looks_later)) {
        /* None of these is held yet. */
        self->view = self->names = self->random = self->numbers = self->families = NULL;
        self->held = self->dispatch = self->looks_later = NULL;
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    Py_INCREF(self->view);
    Py_INCREF(self->names);
    Py_INCREF(self->random);
    Py_INCREF(self->numbers);
    Py_INCREF(self->families);
    Py_INCREF(self->held);
    Py_INCREF(self->dispatch);
    Py_INCREF(self->looks_later);
    self->clock = clock == monotonic_clock ? NULL : Py_NewRef(clock);
    self->waiting = PyLong_FromLong(1);
    if (self->waiting == NULL || PyTuple_Size(self->names) != FIELDS
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
    Py_XDECREF(self->families);
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
            settle(lane);
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
    set_timer(0);
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
send_alone(const Lane *lane, unsigned long long number, int descriptor, int family)
{
    PackedBatch batch = {BATCH_KIND, number, 1, (uint32_t)family, 0};
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

/* Returns 1 if a connection was handed over, 0 if that is Python's, -1 with an
   exception. */
static int
hand_over(Lone *self, int descriptor, int family)
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
    double now = monotonic();
    if (self->clock != NULL && !PyErr_Occurred()) {
        PyObject *time = PyObject_CallNoArgs(self->clock);
        now = time == NULL ? -1 : PyFloat_AsDouble(time);
        Py_XDECREF(time);
    }
    if (PyErr_Occurred())
        return -1;
    if (!send_alone(lane, number, descriptor, family))
        return 0;
    *batch = (Batch){number, now, NULL, descriptor, family};
    lane->count++;
    lane->waiting++;
    self->turn = (worker + 1) % workers;
    return 1;
}

/* A connection waits for a worker. Returns 0; -1 with an exception. */
static int
hold(Lone *self, int descriptor, int family)
{
    PyObject *held = PyObject_CallMethod(self->held, "append", "((ii))", descriptor,
                                         family);
    Py_XDECREF(held);
    return held == NULL ? -1 : 0;
}

PyDoc_STRVAR(accept_from_doc,
"accept_from(listener) -> bool\n"
"\n"
"Accept what waits at a listening socket, and hand it over. Returns whether nothing is\n"
"left to do.");

static PyObject *
Lone_accept_from(Lone *self, PyObject *listener)
{
    PyObject *known = PyDict_GetItemWithError(self->families, listener);
    if (known == NULL)
        return PyErr_Occurred() ? NULL : PyBool_FromLong(0);
    int waits = self->ready != NULL && PyTuple_Check(self->ready)
        && PyTuple_Size(self->ready) > 0 && self->lanes != NULL
        && PyList_Check(self->lanes) && self->ask != NULL && self->whose_turn != NULL
        && self->timer != NULL && Py_IS_TYPE(self->timer, TimerType)
        && self->words.obj != NULL && PyObject_Size(self->held) == 0;
    if (waits) {
        int family = (int)PyLong_AsLong(known), from = (int)PyLong_AsLong(listener);
        int one = accept4(from, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (one < 0)
            /* Its port meets the error again, and copes with it. */
            Py_RETURN_FALSE;
        int other = accept4(from, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        int done = other < 0 ? hand_over(self, one, family) : 0;
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
        if (hold(self, one, family) < 0 || (other >= 0 && hold(self, other, family) < 0))
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

static PyType_Spec Lone_spec = {
    .name = "kvd.native._dispatch.Lone",
    .basicsize = sizeof(Lone),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = Lone_slots,
};

static PyMethodDef functions[] = {
    {"accept", (PyCFunction)(void (*)(void))accept_some, METH_FASTCALL, accept_doc},
    {"tasks", tasks, METH_VARARGS, tasks_doc},
    {"frozen", frozen, METH_VARARGS, frozen_doc},
    {NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "kvd.native._dispatch",
    .m_doc = "What the supervisor does for each connection, compiled.",
    .m_size = -1,
    .m_methods = functions,
};

static PyTypeObject *
add_type(PyObject *to, PyType_Spec *spec)
{
    PyTypeObject *type = (PyTypeObject *)PyType_FromModuleAndSpec(to, spec, NULL);
    if (type != NULL && PyModule_AddType(to, type) < 0)
        Py_CLEAR(type);
    return type;
}

PyMODINIT_FUNC
PyInit__dispatch(void)
{
    PyObject *self = PyModule_Create(&module);
    if (self == NULL)
        return NULL;
    if ((TimerType = add_type(self, &Timer_spec)) == NULL
        || (LaneType = add_type(self, &Lane_spec)) == NULL
        || (LoneType = add_type(self, &Lone_spec)) == NULL)
        Py_CLEAR(self);
    return self;
}
