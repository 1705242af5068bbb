/*
 * Hits of a near cache: keys whose values are in files of the cache, until they may have
 * changed. kvd.http.hits offers and withdraws them; without an offer, a request is left to
 * Python.
 *
 * A file of the cache has another name and another entity tag than its value, so an offer
 * has those of both. A file with the same entity tag is the one that Python has found.
 */

#include "fast_path.h"

PyTypeObject *HitType;

static void
Hit_dealloc(Hit *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    Py_XDECREF(self->name);
    Py_XDECREF(self->info);
    Py_XDECREF(self->parts);
    PyObject_Free(self);
    Py_DECREF((PyObject *)type);
}

static PyType_Slot Hit_slots[] = {
    {Py_tp_dealloc, Hit_dealloc},
    {0, NULL},
};

PyType_Spec Hit_spec = {
    .name = "kvd.native._fast_path.Hit",
    .basicsize = sizeof(Hit),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = Hit_slots,
};

const char offer_doc[] =
"offer(key, name, file_id, until, id, published, parts, info)\n"
"\n"
"Serve a key from a file from now on, up to a time.";

PyObject *
FastPath_offer(FastPath *self, PyObject *args)
{
    PyObject *key, *name, *parts, *info;
    const char *file_id, *id;
    Py_ssize_t file_id_bytes, id_bytes;
    long long published;
    double until;
    if (!PyArg_ParseTuple(args, "SSs#ds#LOO:offer", &key, &name, &file_id, &file_id_bytes,
                          &until, &id, &id_bytes, &published, &parts, &info))
        return NULL;
    if (file_id_bytes != ID_TEXT || id_bytes != ID_TEXT) {
        PyErr_SetString(PyExc_ValueError, "an id has another length");
        return NULL;
    }
    if (published < 0 || published > self->latest_second) {
        PyErr_SetString(PyExc_ValueError, "the date is too early, or too late");
        return NULL;
    }
    if (!are_parts(parts)) {
        PyErr_SetString(PyExc_TypeError, "these are no parts of replies");
        return NULL;
    }
    Hit *one = PyObject_New(Hit, HitType);
    if (one == NULL)
        return NULL;
    one->name = Py_NewRef(name);
    one->info = Py_NewRef(info);
    one->parts = Py_NewRef(parts);
    one->until = until;
    one->published = (time_t)published;
    write_date(self, one->published_date, one->published);
    memcpy(one->file_id, file_id, ID_TEXT);
    memcpy(one->id, id, ID_TEXT);
    int done = PyDict_SetItem(self->hits, key, (PyObject *)one);
    Py_DECREF((PyObject *)one);
    if (done < 0)
        return NULL;
    Py_RETURN_NONE;
}

const char withdraw_doc[] =
"withdraw(key)\n"
"\n"
"Serve a key no longer. One that is unknown is ignored.";

PyObject *
FastPath_withdraw(FastPath *self, PyObject *key)
{
    int is_known = PyDict_Contains(self->hits, key);
    if (is_known < 0 || (is_known && PyDict_DelItem(self->hits, key) < 0))
        return NULL;
    Py_RETURN_NONE;
}

/* The hit of a key, if there is one now. A new reference; NULL if not, or with an
   exception. */
Hit *
find_hit(FastPath *self, PyObject *key)
{
    Hit *found = (Hit *)PyDict_GetItemWithError(self->hits, key);
    if (found == NULL)
        return NULL;
    PyObject *time = PyObject_CallNoArgs(self->clock);
    if (time == NULL)
        return NULL;
    double seconds = PyFloat_AsDouble(time);
    Py_DECREF(time);
    if (PyErr_Occurred() || seconds >= found->until)
        return NULL;
    return (Hit *)Py_NewRef((PyObject *)found);
}

/* Whether an open file is the one that was offered. */
int
is_of_hit(const Hit *hit, const Value *value)
{
    return memcmp(value->id, hit->file_id, ID_TEXT) == 0;
}

/* Have the file of a hit describe its value; the parts are borrowed. */
void
describe_hit(const Hit *hit, Value *value)
{
    memcpy(value->id, hit->id, ID_TEXT);
    value->published = hit->published;
    memcpy(value->published_date, hit->published_date, DATE_BYTES);
    value->parts = hit->parts;
}
