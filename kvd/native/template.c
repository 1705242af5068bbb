/*
 * Head templates: what Python has decided about a request, apart from its key, its body
 * and the varying fields.
 *
 * Recent templates are kept in two generations. A template that is used again moves to the
 * newer one; when that is full, the older one is dropped. So a template that is in use
 * stays, whatever other heads a client sends.
 */

#include "fast_path.h"

#define MAX_TEMPLATES 256       /* of both generations */

PyTypeObject *HeadTemplateType;

static void
HeadTemplate_dealloc(HeadTemplate *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    Py_XDECREF(self->tail);
    Py_XDECREF(self->lines);
    Py_XDECREF(self->scopes);
    Py_XDECREF(self->user);
    Py_XDECREF(self->interim);
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
    int is_head, keep, has_ranges;
    Py_ssize_t method;
    PyObject *outcomes, *tail, *where_missing, *missing[4] = {NULL, NULL, NULL, NULL};
    if (!PyArg_ParseTuple(args, "npppO!SO:get_template", &method, &is_head, &keep, &has_ranges,
                          &PyTuple_Type, &outcomes, &tail, &where_missing))
        return NULL;
    if (where_missing != Py_None
        && !PyArg_Parse(where_missing, "(SSSS):get_template", &missing[0], &missing[1],
                        &missing[2], &missing[3]))
        return NULL;
    if (PyTuple_Size(outcomes) != OUTCOMES) {
        PyErr_SetString(PyExc_ValueError, "there are more outcomes, or fewer");
        return NULL;
    }
    HeadTemplate *template = new_template();
    if (template == NULL)
        return NULL;
    template->method = method;
    template->is_head = is_head;
    template->keep = keep;
    template->has_ranges = has_ranges;
    for (int i = 0; i < OUTCOMES; i++)
        template->outcomes[i] = (int)PyLong_AsLong(PyTuple_GetItem(outcomes, i));
    if (PyErr_Occurred()) {
        Py_DECREF((PyObject *)template);
        return NULL;
    }
    template->tail = Py_NewRef(tail);
    for (int i = 0; i < 4; i++)
        template->missing[i] = Py_XNewRef(missing[i]);
    return (PyObject *)template;
}

PyObject *
put_template(PyObject *Py_UNUSED(module), PyObject *args)
{
    int keep, created_status, replaced_status;
    Py_ssize_t method, most_bytes;
    PyObject *lines, *created[3], *replaced[3], *interim;
    if (!PyArg_ParseTuple(args, "npnSi(SSS)i(SSS)S:put_template", &method, &keep,
                          &most_bytes, &lines, &created_status, &created[0], &created[1], &created[2],
                          &replaced_status, &replaced[0], &replaced[1],
                          &replaced[2], &interim))
        return NULL;
    Py_ssize_t most = HEAD_ROOM - DATE_BYTES - ID_TEXT;
    for (int i = 0; i < 3; i++)
        most -= Py_MAX(PyBytes_Size(created[i]), PyBytes_Size(replaced[i]));
    if (most < 0 || most_bytes < 0
        || PyBytes_Size(lines) > ATTRIBUTE_BYTES - ATTRIBUTE_LINE_BYTES) {
        PyErr_SetString(PyExc_ValueError, "no room for a part of this template");
        return NULL;
    }
    HeadTemplate *template = new_template();
    if (template == NULL)
        return NULL;
    template->method = method;
    template->is_put = 1;
    template->keep = keep;
    template->most_bytes = most_bytes;
    template->created_status = created_status;
    template->replaced_status = replaced_status;
    template->lines = Py_NewRef(lines);
    template->interim = Py_NewRef(interim);
    for (int i = 0; i < 3; i++) {
        template->created[i] = Py_NewRef(created[i]);
        template->replaced[i] = Py_NewRef(replaced[i]);
    }
    return (PyObject *)template;
}

/*
 * limit_template(template, scopes, expires, user, by_password): serve by a template only
 * what its sender may do (kvd.http.authorization).
 *
 * scopes: bytes, of which the first says whether the keys that begin with the others are
 * served. The first one that a key begins with counts; a key of none is not served.
 * expires: when that ceases to hold, in seconds since the epoch; 0: never.
 * user: what a report says of the sender (kvd.http.access_log.Sender).
 * by_password: whether it is served only where logs_in_at_once says so (logins.c).
 */
