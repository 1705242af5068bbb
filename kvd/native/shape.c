/*
 * The shape of a head is the head without its target and without the values of the fields
 * that differ from request to request. All heads of one shape share one template.
 */

#include "fast_path.h"

static const struct {
    const char *name;           /* with its colon, in lower case */
    size_t size;
} NAMES[VARYING_FIELDS] = {
#define NAMED(text) {text, sizeof text - 1}
    [CONTENT_LENGTH] = NAMED("content-length:"),
    [IF_MATCH] = NAMED("if-match:"),
    [IF_MODIFIED_SINCE] = NAMED("if-modified-since:"),
    [IF_NONE_MATCH] = NAMED("if-none-match:"),
    [IF_RANGE] = NAMED("if-range:"),
    [IF_UNMODIFIED_SINCE] = NAMED("if-unmodified-since:"),
    [RANGE] = NAMED("range:"),
};

/*
 * Which of the varying fields a line is; VARYING_FIELDS for any other. A malformed line,
 * such as one with a line feed in its name, may be mistaken for one of them. But its name
 * is part of the shape, so Python refuses all heads of that shape.
 */
static int
field_of(const char *line, const char *end)
{
    int which;
    if ((*line | 0x20) != 'c' && (*line | 0x20) != 'i' && (*line | 0x20) != 'r')
        return VARYING_FIELDS;
    for (which = 0; which < VARYING_FIELDS; which++) {
        const char *name = NAMES[which].name;
        size_t at = 0, size = NAMES[which].size;
        if ((size_t)(end - line) < size)
            continue;
        while (at < size && (line[at] | 0x20) == name[at])
            at++;
        if (at == size)
            break;
    }
    return which;
}

/*
 * Cut the target and the values of the varying fields out of a head.
 *
 * line: where the target begins; rest: where it ends. Returns the length of the shape; 0
 * for a head that gives one of these fields twice.
 */
Py_ssize_t
cut_head(char *shape, const char *head, Py_ssize_t line, Py_ssize_t rest,
         Py_ssize_t size, Text texts[VARYING_FIELDS])
{
    const char *end = head + size, *from = head + rest, *feed;
    Py_ssize_t used = line;
    memcpy(shape, head, (size_t)line);
    memset(texts, 0, VARYING_FIELDS * sizeof *texts);
    const char *at = (const char *)memchr(from, '\n', (size_t)(end - from)) + 1;
    for (; (feed = memchr(at, '\n', (size_t)(end - at))) != NULL; at = feed + 1) {
        const char *stop = feed > at && feed[-1] == '\r' ? feed - 1 : feed;
        int which = field_of(at, stop);
        if (which == VARYING_FIELDS)
            continue;
        if (texts[which].start != NULL)
            return 0;
        const char *start = at + NAMES[which].size;
        while (start < stop && (*start == ' ' || *start == '\t'))
            start++;
        /* Blanks at the end stay: not all fields may have them. */
        texts[which].start = start;
        texts[which].size = stop - start;
        memcpy(shape + used, from, (size_t)(start - from));
        used += start - from;
        from = stop;
    }
    memcpy(shape + used, from, (size_t)(end - from));
    return used + (end - from);
}

/*
 * The length of the body; -1 if it is malformed or larger than the buffer.
 */
Py_ssize_t
body_length(const Text *given)
{
    const char *at = given->start;
    Py_ssize_t length = 0;
    if (at == NULL)
        return 0;
    const char *end = at + given->size;
    if (at == end)
        return -1;
    for (; at < end; at++) {
        if (*at < '0' || *at > '9' || length > BUFFER_BYTES)
            return -1;
        length = 10 * length + (*at - '0');
    }
    return length;
}
