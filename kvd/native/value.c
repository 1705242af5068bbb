/*
 * Opens the value of a key, as kvd.store.tree and kvd.store.value do, if nothing about its
 * file is unusual.
 */

#include "fast_path.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define MAX_PARTS 256
#define MAX_ENDING_BYTES 16         /* at least as many as kvd.http.guessing looks at */

static unsigned long long
nanoseconds(struct timespec time)
{
    return (unsigned long long)time.tv_sec * 1000000000ULL
        + (unsigned long long)time.tv_nsec;
}

/* Where the first hole of a file begins, as kvd.store.unwritten says; -1 with errno. */
static long long
first_hole_before(int file, long long size)
{
    long long hole = size == 0 ? 0 : lseek(file, 0, SEEK_HOLE);
    return Py_MIN(hole, size);
}

PyObject *
first_hole(PyObject *Py_UNUSED(module), PyObject *args)
{
    int file;
    long long size, hole;
    if (!PyArg_ParseTuple(args, "iL:first_hole", &file, &size))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    hole = first_hole_before(file, size);
    Py_END_ALLOW_THREADS
    return hole < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLongLong(hole);
}

/* Whether no part of a file is unwritten; 0 too if kvd.store.unwritten has to look closer. */
int
is_written(const FastPath *self, int file, const struct stat *status)
{
    return status->st_dev == self->device
        && (!self->finds_unwritten
            || first_hole_before(file, status->st_size) == status->st_size);
}

/*
 * Open the value of a key, if it is a whole value that kvd has written, and read its
 * attribute. May wait for the disk.
 *
 * Returns FOUND, with a file that the caller closes; ABSENT if there is none; UNUSUAL if
 * Python should decide.
 */
int
open_value(FastPath *self, const char *key, Value *value, Attribute *attribute)
{
    int file = open_beneath(self->root, key, self->read_flags);
    if (file < 0)
        return errno == ENOENT || errno == ENOTDIR ? ABSENT : UNUSUAL;
    struct stat status;
    unsigned long long published_us;
    ssize_t bytes;
    if (fstat(file, &status) < 0
        || (bytes = get_attribute(file, attribute->text, sizeof attribute->text)) < 0
        || (attribute->line_bytes = whole_line(self, attribute->text, bytes, &status,
                                                 &published_us)) == 0
        || !is_written(self, file, &status)) {
        close(file);
        return UNUSUAL;
    }
    attribute->bytes = (size_t)bytes;
    value->file = file;
    value->device = (unsigned long long)status.st_dev;
    value->inode = (unsigned long long)status.st_ino;
    value->size = (unsigned long long)status.st_size;
    value->changed_ns = nanoseconds(status.st_mtim);
    value->touched_ns = nanoseconds(status.st_ctim);
    value->published = (time_t)(published_us / 1000000);
    write_date(self, value->published_date, value->published);
    memcpy(value->id, attribute->text + 2, ID_TEXT);
    value->parts = NULL;
    note_if_stale(self, file, &status);
    return FOUND;
}

/* Whether a file is that of a value, and unchanged since it was opened. */
int
is_unchanged(const Value *value, const struct stat *found)
{
    return S_ISREG(found->st_mode)
        && value->device == (unsigned long long)found->st_dev
        && value->inode == (unsigned long long)found->st_ino
        && value->size == (unsigned long long)found->st_size
        && value->changed_ns == nanoseconds(found->st_mtim)
        && value->touched_ns == nanoseconds(found->st_ctim);
}

/* What is inserted between the parts of a reply; see value_head. */
static const struct {
    int status;
    const char *holes;
} REPLIES[] = {
    {200, "diPn"},
    {206, "diPflsn"},
    {304, "diP"},
};
#define REPLY_KINDS (sizeof REPLIES / sizeof *REPLIES)

/* Whether an object is what make_parts gives; see find_parts. */
int
are_parts(PyObject *parts)
{
    if (!PyTuple_CheckExact(parts) || PyTuple_Size(parts) != (Py_ssize_t)REPLY_KINDS)
        return 0;
    for (Py_ssize_t kind = 0; kind < (Py_ssize_t)REPLY_KINDS; kind++) {
        PyObject *one = PyTuple_GetItem(parts, kind);
        Py_ssize_t count = (Py_ssize_t)strlen(REPLIES[kind].holes) + 1;
        if (!PyTuple_CheckExact(one) || PyTuple_Size(one) != count)
            return 0;
        while (count--)
            if (!PyBytes_CheckExact(PyTuple_GetItem(one, count)))
                return 0;
    }
    return 1;
}

