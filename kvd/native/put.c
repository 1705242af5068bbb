/*
 * PUT: a new id, the name of the upload, and the lock that it takes.
 */

#include "fast_path.h"

#include <sys/random.h>

static const char DIGITS[] = "0123456789abcdef";

static int
new_id(FastPath *self, char *text)
{
    if (self->random_left < ID_BYTES) {
        if (getrandom(self->random, sizeof self->random, 0)
            != (ssize_t)sizeof self->random)
            return -1;
        self->random_left = sizeof self->random;
    }
    self->random_left -= ID_BYTES;
    const unsigned char *id = self->random + self->random_left;
    for (int i = 0; i < ID_BYTES; i++) {
        text[2 * i] = DIGITS[id[i] >> 4];
        text[2 * i + 1] = DIGITS[id[i] & 15];
    }
    return 0;
}

/*
 * Write a letter and a number; and a dot and a key, if what the file replaces is to be kept
 * under this name (kvd.store.uploads). Returns the length; 0: there is no room.
 */
static size_t
write_name(char *name, char letter, unsigned long long number, const char *key, char slash)
{
    /* By hand, since snprintf takes longer than some of the system calls of a PUT. */
    char digits[2 * sizeof number], *end = digits + sizeof digits, *at = end;
    do
        *--at = DIGITS[number & 15];
    while (number >>= 4);
    size_t used = 1 + (size_t)(end - at);
    name[0] = letter;
    memcpy(name + 1, at, used - 1);
    if (key != NULL) {
        if (used + 1 + strlen(key) >= UPLOAD_NAME_BYTES)
            return 0;
        name[used++] = '.';
        for (; *key; key++)
            name[used++] = *key == '/' ? slash : *key;
    }
    name[used] = 0;
    return used;
}

PyObject *
kept_name(PyObject *Py_UNUSED(module), PyObject *args)
{
    char letter, slash, name[UPLOAD_NAME_BYTES];
    unsigned long long number;
    const char *key;
    if (!PyArg_ParseTuple(args, "ccKy:kept_name", &slash, &letter, &number, &key))
        return NULL;
    size_t size = write_name(name, letter, number, key, slash);
    if (size == 0)
        Py_RETURN_NONE;
    return PyBytes_FromStringAndSize(name, (Py_ssize_t)size);
}

/*
 * Name an upload, with letters that kvd.store.uploads does not use. Returns whether there is
 * room for the key, if it is to be in the name.
 */
static int
name_upload(FastPath *self, char *upload, const char *key, int keeps)
{
    return write_name(upload, keeps ? 'c' : 's', self->names++, keeps ? key : NULL,
                      self->slash) != 0;
}

/* Whether an object is what a store has of kvd.store.replaced: a dict, or None. Sets an
   exception if it is neither. */
int
is_of_kept(PyObject *kept)
{
    if (kept == Py_None || PyDict_CheckExact(kept))
        return 1;
    PyErr_SetString(PyExc_TypeError, "kept is no dict");
    return 0;
}

/* Note a change of a key, as kvd.store.replaced says; `name` is empty if nothing is kept. */
static int
note_in(PyObject *kept, PyObject *key, PyObject *name)
{
    return PyDict_SetItem(kept, PyBytes_Size(name) ? key : name, name);
}

PyObject *
note_change(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *kept, *key, *name;
    if (!PyArg_ParseTuple(args, "OSS:note_change", &kept, &key, &name)
        || !is_of_kept(kept) || (kept != Py_None && note_in(kept, key, name) < 0))
        return NULL;
    Py_RETURN_NONE;
}

/* Note the publication of an upload, of which `result` is what `publish` returned. */
static int
note_upload(FastPath *self, PyObject *key, const char *upload, int result)
{
    if (self->kept == NULL)
        return 0;
    PyObject *name = result == KEPT ? PyBytes_FromString(upload) : Py_NewRef(self->nothing);
    int done = name == NULL ? -1 : note_in(self->kept, key, name);
    Py_XDECREF(name);
    return done;
}

