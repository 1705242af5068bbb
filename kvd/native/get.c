/*
 * GET and HEAD: sends a value from memory, or after reading it, or from its file; or
 * replies that there is none.
 *
 * Sending from a file takes one more system call than reading and sending, but copies
 * nothing. On tmpfs this costs 0.7 us more for 100 bytes, the same for 1,000, 1.1 us less
 * for 4 KiB, and a third less for 20 KB.
 */

#include "fast_path.h"

#include <unistd.h>

/*
 * Send a whole reply. Returns 1; -1 with an exception.
 */
static int
send_whole(FastPath *self, int socket, HeadTemplate *template, int status, char *head,
           size_t head_bytes, char *body, size_t body_bytes, Py_ssize_t received,
           double began)
{
    if (template->is_head)
        body_bytes = 0;
    Py_ssize_t sent = send_reply(self, socket, head, head_bytes, body, body_bytes);
    if (sent < 0)
        return -1;
    self->status = status;
    self->body_bytes = (Py_ssize_t)body_bytes;
    self->moved_bytes = received + sent;
    self->seconds = now() - began;
    count(self, received, sent);
    return 1;
}

/* There is no value. Returns as `serve_get`. */
static int
serve_missing(FastPath *self, int socket, HeadTemplate *template, PyObject *key,
              Py_ssize_t received, double began)
{
    char head[HEAD_ROOM], body[HEAD_ROOM], digits[20], *end = digits + sizeof digits;
    if (template->missing[0] == NULL)
        return 0;
    /* The body names the key. Python replies if that needs escaping. */
    if (strspn(PyBytes_AsString(key), self->plain) != (size_t)PyBytes_Size(key))
        return 0;
    size_t body_bytes = append(body, 0, template->missing[2]);
    body_bytes = append(body, body_bytes, key);
    body_bytes = append(body, body_bytes, template->missing[3]);
    const char *size = write_digits(end, body_bytes);
    size_t used = append(head, 0, template->missing[0]);
    used = append_text(head, used, http_date(self), DATE_BYTES);
    used = append(head, used, template->missing[1]);
    used = append_text(head, used, size, (size_t)(end - size));
    used = append(head, used, template->tail);
    if (used > HEAD_ROOM || body_bytes > HEAD_ROOM)
        return 0;
    return send_whole(self, socket, template, 404, head, used, body, body_bytes,
                      received, began);
}

/* A value in memory. Returns as `serve_get`. */
static int
serve_recent(FastPath *self, int socket, HeadTemplate *template,
             const Varying *varying, RecentValue *recent, const Hit *hit,
             Py_ssize_t received, double began)
{
    char head[HEAD_ROOM];
    Selection selected;
    Value value = recent->value;
    if (hit != NULL)
        describe_hit(hit, &value);
    if (!select_part(template, varying, &value, &selected))
        return 0;
    size_t used = value_head(self, head, &value, &selected, template->tail);
    if (used > HEAD_ROOM)
        return 0;
    return send_whole(self, socket, template, selected.status, head, used,
                      PyBytes_AsString(recent->body) + selected.first,
                      (size_t)selected.bytes, received, began);
}

/* Read and send a value: a small part of it, or a value that is kept in memory from now
   on. Returns as `serve_get`. */
static int
serve_read(FastPath *self, int socket, HeadTemplate *template, PyObject *key,
           Value *value, const Selection *selected, char *head, size_t head_bytes,
           int keeps, Py_ssize_t received, double began)
{
    char room[READ_BYTES], *body = room;
    size_t first = keeps ? 0 : (size_t)selected->first;
    size_t bytes = keeps ? (size_t)value->size : (size_t)selected->bytes;
    PyObject *kept = NULL;
    ssize_t got;
    if (keeps) {
        kept = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)bytes);
        if (kept == NULL)
            return -1;
        body = PyBytes_AsString(kept);
    }
    Py_BEGIN_ALLOW_THREADS
    got = pread(value->file, body, bytes, (off_t)first);
    Py_END_ALLOW_THREADS
    int served = 0;
    /* Another program may be truncating it. */
    if (got >= 0 && (size_t)got == bytes)
        served = send_whole(self, socket, template, selected->status, head, head_bytes,
                            body + (selected->first - first), (size_t)selected->bytes,
                            received, began);
    if (served > 0 && keeps && keep_recent(self, key, value, kept) < 0)
        served = -1;
    Py_XDECREF(kept);
    return served;
}

