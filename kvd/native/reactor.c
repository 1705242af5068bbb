/*
 * The loop of kvd.net.reactor, compiled: wait for events, hand them on, and wait again
 * while nothing else is due. In Python this takes longer than most events.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <sys/epoll.h>
#include <time.h>

/* What one wait reports at most. The kernel gives others their turn in the next. */
#define MOST_EVENTS 256
#define MOST_EXPONENTS 128

static unsigned long long
monotonic_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (unsigned long long)time.tv_sec * 1000000000 + (unsigned long long)time.tv_nsec;
}

/* Counts the turns of a worker's reactor, as kvd.ipc.row.Row does. */
typedef struct {
    PyObject_HEAD
    Py_buffer row;
    Py_ssize_t awake, busy, beat;       /* words of the row */
    Py_ssize_t delays[MOST_EXPONENTS];  /* words of the row, by exponents of durations */
    int least_exponent, exponents;
} Turns;

static PyTypeObject *TurnsType;

/* Returns whether a row has all the words of these turns. */
static int
has_words(const Turns *self)
{
    Py_ssize_t words = self->row.len / (Py_ssize_t)sizeof(long long);
    Py_ssize_t least = Py_MIN(self->awake, Py_MIN(self->busy, self->beat));
    Py_ssize_t most = Py_MAX(self->awake, Py_MAX(self->busy, self->beat));
    for (int i = 0; i < self->exponents; i++) {
        least = Py_MIN(least, self->delays[i]);
        most = Py_MAX(most, self->delays[i]);
    }
    return least >= 0 && most < words;
}

static PyObject *
Turns_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(keywords))
{
    PyObject *row, *delays;
    Py_ssize_t awake, busy, beat;
    int least_exponent;
    if (!PyArg_ParseTuple(args, "OnnnO!i:Turns", &row, &awake, &busy, &beat,
                          &PyTuple_Type, &delays, &least_exponent))
        return NULL;
    Turns *self = (Turns *)PyType_GenericAlloc(type, 0);
    if (self == NULL)
        return NULL;
    if (PyObject_GetBuffer(row, &self->row, PyBUF_WRITABLE) < 0) {
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    self->awake = awake;
    self->busy = busy;
    self->beat = beat;
    self->least_exponent = least_exponent;
    self->exponents = (int)Py_MIN(PyTuple_Size(delays), MOST_EXPONENTS);
    for (int i = 0; i < self->exponents; i++)
        self->delays[i] = PyLong_AsSsize_t(PyTuple_GetItem(delays, i));
    if (PyErr_Occurred() || self->exponents == 0 || !has_words(self)) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "the row has no room for these words");
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    return (PyObject *)self;
}

static void
Turns_dealloc(Turns *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    if (self->row.obj != NULL)
        PyBuffer_Release(&self->row);
    PyObject_Free(self);
    Py_DECREF((PyObject *)type);
}

static void
wait_begins(Turns *self)
{
    unsigned long long *words = self->row.buf, now = monotonic_ns();
    if (words[self->awake]) {
        unsigned long long took = now - words[self->awake];
        int exponent;
        words[self->busy] += took;
        words[self->awake] = 0;
        /* A nanosecond more, since the exponent of 0 is that of 0.5. */
        frexp((double)took * 1e-9 + 1e-9, &exponent);
        int at = exponent - self->least_exponent;
        at = at < 0 ? 0 : at >= self->exponents ? self->exponents - 1 : at;
        words[self->delays[at]] += 1;
    }
    words[self->beat] = now;
}

static void
wait_ends(Turns *self)
{
    ((unsigned long long *)self->row.buf)[self->awake] = monotonic_ns();
}

static PyObject *
Turns_waits(Turns *self, PyObject *Py_UNUSED(none))
{
    wait_begins(self);
    Py_RETURN_NONE;
}

static PyObject *
Turns_woke(Turns *self, PyObject *Py_UNUSED(none))
{
    wait_ends(self);
    Py_RETURN_NONE;
}

static PyMethodDef Turns_methods[] = {
    {"waits", (PyCFunction)Turns_waits, METH_NOARGS,
     "waits()\n\nThe worker waits for events from now on."},
    {"woke", (PyCFunction)Turns_woke, METH_NOARGS,
     "woke()\n\nThe worker has woken: it has events, or nothing to wait for."},
    {NULL},
};

static PyType_Slot Turns_slots[] = {
    {Py_tp_doc, "Turns(row, awake, busy, beat, delays, least_exponent)\n\n"
                "See kvd.ipc.row.Row."},
    {Py_tp_new, Turns_new},
    {Py_tp_dealloc, Turns_dealloc},
    {Py_tp_methods, Turns_methods},
    {0, NULL},
};

static PyType_Spec Turns_spec = {
    .name = "kvd.native._reactor.Turns",
    .basicsize = sizeof(Turns),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = Turns_slots,
};

/* What a loop asks for by name; and the function `time.monotonic`. */
static PyObject *RUNNING, *JUST_STOPPED, *POLLING, *TIME, *DO_READ_OR_WRITE, *WAITS,
    *WOKE, *MONOTONIC;

