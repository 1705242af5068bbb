/*
 * Head templates: what Python has decided about a request, but for its key and its body.
 */

#include "fast_path.h"

PyTypeObject *HeadTemplateType;

static void
HeadTemplate_dealloc(HeadTemplate *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    Py_XDECREF(self->tail);
    Py_XDECREF(self->lines);
    for (int i = 0; i < 4; i++)
        Py_XDECREF(self->missing[i]);
    for (int i = 0; i < 3; i++) {
        Py_XDECREF(self->created[i]);
        Py_XDECREF(self->replaced[i]);
    }
    PyObject_Free(self);
    Py_DECREF((PyObject *)type);
}

static PyType_Slot HeadTemplate_slots[] = {
    {Py_tp_dealloc, HeadTemplate_dealloc},
    {0, NULL},
};

PyType_Spec HeadTemplate_spec = {
    .name = "kvd.native._fast_path.HeadTemplate",
    .basicsize = sizeof(HeadTemplate),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = HeadTemplate_slots,
};

static HeadTemplate *
new_template(void)
{
    HeadTemplate *template = PyObject_New(HeadTemplate, HeadTemplateType);
    if (template != NULL)
        memset((char *)template + sizeof(PyObject), 0,
               sizeof(HeadTemplate) - sizeof(PyObject));
    return template;
}

PyObject *
get_template(PyObject *Py_UNUSED(module), PyObject *args)
{
    int is_head, keep;
    PyObject *tail, *missing[4];
    if (!PyArg_ParseTuple(args, "ppS(SSSS):get_template", &is_head, &keep, &tail,
                          &missing[0], &missing[1], &missing[2], &missing[3]))
        return NULL;
    HeadTemplate *template = new_template();
    if (template == NULL)
        return NULL;
    template->is_head = is_head;
    template->keep = keep;
    template->tail = Py_NewRef(tail);
    for (int i = 0; i < 4; i++)
        template->missing[i] = Py_NewRef(missing[i]);
    return (PyObject *)template;
}

PyObject *
put_template(PyObject *Py_UNUSED(module), PyObject *args)
{
    int keep, created_status, replaced_status;
    Py_ssize_t length;
    PyObject *lines, *created[3], *replaced[3];
    if (!PyArg_ParseTuple(args, "pnSi(SSS)i(SSS):put_template", &keep, &length, &lines,
                          &created_status, &created[0], &created[1], &created[2],
                          &replaced_status, &replaced[0], &replaced[1],
                          &replaced[2]))
        return NULL;
    Py_ssize_t most = HEAD_ROOM - DATE_BYTES - ID_TEXT;
    for (int i = 0; i < 3; i++)
        most -= Py_MAX(PyBytes_Size(created[i]), PyBytes_Size(replaced[i]));
    if (most < 0 || length < 0
        || PyBytes_Size(lines) > ATTRIBUTE_BYTES - ATTRIBUTE_LINE_BYTES) {
        PyErr_SetString(PyExc_ValueError, "no room for a part of this template");
        return NULL;
    }
    HeadTemplate *template = new_template();
    if (template == NULL)
        return NULL;
    template->is_put = 1;
    template->keep = keep;
    template->length = length;
    template->created_status = created_status;
    template->replaced_status = replaced_status;
    template->lines = Py_NewRef(lines);
    for (int i = 0; i < 3; i++) {
        template->created[i] = Py_NewRef(created[i]);
        template->replaced[i] = Py_NewRef(replaced[i]);
    }
    return (PyObject *)template;
}