PyObject *
limit_template(PyObject *Py_UNUSED(module), PyObject *args)
{
    HeadTemplate *template;
    PyObject *scopes, *user;
    long long expires;
    int is_by_password;
    if (!PyArg_ParseTuple(args, "O!O!LOp:limit_template", HeadTemplateType, &template,
                          &PyTuple_Type, &scopes, &expires, &user, &is_by_password))
        return NULL;
    for (Py_ssize_t i = 0; i < PyTuple_Size(scopes); i++) {
        PyObject *scope = PyTuple_GetItem(scopes, i);
        if (!PyBytes_Check(scope) || PyBytes_Size(scope) == 0) {
            PyErr_SetString(PyExc_ValueError, "a scope is a byte and a prefix");
            return NULL;
        }
    }
    PyObject *before = template->scopes, *user_before = template->user;
    template->scopes = Py_NewRef(scopes);
    template->user = Py_NewRef(user);
    Py_XDECREF(before);
    Py_XDECREF(user_before);
    template->expires = expires;
    template->is_by_password = is_by_password;
    Py_RETURN_NONE;
}

/* Whether a template is for a key, now. */
int
is_for_key(const HeadTemplate *template, const char *key, Py_ssize_t key_bytes)
{
    if (template->scopes == NULL)
        return 1;
    if (template->expires && time(NULL) >= template->expires)
        return 0;
    for (Py_ssize_t i = 0; i < PyTuple_Size(template->scopes); i++) {
        PyObject *scope = PyTuple_GetItem(template->scopes, i);
        const char *text = PyBytes_AsString(scope);
        Py_ssize_t size = PyBytes_Size(scope) - 1;
        if (size <= key_bytes && memcmp(text + 1, key, (size_t)size) == 0)
            return text[0];
    }
    return 0;
}

/* Whether the row has the words that a template counts in. */
static int
is_counted(const FastPath *self, const HeadTemplate *template)
{
    if (!has_method(self->counts, template->method))
        return 0;
    int is_status = template->created_status >= 0 && template->replaced_status >= 0
        && template->created_status < STATUSES && template->replaced_status < STATUSES;
    for (int i = 0; i < OUTCOMES; i++)
        is_status &= template->outcomes[i] >= 0 && template->outcomes[i] < STATUSES;
    return is_status;
}

static int
remember(FastPath *self, PyObject *shape, PyObject *template)
{
    if (PyDict_Size(self->templates) >= MAX_TEMPLATES / 2) {
        PyObject *oldest = self->older_templates;
        self->older_templates = self->templates;
        self->templates = oldest;
        PyDict_Clear(oldest);
    }
    return PyDict_SetItem(self->templates, shape, template);
}

/*
 * The template of a head. A new reference; None for a head that is left to Python. Python
 * says False if it does not know yet who sends it: then it is asked again next time.
 */
PyObject *
template_of(FastPath *self, const char *shape, Py_ssize_t shape_bytes,
            const char *head, Py_ssize_t head_bytes)
{
    PyObject *key = PyBytes_FromStringAndSize(shape, shape_bytes);
    if (key == NULL)
        return NULL;
    PyObject *template = PyDict_GetItemWithError(self->templates, key);
    if (template != NULL) {
        Py_DECREF(key);
        return Py_NewRef(template);
    }
    if (!PyErr_Occurred())
        template = PyDict_GetItemWithError(self->older_templates, key);
    if (template != NULL)
        Py_INCREF(template);
    else if (!PyErr_Occurred())
        template = PyObject_CallFunction(self->make_template, "y#", head, head_bytes);
    if (template == Py_False) {
        Py_DECREF(template);
        Py_DECREF(key);
        Py_RETURN_NONE;
    }
    if (template != NULL && template != Py_None
        && !Py_IS_TYPE(template, HeadTemplateType)) {
        PyErr_SetString(PyExc_TypeError, "make_template gave no template");
        Py_CLEAR(template);
    }
    if (template != NULL && template != Py_None
        && !is_counted(self, (HeadTemplate *)template)) {
        PyErr_SetString(PyExc_ValueError, "the row has no room for a method or a status");
        Py_CLEAR(template);
    }
    if (template != NULL && remember(self, key, template) < 0)
        Py_CLEAR(template);
    Py_DECREF(key);
    return template;
}
