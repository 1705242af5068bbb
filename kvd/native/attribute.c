/*
 * The attribute and the date of a value's file. kvd.store.attribute says what is in it, and
 * calls what reads and writes its first line.
 */

#include "fast_path.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

/* From Linux 6.13, newer than many headers. The number is the same except on alpha. */
#define SYS_GETXATTRAT 464

static const char ATTRIBUTE_NAME[] = "user.kvd";

/* A time from 1970 on, in microseconds. */
static unsigned long long
microseconds(struct timespec time)
{
    return (unsigned long long)time.tv_sec * 1000000ULL
        + (unsigned long long)time.tv_nsec / 1000;
}

/* Write the first line of an attribute. Returns its length, below ATTRIBUTE_LINE_BYTES. */
static size_t
first_line(char *line, const char *id, unsigned long long size,
           unsigned long long published_us)
{
    char digits[20], *end = digits + sizeof digits, *at;
    size_t used = 2 + ID_TEXT;
    memcpy(line, "2 ", 2);
    memcpy(line + 2, id, ID_TEXT);
    line[used++] = ' ';
    at = write_digits(end, size);
    memcpy(line + used, at, (size_t)(end - at));
    used += (size_t)(end - at);
    line[used++] = ' ';
    at = write_digits(end, published_us / 1000000);
    memcpy(line + used, at, (size_t)(end - at));
    used += (size_t)(end - at);
    /* With a leading 1, so that leading zeros stay. */
    at = write_digits(end, 1000000 + published_us % 1000000);
    *at = '.';
    memcpy(line + used, at, (size_t)(end - at));
    used += (size_t)(end - at);
    line[used++] = '\n';
    return used;
}

#define SIZE_DIGITS 19
#define SECOND_DIGITS 12
#define FRACTION_DIGITS 6

/* The first line of an attribute. */
typedef struct {
    int version;
    const char *id;
    unsigned long long size, published_us;      /* the date only from version 2 on */
} FirstLine;

/*
 * Read digits up to another byte, in their only form: without leading zeros, but for a
 * number of `exactly` so many digits. Returns where they end; NULL if there are none, or
 * more than `most`.
 */
static const char *
read_digits(const char *at, const char *end, int most, int exactly,
            unsigned long long *number)
{
    const char *start = at;
    *number = 0;
    for (; at < end && *at >= '0' && *at <= '9'; at++) {
        if (at - start == most)
            return NULL;
        *number = 10 * *number + (unsigned long long)(*at - '0');
    }
    if (exactly)
        return at - start == exactly ? at : NULL;
    return at == start || (*start == '0' && at > start + 1) ? NULL : at;
}

/* Read the first line of an attribute. Returns its length; 0 if kvd writes no such line. */
static size_t
read_first_line(const char *text, size_t size, FirstLine *line)
{
    const char *at = text + 2 + ID_TEXT, *end = text + size;
    unsigned long long seconds, fraction;
    if (size <= 2 + ID_TEXT || (*text != '1' && *text != '2') || text[1] != ' ')
        return 0;
    for (line->id = text + 2; line->id < at; line->id++)
        if (!((*line->id >= '0' && *line->id <= '9')
              || (*line->id >= 'a' && *line->id <= 'f')))
            return 0;
    line->version = *text - '0';
    line->id = text + 2;
    if (*at != ' '
        || (at = read_digits(at + 1, end, SIZE_DIGITS, 0, &line->size)) == NULL)
        return 0;
    line->published_us = 0;
    if (line->version > 1) {
        if (at == end || *at != ' '
            || (at = read_digits(at + 1, end, SECOND_DIGITS, 0, &seconds)) == NULL
            || at == end || *at != '.'
            || (at = read_digits(at + 1, end, FRACTION_DIGITS, FRACTION_DIGITS, &fraction))
                == NULL)
            return 0;
        line->published_us = seconds * 1000000 + fraction;
    }
    return at < end && *at == '\n' ? (size_t)(at + 1 - text) : 0;
}

/*
 * Whether the time of a file is the one in its attribute, to the precision of the file
 * system or of the archive that the file came from.
 */
static int
is_dated(unsigned long long published_us, long long second, long nanosecond)
{
    return second >= 0 && (unsigned long long)second == published_us / 1000000
        && (nanosecond == 0
            || (unsigned long long)nanosecond == published_us % 1000000 * 1000);
}