/* Send a value whose file is open; the caller closes the file if it stays open. Returns
   as `serve_get`. */
static int
serve_opened(FastPath *self, int socket, HeadTemplate *template,
             const Varying *varying, PyObject *key, Value *value, Py_ssize_t received,
             double began)
{
    char head[HEAD_ROOM];
    Selection selected;
    if (!select_part(template, varying, value, &selected))
        return 0;
    size_t used = value_head(self, head, value, &selected, template->tail);
    if (used > HEAD_ROOM)
        return 0;
    /* A value that is requested again is kept, even if the reply is 304. */
    int keeps = !template->is_head && was_read(self, key, value);
    if (template->is_head || (selected.bytes == 0 && !keeps))
        return send_whole(self, socket, template, selected.status, head, used, "", 0,
                          received, began);
    if (keeps || selected.bytes <= READ_BYTES)
        return serve_read(self, socket, template, key, value, &selected, head, used,
                          keeps, received, began);
    self->status = selected.status;
    return send_file(self, socket, value, &selected, head, used, received, began);
}

/* Serve the file of a name: the value of a key or, with a hit, one of the cache. Returns as
   `serve_get`. */
static int
serve_name(FastPath *self, int socket, HeadTemplate *template, const Varying *varying,
           PyObject *name, const Hit *hit, Py_ssize_t received, double began)
{
    RecentValue *recent = find_recent(self, name);
    int served;
    if (recent != NULL) {
        served = serve_recent(self, socket, template, varying, recent, hit, received,
                              began);
        Py_DECREF((PyObject *)recent);
        return served;
    }
    if (PyErr_Occurred())
        return -1;
    const char *path = PyBytes_AsString(name);
    Value value;
    Attribute attribute;
    int found;
    Py_BEGIN_ALLOW_THREADS
    found = open_value(self, path, &value, &attribute);
    Py_END_ALLOW_THREADS
    if (found == ABSENT && hit == NULL)
        return serve_missing(self, socket, template, name, received, began);
    if (found != FOUND)
        return 0;
    if (hit == NULL)
        served = find_parts(self, &value, &attribute, name);
    else if ((served = is_of_hit(hit, &value))) {
        describe_hit(hit, &value);
        Py_INCREF(value.parts);
    }
    if (served > 0)
        served = serve_opened(self, socket, template, varying, name, &value, received,
                              began);
    Py_XDECREF(value.parts);
    if (value.file >= 0) {
        Py_BEGIN_ALLOW_THREADS
        close(value.file);
        Py_END_ALLOW_THREADS
    }
    return served;
}

/*
 * Returns 1 if the request was served, 0 if it is left to Python, -1 with an exception.
 */
int
serve_get(FastPath *self, int socket, HeadTemplate *template, const Varying *varying,
          PyObject *key, Py_ssize_t received, double began)
{
    if (self->hits == NULL)
        return serve_name(self, socket, template, varying, key, NULL, received, began);
    Hit *hit = find_hit(self, key);
    if (hit == NULL)
        return PyErr_Occurred() ? -1 : 0;
    int served = serve_name(self, socket, template, varying, hit->name, hit, received,
                            began);
    if (self->rest_file >= 0)
        self->hit_info = Py_NewRef(hit->info);
    Py_DECREF((PyObject *)hit);
    return served;
}
