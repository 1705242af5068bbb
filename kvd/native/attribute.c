/*
 * The attribute and the date of a value's file. kvd.store.attribute says what is in it, and
 * calls what reads and writes its first line, reads its metadata, and says what a file is.
 */

#include "fast_path.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

/* From Linux 6.13, newer than many headers. The number is the same except on alpha. */
#define SYS_GETXATTRAT 464

static const char ATTRIBUTE_NAME[] = "user.kvd";

/* The present, in microseconds since 1970. */
unsigned long long
present_us(void)
{
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
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

static int
is_small_or_digit(char byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9');
}

/* Whether all bytes up to an end, and one at least, are small letters, digits, or others
   of these. */
static int
are_of_name(const char *at, const char *end, const char *others)
{
    if (at == end)
        return 0;
    for (; at < end; at++)
        if (!is_small_or_digit(*at) && (*at == 0 || strchr(others, *at) == NULL))
            return 0;
    return 1;
}

/*
 * Whether metadata may have a name, as kvd.model.values says.
 *
 * fields: names of fields that describe a representation, each with a line end.
 */
static int
is_metadata_name(const Text *fields, const char *name, const char *end)
{
    const char *last = fields->start + fields->size, *at = fields->start, *line;
    for (; (line = memchr(at, '\n', (size_t)(last - at))) != NULL; at = line + 1)
        if (line - at == end - name && memcmp(at, name, (size_t)(end - name)) == 0)
            return 1;
    if (end - name >= 2 && name[0] == 'x' && name[1] == '-')
        return are_of_name(name + 2, end, "!#$%&'*+.^_`|~-");
    const char *dot = memchr(name, '.', (size_t)(end - name));
    return dot != NULL && *name >= 'a' && *name <= 'z' && are_of_name(name, dot, "")
        && are_of_name(dot + 1, end, "._-");
}

/* Whether a field may have a value (RFC 9110 section 5.5), in UTF-8; replies are in
   Latin-1. */
static int
is_field_value(const char *at, const char *end)
{
    for (; at < end; at++) {
        unsigned char byte = (unsigned char)*at;
        if ((byte >= ' ' && byte <= '~') || byte == '\t')
            continue;
        /* U+0080 to U+00FF. */
        if ((byte != 0xC2 && byte != 0xC3) || ++at == end
            || ((unsigned char)*at & 0xC0) != 0x80)
            return 0;
    }
    return 1;
}

/* Read the line of metadata that begins at `*at`, and go on behind it. Returns 0 if kvd
   writes no such line. */
static int
read_field(const Text *fields, const char **at, const char *end, Text *name, Text *value)
{
    const char *line = memchr(*at, '\n', (size_t)(end - *at));
    if (line == NULL)
        return 0;
    const char *colon = memchr(*at, ':', (size_t)(line - *at));
    if (colon == NULL || colon[1] != ' ' || !is_metadata_name(fields, *at, colon)
        || !is_field_value(colon + 2, line))
        return 0;
    *name = (Text){*at, colon - *at};
    *value = (Text){colon + 2, line - colon - 2};
    *at = line + 1;
    return 1;
}

/* Whether kvd writes such lines behind the first one of an attribute. */
static int
are_metadata(const Text *fields, const char *at, const char *end)
{
    Text name, value;
    while (at < end)
        if (!read_field(fields, &at, end, &name, &value))
            return 0;
    return 1;
}

static int
add_field(PyObject *metadata, const Text *name, const Text *value)
{
    PyObject *key = PyUnicode_FromStringAndSize(name->start, name->size);
    PyObject *text = PyUnicode_FromStringAndSize(value->start, value->size);
    int done = key == NULL || text == NULL ? -1 : PyDict_SetItem(metadata, key, text);
    Py_XDECREF(key);
    Py_XDECREF(text);
    return done;
}

PyObject *
read_metadata(PyObject *Py_UNUSED(module), PyObject *args)
{
    Text fields, lines, name, value;
    if (!PyArg_ParseTuple(args, "y#y#:read_metadata", &fields.start, &fields.size,
                          &lines.start, &lines.size))
        return NULL;
    PyObject *metadata = PyDict_New();
    const char *at = lines.start, *end = at + lines.size;
    while (metadata != NULL && at < end) {
        if (!read_field(&fields, &at, end, &name, &value)) {
            Py_DECREF(metadata);
            Py_RETURN_NONE;
        }
        if (add_field(metadata, &name, &value) < 0)
            Py_CLEAR(metadata);
    }
    return metadata;
}

/* What a file is to kvd; kvd.store.attribute says what each means. */
static int
kind_of(const Text *fields, const Text *attribute, int is_regular, long long size,
        long long second, long nanosecond, FirstLine *line, size_t *line_bytes)
{
    if (!is_regular)
        return NO_VALUE;
    if (attribute->start == NULL
        || (*line_bytes = read_first_line(attribute->start, (size_t)attribute->size, line))
            == 0
        || !are_metadata(fields, attribute->start + *line_bytes,
                         attribute->start + attribute->size)
        || (line->version > 1 && !is_dated(line->published_us, second, nanosecond)))
        return FOREIGN;
    return size >= 0 && line->size == (unsigned long long)size ? OURS : TORN;
}

PyObject *
file_kind(PyObject *Py_UNUSED(module), PyObject *args)
{
    Text fields, attribute;
    unsigned int mode;
    long long size, second;
    long nanosecond;
    FirstLine line;
    size_t line_bytes;
    if (!PyArg_ParseTuple(args, "y#z#ILLl:file_kind", &fields.start, &fields.size,
                          &attribute.start, &attribute.size, &mode, &size, &second,
                          &nanosecond))
        return NULL;
    return PyLong_FromLong(kind_of(&fields, &attribute, S_ISREG(mode), size, second,
                                   nanosecond, &line, &line_bytes));
}

/* Give a file the times of a value, as kvd.store.epochs says. */
static int
stamp(int ahead_seconds, int file, unsigned long long published_us, long epoch)
{
    struct timespec times[2];
    times[1].tv_sec = (time_t)(published_us / 1000000);
    times[1].tv_nsec = (long)(published_us % 1000000) * 1000;
    times[0] = times[1];
    if (epoch) {
        times[0].tv_sec += ahead_seconds;
        times[0].tv_nsec = epoch;
    }
    return futimens(file, times);
}

PyObject *
stamp_file(PyObject *Py_UNUSED(module), PyObject *args)
{
    int ahead_seconds, file;
    unsigned long long published_us;
    long epoch;
    if (!PyArg_ParseTuple(args, "iiKl:stamp", &ahead_seconds, &file, &published_us, &epoch))
        return NULL;
    int done;
    Py_BEGIN_ALLOW_THREADS
    done = stamp(ahead_seconds, file, published_us, epoch);
    Py_END_ALLOW_THREADS
    if (done < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

/* The epoch that a value was stamped with, by its access time; 0 for none. */
static long
epoch_of_stamp(int ahead_seconds, long long second, long nanosecond,
               long long changed_second)
{
    return second - ahead_seconds == changed_second ? nanosecond : 0;
}

PyObject *
stamped_epoch(PyObject *Py_UNUSED(module), PyObject *args)
{
    int ahead_seconds;
    long long second, changed_second;
    long nanosecond;
    if (!PyArg_ParseTuple(args, "iLlL:stamped_epoch", &ahead_seconds, &second, &nanosecond,
                          &changed_second))
        return NULL;
    return PyLong_FromLong(epoch_of_stamp(ahead_seconds, second, nanosecond,
                                          changed_second));
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

/* Whether a read of a value is to be noted, as kvd.store.reading says; all in seconds. */
static int
is_stale(long long accessed, long long resolution, long long present)
{
    return resolution != 0 && accessed + resolution < present;
}

PyObject *
is_stale_at(PyObject *Py_UNUSED(module), PyObject *args)
{
    long long accessed, resolution, present;
    if (!PyArg_ParseTuple(args, "LLL:is_stale", &accessed, &resolution, &present))
        return NULL;
    return PyBool_FromLong(is_stale(accessed, resolution, present));
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
    if (is_stale(status->st_atim.tv_sec, resolution, now.tv_sec))
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
    int file = openat(folder, name, self->read_flags);
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
 * Whether an attribute describes a file as a whole value that kvd has written and no other
 * program has changed, with a date of its own. Returns the length of its first line, which
 * begins with a version and the id, and the date of its publication; 0 for anything else.
 */
size_t
whole_line(const FastPath *self, const char *text, ssize_t size,
           const struct stat *status, unsigned long long *published_us)
{
    FirstLine line = {0};
    size_t bytes = 0;
    Text attribute = {size < 0 ? NULL : text, size};
    int kind = kind_of(&self->metadata_fields, &attribute, S_ISREG(status->st_mode),
                       status->st_size, status->st_mtim.tv_sec, status->st_mtim.tv_nsec,
                       &line, &bytes);
    *published_us = line.published_us;
    return kind == OURS && line.version > 1
        && status->st_mtim.tv_sec <= self->latest_second ? bytes : 0;
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
    if (whole_line(self, text, size, &status, published_us) == 0)
        return -1;
    *epoch = epoch_of_stamp(self->ahead_seconds, status.st_atim.tv_sec,
                            status.st_atim.tv_nsec, status.st_mtim.tv_sec);
    *bytes = (unsigned long long)status.st_size;
    return 1;
}

/*
 * Whether what a file was sealed with is still right: it has the epoch, a date of the present
 * second, and none before that of the value before it.
 */
int
is_sealed(const Seal *seal, unsigned long long now_us, unsigned long long earliest_us,
          long epoch)
{
    return seal->sealed_us != 0 && epoch == seal->sealed_epoch
        && seal->sealed_us / 1000000 == now_us / 1000000 && earliest_us <= seal->sealed_us;
}

/*
 * Give a written file its attribute, its epoch and its date: that of the present, but not
 * earlier than that of the value before it. Returns 0; -1 with errno.
 */
int
seal_file(int ahead_seconds, int file, Seal *seal, unsigned long long now_us,
          unsigned long long earliest_us, long epoch)
{
    unsigned long long published_us = Py_MAX(now_us, earliest_us);
    size_t lines = (size_t)seal->lines.size;
    char usual[ATTRIBUTE_BYTES], *text = usual;
    /* What Python seals may have more metadata than a template. */
    if (lines + ATTRIBUTE_LINE_BYTES > sizeof usual
        && (text = malloc(lines + ATTRIBUTE_LINE_BYTES)) == NULL)
        return -1;
    size_t size = first_line(text, seal->id, seal->length, published_us);
    memcpy(text + size, seal->lines.start, lines);
    int done = fsetxattr(file, ATTRIBUTE_NAME, text, size + lines, 0);
    if (done == 0)
        done = stamp(ahead_seconds, file, published_us, epoch);
    int reason = errno;
    if (text != usual)
        free(text);
    errno = reason;
    /* After an error it may be half done. */
    seal->sealed_us = done < 0 ? 0 : published_us;
    seal->sealed_epoch = epoch;
    return done;
}

PyObject *
seal_now(PyObject *Py_UNUSED(module), PyObject *args)
{
    int ahead_seconds, file;
    Py_ssize_t id_bytes;
    unsigned long long now_us, earliest_us;
    long epoch;
    Seal seal;
    if (!PyArg_ParseTuple(args, "iiK(s#Ky#KlKl):seal", &ahead_seconds, &file, &earliest_us,
                          &seal.id, &id_bytes, &seal.length, &seal.lines.start,
                          &seal.lines.size, &seal.sealed_us, &seal.sealed_epoch, &now_us,
                          &epoch))
        return NULL;
    if (id_bytes != ID_TEXT)
        return PyErr_Format(PyExc_ValueError, "an id of %zd digits; one has %d", id_bytes,
                            ID_TEXT);
    int done = 0;
    Py_BEGIN_ALLOW_THREADS
    if (!is_sealed(&seal, now_us, earliest_us, epoch))
        done = seal_file(ahead_seconds, file, &seal, now_us, earliest_us, epoch);
    Py_END_ALLOW_THREADS
    if (done < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return PyLong_FromUnsignedLongLong(seal.sealed_us);
}