PyObject *
write_line(PyObject *Py_UNUSED(module), PyObject *args)
{
    const char *id;
    char line[ATTRIBUTE_LINE_BYTES];
    Py_ssize_t id_bytes;
    PyObject *size, *published_us;
    if (!PyArg_ParseTuple(args, "s#OO:write_line", &id, &id_bytes, &size, &published_us))
        return NULL;
    if (id_bytes != ID_TEXT)
        return PyErr_Format(PyExc_ValueError, "an id of %zd digits; one has %d", id_bytes,
                            ID_TEXT);
    unsigned long long bytes = PyLong_AsUnsignedLongLong(size);
    if (PyErr_Occurred())
        return NULL;
    unsigned long long date = PyLong_AsUnsignedLongLong(published_us);
    if (PyErr_Occurred())
        return NULL;
    return PyBytes_FromStringAndSize(line, (Py_ssize_t)first_line(line, id, bytes, date));
}

PyObject *
read_line(PyObject *Py_UNUSED(module), PyObject *attribute)
{
    char *text;
    Py_ssize_t size;
    FirstLine line;
    if (PyBytes_AsStringAndSize(attribute, &text, &size) < 0)
        return NULL;
    size_t bytes = read_first_line(text, (size_t)size, &line);
    if (bytes == 0)
        Py_RETURN_NONE;
    if (line.version == 1)
        return Py_BuildValue("(s#KOn)", line.id, (Py_ssize_t)ID_TEXT, line.size, Py_None,
                             (Py_ssize_t)bytes);
    return Py_BuildValue("(s#KKn)", line.id, (Py_ssize_t)ID_TEXT, line.size,
                         line.published_us, (Py_ssize_t)bytes);
}

PyObject *
has_date(PyObject *Py_UNUSED(module), PyObject *args)
{
    unsigned long long published_us;
    PyObject *changed_ns;
    if (!PyArg_ParseTuple(args, "KO:has_date", &published_us, &changed_ns))
        return NULL;
    int is_beyond;
    long long changed = PyLong_AsLongLongAndOverflow(changed_ns, &is_beyond);
    if (changed == -1 && PyErr_Occurred())
        return NULL;
    if (!is_beyond)
        return PyBool_FromLong(changed >= 0 && is_dated(published_us, changed / 1000000000,
                                                        (long)(changed % 1000000000)));
    /* Beyond the year 2262. */
    PyObject *in_second = PyLong_FromLong(1000000000);
    PyObject *parts = in_second == NULL ? NULL : PyNumber_Divmod(changed_ns, in_second);
    Py_XDECREF(in_second);
    if (parts == NULL)
        return NULL;
    long long second
        = PyLong_AsLongLongAndOverflow(PyTuple_GetItem(parts, 0), &is_beyond);
    long nanosecond = PyLong_AsLong(PyTuple_GetItem(parts, 1));
    Py_DECREF(parts);
    return PyErr_Occurred() ? NULL
        : PyBool_FromLong(!is_beyond && is_dated(published_us, second, nanosecond));
}

/*
 * Set the access time of an open file to the present, as kvd.store.reading says. Errors do
 * no harm.
 */
static void
note(int file, int ahead_seconds)
{
    struct timespec times[2] = {{0, 0}, {0, UTIME_OMIT}};
    clock_gettime(CLOCK_REALTIME_COARSE, &times[0]);
    times[0].tv_sec += ahead_seconds;
    times[0].tv_nsec = 0;
    (void)futimens(file, times);
}

PyObject *
note_read(PyObject *Py_UNUSED(module), PyObject *args)
{
    int ahead_seconds, file;
    if (!PyArg_ParseTuple(args, "ii:note_read", &ahead_seconds, &file))
        return NULL;
    note(file, ahead_seconds);
    Py_RETURN_NONE;
}

/* Note that a client reads a value, unless that was noted not long ago. */
void
note_if_stale(const FastPath *self, int file, const struct stat *status)
{
    struct timespec now;
    long long resolution = self->usage == NULL ? 0 : read_resolution(self->usage);
    if (resolution == 0)
        return;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    if (status->st_atim.tv_sec + resolution < now.tv_sec)
        note(file, self->ahead_seconds);
}

/* Read the attribute of an open file. */
ssize_t
get_attribute(int file, char *text, size_t size)
{
    return fgetxattr(file, ATTRIBUTE_NAME, text, size);
}

