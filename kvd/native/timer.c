/*
 * The timer that bounds the decisions of a policy (kvd.dispatch.deciding).
 */

#include "dispatch.h"

#include <structmember.h>
#include <sys/time.h>
#include <time.h>

PyTypeObject *TimerType;

static void
set_timer(double seconds)
{
    struct timeval each = {
        (time_t)seconds, (suseconds_t)((seconds - (double)(time_t)seconds) * 1e6),
    };
    struct itimerval timer = {each, each};
    setitimer(ITIMER_REAL, &timer, NULL);
}

void
start_timer(Timer *self)
{
    struct timespec used;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    self->began = (double)used.tv_sec + (double)used.tv_nsec * 1e-9;
    self->rings = 0;
    set_timer(self->interval);
}

void
stop_timer(void)
{
    set_timer(0);
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

static PyObject *
Timer_start(Timer *self, PyObject *Py_UNUSED(none))
{
    start_timer(self);
    Py_RETURN_NONE;
}

static PyObject *
Timer_stop(Timer *Py_UNUSED(self), PyObject *Py_UNUSED(none))
{
    stop_timer();
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

PyType_Spec Timer_spec = {
    .name = "kvd.native._dispatch.Timer",
    .basicsize = sizeof(Timer),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = Timer_slots,
};