/* Let Python remove the folders that were made for a key that was not published. */
static int
prune(FastPath *self, PyObject *key)
{
    PyObject *done = PyObject_CallFunctionObjArgs(self->prune, key, NULL);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

#define TOO_MANY_KEPT 2

/*
 * Whether what a key has is kept when it is replaced, as kvd.store.replaced says. Returns 1;
 * 0 if it is not; TOO_MANY_KEPT; -1 with an exception.
 */
static int
keeps_in(PyObject *kept, PyObject *key, Py_ssize_t most)
{
    int is_kept = PyDict_Contains(kept, key);
    if (is_kept != 0)
        return is_kept < 0 ? -1 : 0;
    return PyDict_Size(kept) < most ? 1 : TOO_MANY_KEPT;
}

PyObject *
keeps_replaced(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *kept, *key;
    Py_ssize_t most;
    if (!PyArg_ParseTuple(args, "OSn:keeps_replaced", &kept, &key, &most)
        || !is_of_kept(kept))
        return NULL;
    int keeps = kept == Py_None ? 0 : keeps_in(kept, key, most);
    if (keeps == TOO_MANY_KEPT)
        Py_RETURN_NONE;
    return keeps < 0 ? NULL : PyBool_FromLong(keeps);
}

/*
 * Find whether what a key has now is kept when it is replaced. Returns 1; 0 if it should be
 * and cannot, so that the request is Python's; -1 with an exception.
 */
static int
find_keeps(FastPath *self, PyObject *key, int *keeps)
{
    int found = self->kept == NULL ? 0 : keeps_in(self->kept, key, self->most_kept);
    *keeps = found == 1;
    return found < 0 ? -1 : found != TOO_MANY_KEPT;
}

/*
 * Say what a PUT will publish, and reserve what it takes of its quotas. Returns 1; 0 if the
 * request is Python's; -1 with an exception.
 */
int
prepare_upload(FastPath *self, const Request *request, PyObject *key, Upload *upload)
{
    upload->key = PyBytes_AsString(key);
    upload->length = request->size - request->head_bytes;
    upload->lines = request->template->lines;
    upload->offset = lock_offset(upload->key, (size_t)PyBytes_Size(key));
    upload->sealed_us = 0;
    upload->sealed_epoch = 0;
    upload->is_nameless = 0;
    upload->usage = self->usage;
    upload->quota = self->usage == NULL ? 0
        : quota_of(self->usage, upload->key, (size_t)PyBytes_Size(key));
    if (self->uploads < 0 || new_id(self, upload->id) < 0)
        return 0;
    int found = find_keeps(self, key, &upload->keeps);
    return found <= 0 ? found
        : name_upload(self, upload->name, upload->key, upload->keeps) && reserve(upload);
}

/* Reply to a PUT whose value is published. Returns how much was sent; -1 with an
   exception. */
Py_ssize_t
reply_published(FastPath *self, int socket, const HeadTemplate *template,
                const Upload *upload, int replaced)
{
    char head[HEAD_ROOM];
    PyObject *const *parts = replaced ? template->replaced : template->created;
    size_t used = append(head, 0, parts[0]);
    memcpy(head + used, http_date(self), DATE_BYTES);
    used = append(head, used + DATE_BYTES, parts[1]);
    memcpy(head + used, upload->id, ID_TEXT);
    used = append(head, used + ID_TEXT, parts[2]);
    self->status = replaced ? template->replaced_status : template->created_status;
    self->body_bytes = upload->length;
    return send_reply(self, socket, head, used, "", 0);
}

/* Returns as `serve_get`; also 1 if there will be a reply when the value is synced. */
int
serve_put(FastPath *self, int socket, const Request *request, PyObject *key)
{
    Upload upload;
    int replaced, is_made;
    /* Over TLS, a reply has to be sent while its request is served. */
    if (self->secure != NULL && self->syncs != NULL)
        return 0;
    int prepared = prepare_upload(self, request, key, &upload);
    if (prepared <= 0)
        return prepared;
    if (self->syncs != NULL)
        return begin_commit(self, request, key, &upload);
    Py_BEGIN_ALLOW_THREADS
    replaced = publish(self, &upload, request->bytes + request->head_bytes, &is_made);
    Py_END_ALLOW_THREADS
    if (replaced < 0)
        return is_made ? prune(self, key) : 0;
    if (note_upload(self, key, upload.name, replaced) < 0)
        return -1;
    Py_ssize_t sent = reply_published(self, socket, request->template, &upload, replaced);
    if (sent < 0)
        return -1;
    self->moved_bytes = request->size + sent;
    self->seconds = now() - request->began;
    count(self, request->size, sent);
    return 1;
}

/*
 * Publish a value all of which is in its file, and reply. Returns as `serve_get`. If the
 * value was published, whatever came after that, the file has no name left in the folder
 * of uploads, and the request is counted as done.
 */
int
finish_put(FastPath *self, int socket, PartialUpload *partial)
{
    Upload *upload = &partial->upload;
    int replaced, is_made;
    if (self->syncs != NULL)
        return commit_partial(self, partial);
    /* As it is now: there may have been a sync, or another upload, meanwhile. */
    int found = find_keeps(self, partial->key, &upload->keeps);
    if (found <= 0)
        return found;
    if (self->uploads < 0 || (upload->keeps && !partial->may_keep))
        return 0;
    Py_BEGIN_ALLOW_THREADS
    replaced = publish_file(self, upload, partial->file, &is_made);
    Py_END_ALLOW_THREADS
    if (replaced < 0)
        return is_made ? prune(self, partial->key) : 0;
    int done = note_upload(self, partial->key, upload->name, replaced);
    upload->name[0] = 0;
    const Request *request = &partial->request;
    self->method = request->template->method;
    self->status = 0;
    Py_ssize_t sent = done < 0 ? -1
        : reply_published(self, socket, request->template, upload, replaced);
    self->seconds = now() - request->began;
    count_upload_done(self);
    if (sent < 0)
        return -1;
    count_sent(self->counts, sent);
    self->moved_bytes = request->size + partial->sent + sent;
    return 1;
}
