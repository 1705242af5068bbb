/*
 * Finds the key in a request target that needs no closer look, as kvd.http.wire.targets
 * says.
 */

#include "fast_path.h"

#define MAX_SEGMENT_BYTES 200

/*
 * Whether a byte may stand in a segment of such a target. What this leaves out, the
 * percent sign above all, is not wrong, only unusual.
 */
static int
is_usual(unsigned char byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z')
        || (byte >= '0' && byte <= '9')
        || (byte != 0 && strchr("_~!$&'()*+,;=:@.-", byte) != NULL);
}

/* How long the key is that stands up to a space or the end; 0: Python should look at it. */
Py_ssize_t
plain_key_bytes(const char *text, const char *end)
{
    const char *at = text, *segment = text;
    for (; at < end && *at != ' '; at++) {
        if (*at == '/') {
            if (at == segment || at - segment > MAX_SEGMENT_BYTES)
                return 0;
            segment = at + 1;
        } else if (!is_usual((unsigned char)*at)
                   || (at == segment && *at == '.'))
            return 0;
    }
    if (at == segment || at - segment > MAX_SEGMENT_BYTES || at - text > MAX_KEY_BYTES)
        return 0;
    return at - text;
}

PyObject *
plain_key(PyObject *Py_UNUSED(module), PyObject *target)
{
    char *text;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(target, &text, &size) < 0)
        return NULL;
    if (size == 0 || text[0] != '/' || plain_key_bytes(text + 1, text + size) != size - 1
        || size == 1)
        Py_RETURN_NONE;
    return PyBytes_FromStringAndSize(text + 1, size - 1);
}
