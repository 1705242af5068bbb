/*
 * Head templates: the part of a request that its key and its body do not change, and
 * what Python has decided about it.
 */

#include "fast_path.h"

#include <string.h>

#define MAX_TEMPLATES 256
/* Longer segments of a key are Python's. */
#define MAX_SEGMENT_BYTES 200

PyTypeObject *HeadTemplateType;

static void
HeadTemplate_dealloc(HeadTemplate *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    Py_XDECREF(self->tail);
    Py_XDECREF(self->lines);
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
    int keep;
    PyObject *tail;
    if (!PyArg_ParseTuple(args, "pS:get_template", &keep, &tail))
        return NULL;
    HeadTemplate *template = new_template();
    if (template == NULL)
        return NULL;
    template->keep = keep;
    template->tail = Py_NewRef(tail);
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

/*
 * Whether a byte may stand in a segment of a target. What this leaves out, the
 * percent sign above all, is not wrong, only unusual.
 */
static int
is_usual(unsigned char byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z')
        || (byte >= '0' && byte <= '9')
        || (byte != 0 && strchr("_~!$&'()*+,;=:@.-", byte) != NULL);
}

/*
 * How long the key is that a target begins with, its first slash left out; 0 for
 * one that Python should look at.
 */
Py_ssize_t
key_bytes(const char *text, const char *end, Py_ssize_t most)
{
    const char *at = text, *segment = text;
    for (; at < end && *at != ' '; at++) {
        if (*at == '/') {
            if (at == segment || at - segment > MAX_SEGMENT_BYTES)
                return 0;
            segment = at + 1;
        } else if (!is_usual((unsigned char)*at)
                   || (at == segment && *at == '.'))
            return 0;
    }
    if (at == end || at == segment || at - segment > MAX_SEGMENT_BYTES
        || at - text > most)
        return 0;
    return at - text;
}

/*
 * The template of a head, looked up by all of the head but the target. A new
 * reference; None for a head that is left to Python.
 */
PyObject *
template_of(FastPath *self, const char *head, Py_ssize_t line, Py_ssize_t rest,
            Py_ssize_t size)
{
    PyObject *shape = PyBytes_FromStringAndSize(NULL, line + size - rest);
    if (shape == NULL)
        return NULL;
    memcpy(PyBytes_AsString(shape), head, (size_t)line);
    memcpy(PyBytes_AsString(shape) + line, head + rest, (size_t)(size - rest));
    PyObject *template = PyDict_GetItemWithError(self->templates, shape);
    if (template != NULL || PyErr_Occurred()) {
        Py_XINCREF(template);
        Py_DECREF(shape);
        return template;
    }
    template = PyObject_CallFunction(self->make_template, "y#", head, size);
    if (template != NULL && template != Py_None
        && !Py_IS_TYPE(template, HeadTemplateType)) {
        PyErr_SetString(PyExc_TypeError, "make_template gave no template");
        Py_CLEAR(template);
    }
    if (template != NULL) {
        if (PyDict_Size(self->templates) >= MAX_TEMPLATES)
            PyDict_Clear(self->templates);
        if (PyDict_SetItem(self->templates, shape, template) < 0)
            Py_CLEAR(template);
    }
    Py_DECREF(shape);
    return template;
}