/* Tell who counts, if anybody does. Returns 0; -1 with an exception. */
static int
tell(PyObject *counts, int waits)
{
    if (counts == Py_None)
        return 0;
    if (Py_IS_TYPE(counts, TurnsType)) {
        if (waits)
            wait_begins((Turns *)counts);
        else
            wait_ends((Turns *)counts);
        return 0;
    }
    PyObject *told = PyObject_CallMethodObjArgs(counts, waits ? WAITS : WOKE, NULL);
    Py_XDECREF(told);
    return told == NULL ? -1 : 0;
}

/* What an attribute of the reactor says; -1 with an exception. */
static int
is_true(PyObject *reactor, PyObject *name)
{
    PyObject *value = PyObject_GetAttr(reactor, name);
    int is_so = value == NULL ? -1 : PyObject_IsTrue(value);
    Py_XDECREF(value);
    return is_so;
}

static double
number(PyObject *owned)
{
    double value = owned == NULL ? -1 : PyFloat_AsDouble(owned);
    Py_XDECREF(owned);
    return value;
}

/* What a reactor has, for the time of one call: only an event that has the reactor iterate
   makes these anew, and that ends the call. */
typedef struct {
    PyObject *reactor, *selectables, *new_calls, *calls, *threads_calls;
    PyObject *counts, *serve_readable, *before_wait;
    PyObject *seconds;          /* NULL: the monotonic clock, as it is read here */
} Loop;

/*
 * As kvd.net.reactor._next_timeout: how many seconds to wait, below 0 for as long as it
 * takes. Returns 0; -1 with an exception.
 */
static int
next_timeout(const Loop *loop, double *seconds)
{
    int polls = is_true(loop->reactor, POLLING);
    int runs = polls > 0 ? is_true(loop->reactor, RUNNING) : 0;
    int stops = runs > 0 ? is_true(loop->reactor, JUST_STOPPED) : 0;
    if (polls < 0 || runs < 0 || stops < 0)
        return -1;
    *seconds = 0;
    if (!runs || stops || PyList_Size(loop->new_calls) || PyList_Size(loop->threads_calls))
        return 0;
    if (PyList_Size(loop->calls) == 0) {
        *seconds = -1;
        return 0;
    }
    double due = number(PyObject_GetAttr(PyList_GetItem(loop->calls, 0), TIME));
    double now = loop->seconds == NULL ? (double)monotonic_ns() * 1e-9
                                       : number(PyObject_CallNoArgs(loop->seconds));
    if (PyErr_Occurred())
        return -1;
    *seconds = due > now ? due - now : 0;
    return 0;
}

/* Offer an event to `serve_readable`. Returns whether nothing is left to do with it; -1 with
   an exception. */
static int
is_served(const Loop *loop, PyObject *descriptor, uint32_t event)
{
    if (event != EPOLLIN) {
        int is_known = PyDict_Contains(loop->selectables, descriptor);
        if (is_known)
            return is_known < 0 ? -1 : 0;
    }
    PyObject *done = PyObject_CallFunctionObjArgs(loop->serve_readable, descriptor, NULL);
    int is_done = done == NULL ? -1 : PyObject_IsTrue(done);
    Py_XDECREF(done);
    return is_done;
}

/* Returns 0; -1 with an exception. */
static int
hand_on(const Loop *loop, const struct epoll_event *event)
{
    PyObject *descriptor = PyLong_FromLong(event->data.fd);
    if (descriptor == NULL)
        return -1;
    int is_done = is_served(loop, descriptor, event->events);
    if (is_done == 0) {
        /* One event may end another's selectable. */
        PyObject *selectable = PyDict_GetItemWithError(loop->selectables, descriptor);
        if (selectable == NULL && PyErr_Occurred())
            is_done = -1;
        else if (selectable != NULL) {
            PyObject *mask = PyLong_FromUnsignedLong(event->events);
            Py_INCREF(selectable);
            PyObject *done = mask == NULL ? NULL : PyObject_CallMethodObjArgs(
                loop->reactor, DO_READ_OR_WRITE, selectable, descriptor, mask, NULL);
            Py_DECREF(selectable);
            Py_XDECREF(mask);
            Py_XDECREF(done);
            is_done = done == NULL ? -1 : 1;
        }
    }
    Py_DECREF(descriptor);
    return is_done < 0 ? -1 : 0;
}

/* Wait once, and hand on what has come. Returns 0; -1 with an exception. */
static int
poll_once(const Loop *loop, int poller, double seconds)
{
    struct epoll_event events[MOST_EVENTS];
    /* As many milliseconds as it takes, never too few. */
    double most = ceil(seconds * 1000);
    int wait = seconds < 0 ? -1 : most > INT_MAX ? INT_MAX : (int)most;
    int count, error;
    if (loop->before_wait != Py_None) {
        PyObject *called = PyObject_CallNoArgs(loop->before_wait);
        Py_XDECREF(called);
        if (called == NULL)
            return -1;
    }
    if (tell(loop->counts, 1) < 0)
        return -1;
    Py_BEGIN_ALLOW_THREADS
    count = epoll_wait(poller, events, MOST_EVENTS, wait);
    error = errno;
    Py_END_ALLOW_THREADS
    if (tell(loop->counts, 0) < 0)
        return -1;
    if (count < 0 && error != EINTR) {
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    for (int i = 0; i < count; i++)
        if (hand_on(loop, &events[i]) < 0)
            return -1;
    /* Last, since a signal may have come while an event was handled. What its handler in
       Python does may leave something to do. */
    return PyErr_CheckSignals();
}

/* Say whether the reactor polls, with an exception or without. Returns 0; -1 with an
   exception. */
static int
set_polling(PyObject *reactor, PyObject *polls)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (PyObject_SetAttr(reactor, POLLING, polls) == 0) {
        PyErr_Restore(type, value, traceback);
        return 0;
    }
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return -1;
}

