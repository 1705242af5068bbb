/*
 * Selects the reply to a GET by its conditions and its range: the value, a part of it, or
 * 304.
 *
 * Python decides which condition takes precedence: a template has the outcome for each set
 * of conditions that hold (kvd.http.templates).
 */

#include "fast_path.h"

/*
 * Whether a field value has no control bytes, which Python refuses in any field, and no
 * blanks at its end, which Python does not strip from all fields.
 */
static int
is_field_value(const Text *text)
{
    for (Py_ssize_t i = 0; i < text->size; i++) {
        unsigned char byte = (unsigned char)text->start[i];
        if ((byte < ' ' && byte != '\t') || byte == 0x7f)
            return 0;
    }
    return text->size == 0
        || (text->start[text->size - 1] != ' ' && text->start[text->size - 1] != '\t');
}

/* Whether a field is absent or a list of entity tags. */
static int
are_tags(const Text *list)
{
    return list->start == NULL || match_tags(list, "", 0) >= 0;
}

/* Whether a field is absent or a date in the usual format. */
static int
is_date(const Text *text, long long *second)
{
    return text->start == NULL || read_date(text, second);
}

/*
 * Read those varying fields of a head that do not depend on the value. Returns 0 if one of
 * them is malformed or unusual; then no template is made, and Python serves the request.
 */
int
read_varying(Varying *varying)
{
    const Text *texts = varying->texts;
    for (int which = 0; which < VARYING_FIELDS; which++)
        if (!is_field_value(&texts[which]))
            return 0;
    varying->body_bytes = body_length(&texts[CONTENT_LENGTH]);
    return varying->body_bytes >= 0 && are_tags(&texts[IF_MATCH])
        && are_tags(&texts[IF_NONE_MATCH])
        && is_date(&texts[IF_MODIFIED_SINCE], &varying->modified_since)
        && is_date(&texts[IF_UNMODIFIED_SINCE], &varying->unmodified_since);
}

/* Returns the set of conditions that hold, as the index of an outcome. */
static size_t
which_hold(const Varying *varying, const Value *value)
{
    const Text *texts = varying->texts;
    size_t holding = 0;
    if (texts[IF_MATCH].start != NULL
        && match_tags(&texts[IF_MATCH], value->id, ID_TEXT) & MATCHES_STRONGLY)
        holding |= 8;
    if (texts[IF_NONE_MATCH].start != NULL
        && match_tags(&texts[IF_NONE_MATCH], value->id, ID_TEXT) & MATCHES_WEAKLY)
        holding |= 4;
    if (texts[IF_MODIFIED_SINCE].start != NULL
        && value->published <= varying->modified_since)
        holding |= 2;
    if (texts[IF_UNMODIFIED_SINCE].start != NULL
        && value->published <= varying->unmodified_since)
        holding |= 1;
    return holding;
}

/*
 * Select the reply to a GET. Returns 0 if it is Python's: an error, or several parts.
 */
int
select_part(const HeadTemplate *template, const Varying *varying, const Value *value,
            Selection *selected)
{
    const Text *range = &varying->texts[RANGE];
    selected->status = template->outcomes[which_hold(varying, value)];
    selected->first = 0;
    selected->bytes = selected->status == 200 ? value->size : 0;
    if (selected->status != 200 || !template->has_ranges || range->start == NULL)
        return selected->status;
    int found = read_range(range, &varying->texts[IF_RANGE], value->id, ID_TEXT,
                           value->size, &selected->first, &selected->bytes);
    if (found == PART)
        selected->status = 206;
    return found == PART || found == WHOLE;
}
