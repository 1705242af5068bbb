/*
 * PUT: a new id, the name of the upload, and the lock that it takes.
 */

#include "fast_path.h"

#include <stdio.h>
#include <sys/random.h>

#define UPLOAD_NAME_BYTES 256       /* with the zero at its end */
#define MOST_KEPT 65536             /* as kvd.store.tree */
#define SLASH '\x1f'                /* as kvd.store.uploads writes a key in a name */

static int
new_id(FastPath *self, char *text)
{
    static const char DIGITS[] = "0123456789abcdef";
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
 * Name an upload. kvd.store.uploads uses other letters; behind a dot stands the key, if
 * what it replaces is to be kept under this name.
 *
 * Returns whether there is room for the key.
 */
static int
name_upload(FastPath *self, char *upload, const char *key, int keeps)
{
    unsigned long long number = self->names++;
    if (!keeps) {
        snprintf(upload, UPLOAD_NAME_BYTES, "s%llx", number);
        return 1;
    }
    int size = snprintf(upload, UPLOAD_NAME_BYTES, "c%llx.%s", number, key);
    for (char *at = upload; *at; at++)
        if (*at == '/')
            *at = SLASH;
    return size < UPLOAD_NAME_BYTES;
}

/* Remember that a key was written to, and what is kept for it (SOMETHING of
   kvd.store.tree: nothing is). */
static int
keep(FastPath *self, PyObject *key, const char *upload, int replaced)
{
    if (replaced != KEPT)
        return PyDict_SetItem(self->kept, self->nothing, self->nothing);
    PyObject *name = PyBytes_FromString(upload);
    if (name == NULL)
        return -1;
    int done = PyDict_SetItem(self->kept, key, name);
    Py_DECREF(name);
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

/* Returns as `serve_get`. */
int
serve_put(FastPath *self, int socket, const Request *request, PyObject *key)
{
    const HeadTemplate *template = request->template;
    char name[UPLOAD_NAME_BYTES], id[ID_TEXT], head[HEAD_ROOM];
    Upload upload = {
        .name = name, .key = PyBytes_AsString(key), .id = id,
        .body = request->bytes + request->head_bytes,
        .length = request->size - request->head_bytes,
        .lines = template->lines,
        .offset = lock_offset(PyBytes_AsString(key), (size_t)PyBytes_Size(key)),
    };
    int replaced, is_made;
    if (self->uploads < 0 || new_id(self, id) < 0)
        return 0;
    if (self->kept != NULL) {
        int is_kept = PyDict_Contains(self->kept, key);
        if (is_kept < 0)
            return -1;
        upload.keeps = !is_kept;
        if (upload.keeps && PyDict_Size(self->kept) >= MOST_KEPT)
            return 0;
    }
    if (!name_upload(self, name, upload.key, upload.keeps))
        return 0;
    Py_BEGIN_ALLOW_THREADS
    replaced = publish(self, &upload, &is_made);
    Py_END_ALLOW_THREADS
    if (replaced < 0)
        return is_made ? prune(self, key) : 0;
    if (upload.keeps && keep(self, key, name, replaced) < 0)
        return -1;
    PyObject *const *parts = replaced ? template->replaced : template->created;
    size_t used = append(head, 0, parts[0]);
    memcpy(head + used, http_date(self), DATE_BYTES);
    used = append(head, used + DATE_BYTES, parts[1]);
    memcpy(head + used, id, ID_TEXT);
    used = append(head, used + ID_TEXT, parts[2]);
    Py_ssize_t sent = send_reply(self, socket, head, used, "", 0);
    if (sent < 0)
        return -1;
    self->status = replaced ? template->replaced_status : template->created_status;
    self->body_bytes = upload.length;
    self->moved_bytes = request->size + sent;
    self->seconds = now() - request->began;
    count(self, request->size, sent);
    return 1;
}