static int
begin(Loop *loop)
{
    loop->counts = PyObject_GetAttrString(loop->reactor, "counts");
    loop->serve_readable = PyObject_GetAttrString(loop->reactor, "serve_readable");
    loop->before_wait = PyObject_GetAttrString(loop->reactor, "before_wait");
    loop->seconds = PyObject_GetAttrString(loop->reactor, "seconds");
    loop->selectables = PyObject_GetAttrString(loop->reactor, "_selectables");
    loop->new_calls = PyObject_GetAttrString(loop->reactor, "_newTimedCalls");
    loop->calls = PyObject_GetAttrString(loop->reactor, "_pendingTimedCalls");
    loop->threads_calls = PyObject_GetAttrString(loop->reactor, "threadCallQueue");
    if (PyErr_Occurred())
        return -1;
    if (loop->seconds == MONOTONIC)
        Py_CLEAR(loop->seconds);
    if (PyDict_Check(loop->selectables) && PyList_Check(loop->new_calls)
        && PyList_Check(loop->calls) && PyList_Check(loop->threads_calls))
        return 0;
    PyErr_SetString(PyExc_TypeError, "the reactor keeps its calls in other ways");
    return -1;
}

PyDoc_STRVAR(poll_doc,
"poll(reactor, timeout)\n"
"\n"
"See kvd.net.reactor.");

static PyObject *
poll_events(PyObject *Py_UNUSED(module), PyObject *args)
{
    Loop loop = {0};
    PyObject *timeout, *epoll;
    if (!PyArg_ParseTuple(args, "OO:poll", &loop.reactor, &timeout))
        return NULL;
    int status = -1, poller = -1;
    double seconds = -1;
    if (timeout != Py_None)
        seconds = PyFloat_AsDouble(timeout);
    epoll = PyErr_Occurred() ? NULL : PyObject_GetAttrString(loop.reactor, "_poller");
    if (epoll != NULL)
        poller = PyObject_AsFileDescriptor(epoll);
    if (poller < 0 || begin(&loop) < 0)
        goto end;
    int nested = is_true(loop.reactor, POLLING);
    if (nested < 0 || set_polling(loop.reactor, Py_True) < 0)
        goto end;
    int once = nested || seconds == 0;
    do
        status = poll_once(&loop, poller, seconds);
    while (status == 0 && !once && (status = next_timeout(&loop, &seconds)) == 0
           && seconds != 0);
    if (set_polling(loop.reactor, Py_False) < 0)
        status = -1;
end:
    Py_XDECREF(epoll);
    Py_XDECREF(loop.selectables);
    Py_XDECREF(loop.new_calls);
    Py_XDECREF(loop.calls);
    Py_XDECREF(loop.threads_calls);
    Py_XDECREF(loop.counts);
    Py_XDECREF(loop.serve_readable);
    Py_XDECREF(loop.before_wait);
    Py_XDECREF(loop.seconds);
    if (status < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"poll", poll_events, METH_VARARGS, poll_doc},
    {NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "kvd.native._reactor",
    .m_doc = "The loop of kvd.net.reactor, compiled.",
    .m_size = -1,
    .m_methods = functions,
};

PyMODINIT_FUNC
PyInit__reactor(void)
{
    const struct { PyObject **place; const char *name; } names[] = {
        {&RUNNING, "running"}, {&JUST_STOPPED, "_justStopped"},
        {&POLLING, "polling"}, {&TIME, "time"},
        {&DO_READ_OR_WRITE, "_doReadOrWrite"}, {&WAITS, "waits"}, {&WOKE, "woke"},
    };
    PyObject *clocks = PyImport_ImportModule("time");
    if (clocks == NULL)
        return NULL;
    if (MONOTONIC == NULL)
        MONOTONIC = PyObject_GetAttrString(clocks, "monotonic");
    Py_DECREF(clocks);
    if (MONOTONIC == NULL)
        return NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (*names[i].place == NULL
            && (*names[i].place = PyUnicode_InternFromString(names[i].name)) == NULL)
            return NULL;
    PyObject *self = PyModule_Create(&module);
    if (self == NULL)
        return NULL;
    TurnsType = (PyTypeObject *)PyType_FromModuleAndSpec(self, &Turns_spec, NULL);
    if (TurnsType == NULL || PyModule_AddType(self, TurnsType) < 0)
        Py_CLEAR(self);
    return self;
}
