/*
 * A connection that Python knows: what both know of it, and the fast path alone.
 */

#include "fast_path.h"

#include <stddef.h>
#include <structmember.h>

PyTypeObject *JoinedType;

static void
Joined_dealloc(Joined *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    leave_commit(self);
    Py_XDECREF(self->connection);
    /* Its file is swept with the folder of uploads. */
    if (self->upload != NULL)
        free_upload(self->upload);
    Py_XDECREF(self->served);
    Py_XDECREF(self->secure);
    Py_XDECREF(self->records);
    Py_XDECREF(self->number);
    Py_XDECREF(self->joined);
    Py_XDECREF(self->peer);
    Py_XDECREF(self->user);
    Py_XDECREF(self->proxy);
    PyObject_Free(self);
    Py_DECREF((PyObject *)type);
}

PyDoc_STRVAR(leave_doc,
"leave()\n"
"\n"
"The connection is closed. Its descriptor will be reused.");

static PyObject *
Joined_leave(Joined *self, PyObject *Py_UNUSED(none))
{
    self->idle = 0;
    leave_commit(self);
    Py_CLEAR(self->connection);
    if (PyDict_GetItemWithError(self->joined, self->number) == (PyObject *)self
        && PyDict_DelItem(self->joined, self->number) < 0)
        return NULL;
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef Joined_methods[] = {
    {"leave", (PyCFunction)Joined_leave, METH_NOARGS, leave_doc},
    {"take_commit", (PyCFunction)Joined_take_commit, METH_O, joined_take_commit_doc},
    {"take_upload", (PyCFunction)Joined_take_upload, METH_NOARGS, take_upload_doc},
    {NULL},
};

static PyMemberDef Joined_members[] = {
    {"idle", T_BOOL, offsetof(Joined, idle), 0, NULL},
    {"connection", T_OBJECT, offsetof(Joined, connection), 0, NULL},
    {"served", T_OBJECT, offsetof(Joined, served), READONLY, NULL},
    {"secure", T_OBJECT, offsetof(Joined, secure), 0, NULL},
    {"records", T_OBJECT, offsetof(Joined, records), 0, NULL},
    {"peer", T_OBJECT, offsetof(Joined, peer), 0, NULL},
    {"user", T_OBJECT, offsetof(Joined, user), 0, NULL},
    {"proxy", T_OBJECT, offsetof(Joined, proxy), 0, NULL},
    {"requests", T_UINT, offsetof(Joined, account.requests), READONLY, NULL},
    {"seconds", T_DOUBLE, offsetof(Joined, account.seconds), READONLY, NULL},
    {"bytes", T_ULONGLONG, offsetof(Joined, account.bytes), READONLY, NULL},
    {NULL},
};

static PyType_Slot Joined_slots[] = {
    {Py_tp_dealloc, Joined_dealloc},
    {Py_tp_methods, Joined_methods},
    {Py_tp_members, Joined_members},
    {0, NULL},
};

PyType_Spec Joined_spec = {
    .name = "kvd.native._fast_path.Joined",
    .basicsize = sizeof(Joined),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = Joined_slots,
};