/* The end of a key from its last dot on, if its last name has one and it is short. */
static Text
ending_of(const FastPath *self, PyObject *key)
{
    Text ending = {"", 0};
    const char *start = PyBytes_AsString(key), *end = start + PyBytes_Size(key);
    if (!self->guesses)
        return ending;
    for (const char *at = end; at > start && end - at < MAX_ENDING_BYTES; ) {
        if (*--at == '/')
            break;
        if (*at == '.') {
            ending.start = at;
            ending.size = end - at;
            break;
        }
    }
    return ending;
}

/* Ask Python for the parts of a value's replies. */
static PyObject *
make_parts(FastPath *self, const char *lines, Py_ssize_t size, const Text *ending)
{
    PyObject *parts = PyObject_CallFunction(self->make_parts, "y#y#", lines, size,
                                            ending->start, ending->size);
    if (parts != NULL && parts != Py_None && !are_parts(parts)) {
        PyErr_SetString(PyExc_TypeError, "make_parts gave no parts");
        Py_CLEAR(parts);
    }
    return parts;
}

/*
 * Find the parts of a value's replies, which depend on its metadata, and on the end of its
 * key if that says its type: for each status, the text before the date, before the id and
 * so on, and after the last of them. Python makes them (kvd.http.templates).
 *
 * Returns 1; 0 if the request is left to Python; -1 with an exception.
 */
int
find_parts(FastPath *self, Value *value, const Attribute *attribute, PyObject *key)
{
    char text[ATTRIBUTE_BYTES + MAX_ENDING_BYTES];
    size_t size = attribute->bytes - attribute->line_bytes;
    Text ending = ending_of(self, key);
    memcpy(text, attribute->text + attribute->line_bytes, size);
    memcpy(text + size, ending.start, (size_t)ending.size);
    PyObject *lines = PyBytes_FromStringAndSize(text, (Py_ssize_t)size + ending.size);
    if (lines == NULL)
        return -1;
    PyObject *parts = PyDict_GetItemWithError(self->parts, lines);
    if (parts != NULL)
        Py_INCREF(parts);
    else if (!PyErr_Occurred()) {
        parts = make_parts(self, text, (Py_ssize_t)size, &ending);
        if (parts != NULL) {
            if (PyDict_Size(self->parts) >= MAX_PARTS)
                PyDict_Clear(self->parts);
            if (PyDict_SetItem(self->parts, lines, parts) < 0)
                Py_CLEAR(parts);
        }
    }
    Py_DECREF(lines);
    if (parts == NULL)
        return -1;
    if (parts == Py_None) {
        Py_DECREF(parts);
        return 0;
    }
    value->parts = parts;
    return 1;
}

static size_t
append_number(char *head, size_t used, unsigned long long number)
{
    char digits[20], *end = digits + sizeof digits;
    const char *start = write_digits(end, number);
    return append_text(head, used, start, (size_t)(end - start));
}

/*
 * Compose the head of a reply. Returns its length; above HEAD_ROOM if it is too long, or
 * if the value has a date in the future.
 */
size_t
value_head(FastPath *self, char *head, const Value *value, const Selection *selected,
           PyObject *tail)
{
    const char *date = http_date(self), *hole;
    size_t kind = 0, used = 0;
    if (value->published > self->date_second)
        return HEAD_ROOM + 1;
    while (kind < REPLY_KINDS && REPLIES[kind].status != selected->status)
        kind++;
    if (kind == REPLY_KINDS)
        return HEAD_ROOM + 1;
    PyObject *parts = PyTuple_GetItem(value->parts, (Py_ssize_t)kind);
    Py_ssize_t next = 0;
    for (hole = REPLIES[kind].holes; *hole; hole++) {
        used = append(head, used, PyTuple_GetItem(parts, next++));
        switch (*hole) {
        case 'd':
            used = append_text(head, used, date, DATE_BYTES);
            break;
        case 'i':
            used = append_text(head, used, value->id, ID_TEXT);
            break;
        case 'P':
            used = append_text(head, used, value->published_date, DATE_BYTES);
            break;
        case 'f':
            used = append_number(head, used, selected->first);
            break;
        case 'l':
            used = append_number(head, used, selected->first + selected->bytes - 1);
            break;
        case 's':
            used = append_number(head, used, value->size);
            break;
        default:
            used = append_number(head, used, selected->bytes);
        }
    }
    used = append(head, used, PyTuple_GetItem(parts, next));
    return append(head, used, tail);
}
