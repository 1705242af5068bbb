/*
 * Parses the fields of a request that refer to a value: entity tags, dates and ranges.
 * Python uses it too (kvd.http.wire.fields).
 */

#include "fast_path.h"

/* Numbers with more digits are all equal: no value is that large. */
#define MOST_DIGITS 19

static const char DAY_NAMES[] = "SunMonTueWedThuFriSat";
static const char MONTH_NAMES[] = "JanFebMarAprMayJunJulAugSepOctNovDec";

/*
 * Find the next entity tag of a list. Returns 1, with the tag without its quotes; 0 at the
 * end of the list; -1 if it is malformed (RFC 9110 section 8.8.3, with empty elements).
 *
 * at: where the last one ended, which is moved on; NULL before the first one.
 */
static int
next_tag(const Text *list, const char **at, Text *tag, int *is_weak)
{
    const char *next = *at, *end = list->start + list->size;
    int is_first = next == NULL, is_apart = is_first;
    if (is_first)
        next = list->start;
    for (; next < end && (*next == ' ' || *next == '\t' || *next == ','); next++)
        is_apart |= *next == ',';
    if (next == end)
        return is_first ? -1 : 0;
    *is_weak = end - next > 2 && next[0] == 'W' && next[1] == '/';
    if (*is_weak)
        next += 2;
    if (!is_apart || *next != '"')
        return -1;
    tag->start = ++next;
    for (; next < end && *next != '"'; next++)
        if ((unsigned char)*next <= ' ' || *next == 0x7f)
            return -1;
    if (next == end)
        return -1;
    tag->size = next - tag->start;
    *at = next + 1;
    return 1;
}

static int
is_any(const Text *list)
{
    return list->size == 1 && *list->start == '*';
}

/*
 * Whether a list of entity tags contains a tag: MATCHES_STRONGLY, MATCHES_WEAKLY, both, or
 * 0; -1 if it is not a list.
 */
int
match_tags(const Text *list, const char *etag, Py_ssize_t etag_bytes)
{
    const char *at = NULL;
    Text tag;
    int found = 0, is_weak, more;
    if (is_any(list))
        return MATCHES_STRONGLY | MATCHES_WEAKLY;
    while ((more = next_tag(list, &at, &tag, &is_weak)) > 0)
        if (tag.size == etag_bytes
            && memcmp(tag.start, etag, (size_t)etag_bytes) == 0)
            found |= is_weak ? MATCHES_WEAKLY : MATCHES_STRONGLY | MATCHES_WEAKLY;
    return more < 0 ? -1 : found;
}

static int
number_of(const char *digits, int count)
{
    int number = 0;
    for (int i = 0; i < count; i++) {
        if (digits[i] < '0' || digits[i] > '9')
            return -1;
        number = 10 * number + (digits[i] - '0');
    }
    return number;
}

/* The index of a name of three letters in a list of names; -1 if it is not there. */
static int
place_of(const char *name, const char *names)
{
    for (int i = 0; names[3 * i]; i++)
        if (memcmp(name, names + 3 * i, 3) == 0)
            return i;
    return -1;
}

/* Days from 1970 to a day of the Gregorian calendar; March is month 0. */
static long long
days_to(int year, int month, int day)
{
    long long years = month >= 10 ? year - 1 : year;
    return 365 * years + years / 4 - years / 100 + years / 400
        + (153 * month + 2) / 5 + day - 1 - 719468;
}

/*
 * Read a date in the format that all senders have to use (RFC 9110 section 5.6.7). Returns
 * whether it is one.
 */