/* Open a file by its name, not following links, and read its attribute and status. */
static ssize_t
read_opened(const FastPath *self, int folder, const char *name, char *text, size_t size,
            struct stat *status)
{
    int file = openat(folder, name,
                      O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (file < 0)
        return -1;
    ssize_t got = get_attribute(file, text, size);
    int reason = errno;
    if (got >= 0 && (fstat(file, status) < 0 || !is_written(self, file, status))) {
        got = -1;
        reason = EIO;
    }
    close(file);
    errno = reason;
    return got;
}

/*
 * Read the attribute and status of a name, not following links. Since Linux 6.13 this
 * takes no open file, unless the file system reports what was never written.
 */
static ssize_t
read_name(const FastPath *self, int folder, const char *name, char *text, size_t size,
          struct stat *status)
{
    static int is_missing = 0;
    if (is_missing || self->finds_unwritten)
        return read_opened(self, folder, name, text, size, status);
    struct {
        uint64_t value;
        uint32_t size, flags;
    } where = {(uintptr_t)text, (uint32_t)size, 0};
    long got = syscall(SYS_GETXATTRAT, folder, name, AT_SYMLINK_NOFOLLOW, ATTRIBUTE_NAME,
                       &where, sizeof where);
    /* EPERM: from a filter of system calls that is older than this one. */
    if (got < 0 && (errno == ENOSYS || errno == EPERM)) {
        is_missing = 1;
        return read_opened(self, folder, name, text, size, status);
    }
    if (got >= 0 && fstatat(folder, name, status, AT_SYMLINK_NOFOLLOW) < 0) {
        errno = EIO;
        return -1;
    }
    return got;
}

/*
 * Whether the lines of an attribute behind its first are as kvd.store.attribute
 * writes them.
 */
static int
is_metadata(const char *at, const char *end)
{
    while (at < end) {
        const char *line = memchr(at, '\n', (size_t)(end - at));
        if (line == NULL)
            return 0;
        const char *colon = memchr(at, ':', (size_t)(line - at));
        if (colon == NULL || colon == at || colon[1] != ' ')
            return 0;
        /* Python checks other bytes. */
        for (const char *each = colon + 2; each < line; each++)
            if (*each < ' ' || *each > '~')
                return 0;
        at = line + 1;
    }
    return 1;
}

/*
 * Whether an attribute describes a file as a whole value that kvd has written and no other
 * program has changed. Returns the length of its first line, which begins with a version
 * and the id, and the date of its publication; 0 for anything else.
 */
size_t
whole_line(const FastPath *self, const char *text, ssize_t size,
           const struct stat *status, unsigned long long *published_us)
{
    FirstLine line = {0};
    if (!S_ISREG(status->st_mode) || size < 0
        || status->st_mtim.tv_sec > self->latest_second)
        return 0;
    size_t bytes = read_first_line(text, (size_t)size, &line);
    *published_us = line.published_us;
    return bytes != 0 && line.version == 2
        && line.size == (unsigned long long)status->st_size
        && is_dated(line.published_us, status->st_mtim.tv_sec, status->st_mtim.tv_nsec)
        ? bytes : 0;
}

/*
 * Whether a name has a whole value that kvd has written and no other program has changed.
 * Returns 1, with the time and epoch of its publication and its size; 0 if there is no such
 * name; -1 for anything else.
 */
int
has_value(const FastPath *self, int folder, const char *name,
          unsigned long long *published_us, long *epoch, unsigned long long *bytes)
{
    char text[ATTRIBUTE_BYTES];
    struct stat status;
    ssize_t size = read_name(self, folder, name, text, sizeof text, &status);
    if (size < 0)
        return errno == ENOENT ? 0 : -1;
    size_t line = whole_line(self, text, size, &status, published_us);
    if (line == 0 || !is_metadata(text + line, text + size))
        return -1;
    *epoch = status.st_atim.tv_sec == status.st_mtim.tv_sec + self->ahead_seconds
        ? status.st_atim.tv_nsec : 0;
    *bytes = (unsigned long long)status.st_size;
    return 1;
}

/*
 * Give a written file its attribute, its epoch and its date, in microseconds: that of the
 * present, but not earlier than that of the value before it.
 */
int
seal(const FastPath *self, int file, const Upload *upload, unsigned long long earliest_us,
     long epoch, unsigned long long *sealed_us)
{
    PyObject *lines = upload->lines;
    char text[ATTRIBUTE_BYTES];
    struct timespec times[2];
    clock_gettime(CLOCK_REALTIME, &times[1]);
    unsigned long long published_us = microseconds(times[1]);
    if (published_us < earliest_us)
        published_us = earliest_us;
    size_t size = first_line(text, upload->id, (unsigned long long)upload->length,
                             published_us);
    memcpy(text + size, PyBytes_AsString(lines), (size_t)PyBytes_Size(lines));
    size += (size_t)PyBytes_Size(lines);
    times[1].tv_sec = (time_t)(published_us / 1000000);
    times[1].tv_nsec = (long)(published_us % 1000000) * 1000;
    times[0] = times[1];
    if (epoch) {
        times[0].tv_sec += self->ahead_seconds;
        times[0].tv_nsec = epoch;
    }
    *sealed_us = published_us;
    return fsetxattr(file, ATTRIBUTE_NAME, text, size, 0) < 0 ? -1
        : futimens(file, times);
}