int
read_date(const Text *text, long long *second)
{
    static const char FORM[DATE_BYTES + 1] = "xxx, 00 xxx 0000 00:00:00 GMT";
    static const int DAYS[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    const char *date = text->start;
    if (text->size != DATE_BYTES)
        return 0;
    for (int i = 0; i < DATE_BYTES; i++)
        if (FORM[i] != 'x' && FORM[i] != '0' && FORM[i] != date[i])
            return 0;
    int day = number_of(date + 5, 2), month = place_of(date + 8, MONTH_NAMES);
    int year = number_of(date + 12, 4), hour = number_of(date + 17, 2);
    int minute = number_of(date + 20, 2), seconds = number_of(date + 23, 2);
    if (place_of(date, DAY_NAMES) < 0 || month < 0 || day < 1 || year < 1 || hour < 0
        || minute < 0 || seconds < 0 || hour > 23 || minute > 59
        || seconds > 60)            /* 60: a leap second */
        return 0;
    int is_leap_year = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    if (day > DAYS[month] + (month == 1 && is_leap_year))
        return 0;
    *second = 86400 * days_to(year, (month + 10) % 12, day) + 3600 * hour + 60 * minute
        + seconds;
    return 1;
}

/*
 * Read digits, if there are any. Returns where they end. A number with too many of them
 * is beyond all values.
 */
static const char *
read_digits(const char *at, const char *end, unsigned long long *number)
{
    *number = 0;
    while (at < end && *at == '0')
        at++;
    for (int i = 0; at < end && *at >= '0' && *at <= '9'; at++, i++)
        *number = i < MOST_DIGITS ? 10 * *number + (unsigned long long)(*at - '0') : ~0ULL;
    return at;
}

/*
 * What part of a value is asked for (RFC 9110 section 14.2): PART, and where it begins
 * and how long it is; BEYOND: nothing of the value; SEVERAL: a list, which Python reads;
 * WHOLE: no range of bytes is asked for, or the condition names another value.
 *
 * A strong comparison (section 13.1.5): a weak tag never matches, nor does a date, since
 * another value may have been published within its second (section 8.8.2.2), and the
 * parts of two would be taken for one.
 */
int
read_range(const Text *asked, const Text *condition, const char *etag,
           Py_ssize_t etag_bytes, unsigned long long size,
           unsigned long long *first, unsigned long long *length)
{
    const char *at = asked->start, *end = at + asked->size;
    unsigned long long begin, last;
    if (condition->start != NULL
        && (condition->size != etag_bytes + 2 || condition->start[0] != '"'
            || memcmp(condition->start + 1, etag, (size_t)etag_bytes) != 0
            || condition->start[etag_bytes + 1] != '"'))
        return WHOLE;
    if (end - at < 7 || memcmp(at, "bytes=", 6) != 0)
        return WHOLE;
    at += 6;
    if (memchr(at, ',', (size_t)(end - at)) != NULL)
        return SEVERAL;
    for (; at < end && (*at == ' ' || *at == '\t'); at++)
        ;
    const char *dash = read_digits(at, end, &begin);
    if (dash == end || *dash != '-')
        return WHOLE;
    const char *behind = read_digits(dash + 1, end, &last);
    int has_begin = dash > at, has_last = behind > dash + 1;
    for (at = behind; at < end; at++)
        if (*at != ' ' && *at != '\t')
            return WHOLE;
    if (!has_begin && !has_last)
        return WHOLE;
    if (!has_begin) {
        *length = Py_MIN(last, size);
        *first = size - *length;
        return *length ? PART : BEYOND;
    }
    if (has_last && last < begin)
        return WHOLE;
    if (begin >= size)
        return BEYOND;
    *first = begin;
    *length = (has_last ? Py_MIN(last, size - 1) : size - 1) - begin + 1;
    return PART;
}

/* For Python: the strong tags and the weak ones; None if it is not a list. */
PyObject *
entity_tags(PyObject *Py_UNUSED(module), PyObject *argument)
{
    Text list, tag;
    char *start;
    const char *at = NULL;
    int is_weak, more;
    if (PyBytes_AsStringAndSize(argument, &start, &list.size) < 0)
        return NULL;
    list.start = start;
    PyObject *found[2] = {PyList_New(0), PyList_New(0)}, *made = NULL;
    if (found[0] == NULL || found[1] == NULL)
        goto end;
    while ((more = next_tag(&list, &at, &tag, &is_weak)) > 0) {
        PyObject *text = PyUnicode_DecodeLatin1(tag.start, tag.size, NULL);
        if (text == NULL)
            goto end;
        int added = PyList_Append(found[is_weak], text);
        Py_DECREF(text);
        if (added < 0)
            goto end;
    }
    made = more < 0 ? Py_NewRef(Py_None) : PyTuple_Pack(2, found[0], found[1]);
end:
    Py_XDECREF(found[0]);
    Py_XDECREF(found[1]);
    return made;
}

/* For Python: the second; None if it is not a date in this format. */
PyObject *
fixed_date(PyObject *Py_UNUSED(module), PyObject *argument)
{
    Text text;
    char *start;
    long long second;
    if (PyBytes_AsStringAndSize(argument, &start, &text.size) < 0)
        return NULL;
    text.start = start;
    if (!read_date(&text, &second))
        Py_RETURN_NONE;
    return PyLong_FromLongLong(second);
}

/* For Python: where the part begins, and its length, 0 for nothing; None for the whole, or
   a list. */
PyObject *
byte_range(PyObject *Py_UNUSED(module), PyObject *args)
{
    Text asked, condition;
    const char *etag;
    Py_ssize_t etag_bytes;
    unsigned long long size, first, length;
    PyObject *number;
    if (!PyArg_ParseTuple(args, "y#z#y#O!:byte_range", &asked.start, &asked.size,
                          &condition.start, &condition.size, &etag, &etag_bytes,
                          &PyLong_Type, &number))
        return NULL;
    size = PyLong_AsUnsignedLongLong(number);
    if (PyErr_Occurred())
        return NULL;
    int found = read_range(&asked, &condition, etag, etag_bytes, size, &first, &length);
    if (found == WHOLE || found == SEVERAL)
        Py_RETURN_NONE;
    return found == PART ? Py_BuildValue("KK", first, length)
                         : Py_BuildValue("Ki", size, 0);
}
