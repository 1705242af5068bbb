/*
 * The fast path: serves a whole small GET or PUT in one call, if it came in one piece
 * and its head, but for the key, has a template.
 *
 * A template says what such a head means and what the head of its reply looks like.
 * Python makes it, once for each such head (kvd/http/fast_path.py). So nothing is decided
 * here that Python has not decided before for the same bytes. Whatever is not as
 * expected is left to Python, as if nothing had happened: a head without a template, a
 * key of unusual spelling, a second request behind the first, a body that is not
 * complete, a value that has changed, a folder that has to be made, a lock that is
 * held, an error of any kind. So the only error handling here is cleaning up.
 *
 * Only the limited API of Python 3.11 is used: one wheel serves all later versions.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

/* What one call reads at most: a head and the body of a small PUT. */
#define BUFFER_BYTES (64 * 1024)
/* Longer heads are not looked up, so that they do not fill the table. */
#define MAX_HEAD_BYTES 1024
#define MAX_TEMPLATES 256
#define MAX_OFFSETS 4096
#define FOLDERS 16
#define UPLOAD_NAME_BYTES 256       /* with the zero at its end */
#define MOST_KEPT 65536             /* these four as kvd.store.tree */
#define SPARE_SHARE 16
#define SPARE_BYTES (1ULL << 30)
#define SPARE_TIMES 4
#define SLASH '\x1f'                /* as kvd.store.uploads writes a key in a name */
/* A key of up to so many bytes, and a segment of it; longer ones are Python's. */
#define MAX_KEY_BYTES 512
#define MAX_SEGMENT_BYTES 200
#define ID_BYTES 16
#define ID_TEXT (2 * ID_BYTES)
#define ATTRIBUTE_BYTES 1400
#define ATTRIBUTE_LINE_BYTES 80     /* its first line, at most */
#define HEAD_ROOM 1024              /* for the head of a reply */
#define DATE_BYTES 29
#define LATEST_SECOND 253402300799LL    /* 9999-12-31T23:59:59Z, as kvd.store.value */
/*
 * These system calls, of Linux 6.13 and 5.6, are newer than the headers of many systems.
 * Their numbers are the same everywhere but on alpha.
 */
#define SYS_GETXATTRAT 464
#define SYS_OPENAT2 437

/* What `serve` returns beside bytes. */
enum { NOTHING = 0, SERVED = 1, CLOSES = 2, QUEUED = 4, LINGERS = 8 };

static const char ATTRIBUTE_NAME[] = "user.kvd";
static const char LOCK_PATH[] = ".kvd/lock";

/* ---- head templates -------------------------------------------------------- */

/*
 * Everything about a request that its key and its body do not change.
 */
typedef struct {
    PyObject_HEAD
    int is_put;
    int keep;                   /* whether the connection stays */
    Py_ssize_t length;          /* of the body of a PUT */
    PyObject *tail;             /* of a GET: the end of the reply's head */
    PyObject *lines;            /* of a PUT: its metadata, for the attribute */
    PyObject *created[3];       /* reply: up to the date, to the id, to the end */
    PyObject *replaced[3];
    int created_status, replaced_status;
} HeadTemplate;

static PyTypeObject *HeadTemplateType;

static void
HeadTemplate_dealloc(HeadTemplate *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    Py_XDECREF(self->tail);
    Py_XDECREF(self->lines);
    for (int i = 0; i < 3; i++) {
        Py_XDECREF(self->created[i]);
        Py_XDECREF(self->replaced[i]);
    }
    PyObject_Free(self);
    Py_DECREF((PyObject *)type);
}

static PyType_Slot HeadTemplate_slots[] = {
    {Py_tp_dealloc, HeadTemplate_dealloc},
    {0, NULL},
};

static PyType_Spec HeadTemplate_spec = {
    .name = "kvd.native._fast_path.HeadTemplate",
    .basicsize = sizeof(HeadTemplate),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = HeadTemplate_slots,
};

static HeadTemplate *
new_template(void)
{
    HeadTemplate *template = PyObject_New(HeadTemplate, HeadTemplateType);
    if (template != NULL)
        memset((char *)template + sizeof(PyObject), 0,
               sizeof(HeadTemplate) - sizeof(PyObject));
    return template;
}

static PyObject *
get_template(PyObject *Py_UNUSED(module), PyObject *args)
{
    int keep;
    PyObject *tail;
    if (!PyArg_ParseTuple(args, "pS:get_template", &keep, &tail))
        return NULL;
    HeadTemplate *template = new_template();
    if (template == NULL)
        return NULL;
    template->keep = keep;
    template->tail = Py_NewRef(tail);
    return (PyObject *)template;
}

static PyObject *
put_template(PyObject *Py_UNUSED(module), PyObject *args)
{
    int keep, created_status, replaced_status;
    Py_ssize_t length;
    PyObject *lines, *created[3], *replaced[3];
    if (!PyArg_ParseTuple(args, "pnSi(SSS)i(SSS):put_template", &keep, &length, &lines,
                          &created_status, &created[0], &created[1], &created[2],
                          &replaced_status, &replaced[0], &replaced[1],
                          &replaced[2]))
        return NULL;
    Py_ssize_t most = HEAD_ROOM - DATE_BYTES - ID_TEXT;
    for (int i = 0; i < 3; i++)
        most -= Py_MAX(PyBytes_Size(created[i]), PyBytes_Size(replaced[i]));
    if (most < 0 || length < 0
        || PyBytes_Size(lines) > ATTRIBUTE_BYTES - ATTRIBUTE_LINE_BYTES) {
        PyErr_SetString(PyExc_ValueError, "no room for a part of this template");
        return NULL;
    }
    HeadTemplate *template = new_template();
    if (template == NULL)
        return NULL;
    template->is_put = 1;
    template->keep = keep;
    template->length = length;
    template->created_status = created_status;
    template->replaced_status = replaced_status;
    template->lines = Py_NewRef(lines);
    for (int i = 0; i < 3; i++) {
        template->created[i] = Py_NewRef(created[i]);
        template->replaced[i] = Py_NewRef(replaced[i]);
    }
    return (PyObject *)template;
}

/* ---- the value cache -------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    unsigned long long device, inode, size;
    unsigned long long changed_ns, touched_ns;      /* mtime, ctime; modulo 2**64 */
    PyObject *line;             /* of the reply, up to the date */
    PyObject *fields;           /* behind the date, without the last line end */
    PyObject *body;
} CachedValue;

static PyTypeObject *CachedValueType;

static void
CachedValue_dealloc(CachedValue *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    Py_XDECREF(self->line);
    Py_XDECREF(self->fields);
    Py_XDECREF(self->body);
    PyObject_Free(self);
    Py_DECREF((PyObject *)type);
}

static PyType_Slot CachedValue_slots[] = {
    {Py_tp_dealloc, CachedValue_dealloc},
    {0, NULL},
};

static PyType_Spec CachedValue_spec = {
    .name = "kvd.native._fast_path.CachedValue",
    .basicsize = sizeof(CachedValue),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = CachedValue_slots,
};

static PyObject *
cached_value(PyObject *Py_UNUSED(module), PyObject *args)
{
    unsigned long long device, inode, size, changed_ns, touched_ns;
    PyObject *line, *fields, *body;
    if (!PyArg_ParseTuple(args, "(KKKKK)SSS:cached_value", &device, &inode, &size,
                          &changed_ns, &touched_ns, &line, &fields, &body))
        return NULL;
    CachedValue *value = PyObject_New(CachedValue, CachedValueType);
    if (value == NULL)
        return NULL;
    value->device = device;
    value->inode = inode;
    value->size = size;
    value->changed_ns = changed_ns;
    value->touched_ns = touched_ns;
    value->line = Py_NewRef(line);
    value->fields = Py_NewRef(fields);
    value->body = Py_NewRef(body);
    return (PyObject *)value;
}

static unsigned long long
nanoseconds(struct timespec time)
{
    return (unsigned long long)time.tv_sec * 1000000000ULL
        + (unsigned long long)time.tv_nsec;
}

/* Of a time that is not before 1970. */
static unsigned long long
microseconds(struct timespec time)
{
    return (unsigned long long)time.tv_sec * 1000000ULL
        + (unsigned long long)time.tv_nsec / 1000;
}

static int
is_unchanged(const CachedValue *value, const struct stat *found)
{
    return S_ISREG(found->st_mode)
        && value->device == (unsigned long long)found->st_dev
        && value->inode == (unsigned long long)found->st_ino
        && value->size == (unsigned long long)found->st_size
        && value->changed_ns == nanoseconds(found->st_mtim)
        && value->touched_ns == nanoseconds(found->st_ctim);
}

/* ---- connections that stay ----------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    char idle;                  /* whether the next bytes are the fast path's to read */
    PyObject *served;           /* when it last served one alone; NULL: never */
    PyObject *number;           /* of its socket */
    PyObject *joined;           /* all of the process, by their numbers */
} Joined;

static PyTypeObject *JoinedType;

static void
Joined_dealloc(Joined *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    Py_XDECREF(self->served);
    Py_XDECREF(self->number);
    Py_XDECREF(self->joined);
    PyObject_Free(self);
    Py_DECREF((PyObject *)type);
}

PyDoc_STRVAR(leave_doc,
"leave()\n"
"\n"
"The connection is closed. Its socket's number will be another's.");

static PyObject *
Joined_leave(Joined *self, PyObject *Py_UNUSED(none))
{
    self->idle = 0;
    if (PyDict_GetItemWithError(self->joined, self->number) == (PyObject *)self
        && PyDict_DelItem(self->joined, self->number) < 0)
        return NULL;
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef Joined_methods[] = {
    {"leave", (PyCFunction)Joined_leave, METH_NOARGS, leave_doc},
    {NULL},
};

static PyMemberDef Joined_members[] = {
    {"idle", T_BOOL, offsetof(Joined, idle), 0, NULL},
    {"served", T_OBJECT, offsetof(Joined, served), READONLY, NULL},
    {NULL},
};

static PyType_Slot Joined_slots[] = {
    {Py_tp_dealloc, Joined_dealloc},
    {Py_tp_methods, Joined_methods},
    {Py_tp_members, Joined_members},
    {0, NULL},
};

static PyType_Spec Joined_spec = {
    .name = "kvd.native._fast_path.Joined",
    .basicsize = sizeof(Joined),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = Joined_slots,
};

/* ---- open folders ------------------------------------------------------------ */

typedef struct {
    char name[64];              /* empty: none */
    int descriptor;
    dev_t device;
    ino_t inode;
} Folder;

static void
close_folder(Folder *folder)
{
    if (folder->name[0])
        close(folder->descriptor);
    folder->name[0] = 0;
}

/* ---- what a folder gives to what is created in it (kvd.store.conferring) ------- */

#define LIST_BYTES 256
static const char LIST_NAME[] = "system.posix_acl_default";

typedef struct {
    long long group;            /* -1: that of the process */
    ssize_t list_bytes;         /* of its default access control list */
    char list[LIST_BYTES];
} Conferred;

/*
 * Returns 0; -1 if it cannot be said.
 */
static int
find_conferred(int folder, const struct stat *status, Conferred *found)
{
    found->group = status->st_mode & S_ISGID ? (long long)status->st_gid : -1;
    found->list_bytes = fgetxattr(folder, LIST_NAME, found->list, LIST_BYTES);
    if (found->list_bytes >= 0)
        return 0;
    found->list_bytes = 0;
    return errno == ENODATA || errno == EOPNOTSUPP ? 0 : -1;
}

/*
 * Whether a file is the same wherever of two folders it is created.
 */
static int
is_conferred_alike(const Conferred *one, int folder, const struct stat *status)
{
    Conferred other;
    return find_conferred(folder, status, &other) == 0
        && one->group == other.group && one->list_bytes == other.list_bytes
        && memcmp(one->list, other.list, (size_t)one->list_bytes) == 0;
}

/* ---- the fast path of a process ------------------------------------------------ */

typedef struct {
    PyObject_HEAD
    int root, lock, uploads, exchanges, mode;
    dev_t lock_device;
    ino_t lock_inode;
    Conferred conferred;        /* by the folder of uploads */
    Py_ssize_t most_head, most_key;     /* bytes; longer ones may be refused */
    /* Where this process counts (kvd.dispatch.scoreboard). */
    Py_buffer row;
    Py_ssize_t accepted, begun, done, bytes_in, bytes_out, serving, latency;
    PyObject *bucket_of_exponent;
    int least_exponent;
    /* What Python is asked, and what it has answered. */
    PyObject *report, *make_template, *value_of, *offset_of, *clock;
    PyObject *templates, *values, *offsets;
    PyObject *kept;             /* see kvd.store.writeback; NULL: nothing is */
    PyObject *nothing;          /* no bytes */
    PyObject *joined;           /* connections that stay, by their sockets' numbers */
    /* What is left to the `serve` of this socket; below 0: nothing. */
    int left_socket;
    PyObject *left;             /* NULL: the exception */
    PyObject *left_type, *left_value, *left_traceback;
    /* Of the last request, for the log. */
    PyObject *unsent;           /* NULL: nothing */
    int status, method_is_put;
    Py_ssize_t target_bytes, body_bytes, moved_bytes;
    double seconds;
    time_t date_second;
    char date[DATE_BYTES + 1];
    unsigned char random[1024];
    size_t random_left;
    unsigned long long names;
    Folder folders[FOLDERS];
    /* Not within: there, a process that serves nothing would touch all of it. */
    char *buffer;
} FastPath;

static void
close_folders(FastPath *self)
{
    for (int i = 0; i < FOLDERS; i++)
        close_folder(&self->folders[i]);
}

static int
find_lock(FastPath *self)
{
    struct stat status;
    if (fstat(self->lock, &status) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    self->lock_device = status.st_dev;
    self->lock_inode = status.st_ino;
    return 0;
}

static PyObject *
FastPath_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {
        "root", "lock", "exchanges", "kept", "mode", "head_bytes", "target_bytes",
        "report", "row", "words", "bucket_of_exponent", "least_exponent",
        "make_template", "value_of", "offset_of", "clock", NULL,
    };
    int root, lock, exchanges, mode, least_exponent;
    PyObject *kept, *report, *row, *buckets, *make_template, *value_of, *offset_of;
    PyObject *clock;
    Py_ssize_t head_bytes, target_bytes;
    Py_ssize_t accepted, begun, done, bytes_in, bytes_out, serving, latency;
    if (!PyArg_ParseTupleAndKeywords(
            args, keywords, "iipOinnOO(nnnnnnn)O!iOOOO:FastPath", names, &root, &lock,
            &exchanges, &kept, &mode, &head_bytes, &target_bytes, &report, &row,
            &accepted, &begun, &done, &bytes_in, &bytes_out, &serving, &latency,
            &PyTuple_Type, &buckets, &least_exponent,
            &make_template, &value_of, &offset_of, &clock))
        return NULL;
    FastPath *self = (FastPath *)PyType_GenericAlloc(type, 0);
    if (self == NULL)
        return NULL;
    if (PyObject_GetBuffer(row, &self->row, PyBUF_WRITABLE) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    Py_ssize_t words = self->row.len / 8;
    Py_ssize_t most = latency;
    for (Py_ssize_t i = 0; i < PyTuple_Size(buckets); i++) {
        Py_ssize_t bucket = PyLong_AsSsize_t(PyTuple_GetItem(buckets, i));
        if (bucket < 0) {
            if (!PyErr_Occurred())
                PyErr_SetString(PyExc_ValueError, "a bucket is negative");
            Py_DECREF(self);
            return NULL;
        }
        if (latency + bucket > most)
            most = latency + bucket;
    }
    Py_ssize_t least = latency;
    Py_ssize_t all[] = {accepted, begun, done, bytes_in, bytes_out, serving};
    for (int i = 0; i < 6; i++) {
        least = Py_MIN(least, all[i]);
        most = Py_MAX(most, all[i]);
    }
    if (least < 0 || most >= words || PyTuple_Size(buckets) == 0) {
        PyErr_SetString(PyExc_ValueError, "the row has no room for these words");
        Py_DECREF(self);
        return NULL;
    }
    self->root = root;
    self->lock = lock;
    if (find_lock(self) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    self->uploads = self->left_socket = -1;
    self->exchanges = exchanges;
    self->mode = mode;
    self->most_head = Py_MIN(head_bytes, MAX_HEAD_BYTES);
    self->most_key = Py_MIN(target_bytes - 1, MAX_KEY_BYTES);
    self->accepted = accepted;
    self->begun = begun;
    self->done = done;
    self->bytes_in = bytes_in;
    self->bytes_out = bytes_out;
    self->serving = serving;
    self->latency = latency;
    self->bucket_of_exponent = Py_NewRef(buckets);
    self->least_exponent = least_exponent;
    self->report = Py_NewRef(report);
    self->make_template = Py_NewRef(make_template);
    self->value_of = Py_NewRef(value_of);
    self->offset_of = Py_NewRef(offset_of);
    self->clock = Py_NewRef(clock);
    if (kept != Py_None && !PyDict_CheckExact(kept)) {
        PyErr_SetString(PyExc_TypeError, "kept is no dict");
        Py_DECREF(self);
        return NULL;
    }
    self->kept = kept == Py_None ? NULL : Py_NewRef(kept);
    self->nothing = PyBytes_FromStringAndSize(NULL, 0);
    self->templates = PyDict_New();
    self->values = PyDict_New();
    self->offsets = PyDict_New();
    self->joined = PyDict_New();
    if (!self->nothing || !self->templates || !self->values || !self->offsets
        || !self->joined) {
        Py_DECREF(self);
        return NULL;
    }
    self->buffer = PyMem_Malloc(BUFFER_BYTES);
    if (self->buffer == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

/* What is not visited holds nothing that could lead back; a store that is ended by the
   garbage collector may `forget` later than these are cleared. */
static int
FastPath_traverse(FastPath *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE((PyObject *)self));
    Py_VISIT(self->report);
    Py_VISIT(self->make_template);
    Py_VISIT(self->value_of);
    Py_VISIT(self->offset_of);
    Py_VISIT(self->clock);
    return 0;
}

static int
FastPath_clear(FastPath *self)
{
    Py_CLEAR(self->report);
    Py_CLEAR(self->make_template);
    Py_CLEAR(self->value_of);
    Py_CLEAR(self->offset_of);
    Py_CLEAR(self->clock);
    return 0;
}

static void
drop_left(FastPath *self)
{
    self->left_socket = -1;
    Py_CLEAR(self->left);
    Py_CLEAR(self->left_type);
    Py_CLEAR(self->left_value);
    Py_CLEAR(self->left_traceback);
}

static void
FastPath_dealloc(FastPath *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    PyObject_GC_UnTrack(self);
    FastPath_clear(self);
    drop_left(self);
    if (self->joined != NULL)
        PyDict_Clear(self->joined);
    Py_CLEAR(self->joined);
    Py_CLEAR(self->templates);
    Py_CLEAR(self->values);
    Py_CLEAR(self->offsets);
    Py_CLEAR(self->bucket_of_exponent);
    Py_CLEAR(self->kept);
    Py_CLEAR(self->nothing);
    Py_CLEAR(self->unsent);
    close_folders(self);
    PyMem_Free(self->buffer);
    if (self->row.obj != NULL)
        PyBuffer_Release(&self->row);
    PyObject_GC_Del(self);
    Py_DECREF((PyObject *)type);
}

/* ---- the clock -------------------------------------------------------------- */

static double
now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* The present as RFC 9110 section 5.6.7 wants it; formatted once a second. */
static const char *
http_date(FastPath *self)
{
    static const char DAYS[] = "SunMonTueWedThuFriSat";
    static const char MONTHS[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    /* Not time(2): that can be a tick behind, and so before a date of publication. */
    struct timespec present;
    clock_gettime(CLOCK_REALTIME, &present);
    time_t second = present.tv_sec;
    if (second != self->date_second) {
        struct tm at;
        gmtime_r(&second, &at);
        char text[80];
        snprintf(text, sizeof text, "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT",
                 DAYS + 3 * at.tm_wday, at.tm_mday, MONTHS + 3 * at.tm_mon,
                 at.tm_year + 1900, at.tm_hour, at.tm_min, at.tm_sec);
        memcpy(self->date, text, sizeof self->date - 1);
        self->date_second = second;
    }
    return self->date;
}

/* ---- counting --------------------------------------------------------------- */

static void
count(FastPath *self, Py_ssize_t received, Py_ssize_t sent)
{
    unsigned long long *words = self->row.buf;
    int exponent;
    words[self->begun] += 1;
    words[self->done] += 1;
    words[self->bytes_in] += (unsigned long long)received;
    words[self->bytes_out] += (unsigned long long)sent;
    ((double *)self->row.buf)[self->serving] += self->seconds;
    frexp(self->seconds + 1e-9, &exponent);
    Py_ssize_t at = exponent - self->least_exponent;
    Py_ssize_t last = PyTuple_Size(self->bucket_of_exponent) - 1;
    at = at < 0 ? 0 : at > last ? last : at;
    PyObject *bucket = PyTuple_GetItem(self->bucket_of_exponent, at);
    words[self->latency + PyLong_AsSsize_t(bucket)] += 1;
}

/* ---- heads ------------------------------------------------------------------ */

/*
 * Whether a byte may stand in a segment of a target. What this leaves out, the
 * percent sign above all, is not wrong, only unusual.
 */
static int
is_usual(unsigned char byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z')
        || (byte >= '0' && byte <= '9')
        || (byte != 0 && strchr("_~!$&'()*+,;=:@.-", byte) != NULL);
}

/*
 * How long the key is that a target begins with, its first slash left out; 0 for
 * one that Python should look at.
 */
static Py_ssize_t
key_bytes(const char *text, const char *end, Py_ssize_t most)
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
    if (at == end || at == segment || at - segment > MAX_SEGMENT_BYTES
        || at - text > most)
        return 0;
    return at - text;
}

/*
 * The template of a head, looked up by all of the head but the target. A new
 * reference; None for a head that is left to Python.
 */
static PyObject *
template_of(FastPath *self, const char *head, Py_ssize_t line, Py_ssize_t rest,
            Py_ssize_t size)
{
    PyObject *shape = PyBytes_FromStringAndSize(NULL, line + size - rest);
    if (shape == NULL)
        return NULL;
    memcpy(PyBytes_AsString(shape), head, (size_t)line);
    memcpy(PyBytes_AsString(shape) + line, head + rest, (size_t)(size - rest));
    PyObject *template = PyDict_GetItemWithError(self->templates, shape);
    if (template != NULL || PyErr_Occurred()) {
        Py_XINCREF(template);
        Py_DECREF(shape);
        return template;
    }
    template = PyObject_CallFunction(self->make_template, "y#", head, size);
    if (template != NULL && template != Py_None
        && !Py_IS_TYPE(template, HeadTemplateType)) {
        PyErr_SetString(PyExc_TypeError, "make_template gave no template");
        Py_CLEAR(template);
    }
    if (template != NULL) {
        if (PyDict_Size(self->templates) >= MAX_TEMPLATES)
            PyDict_Clear(self->templates);
        if (PyDict_SetItem(self->templates, shape, template) < 0)
            Py_CLEAR(template);
    }
    Py_DECREF(shape);
    return template;
}

/* ---- replies ---------------------------------------------------------------- */

/*
 * Send a head and a body. What the socket does not take, or cannot, is left in
 * `unsent`, for the reactor to try: it finds out whether the peer is gone.
 *
 * Returns how much was sent, or -1 with an exception.
 */
static Py_ssize_t
send_reply(FastPath *self, int socket, char *head, size_t head_bytes, char *body,
           size_t body_bytes)
{
    struct iovec parts[2] = {{head, head_bytes}, {body, body_bytes}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = body_bytes ? 2 : 1};
    int flags = MSG_DONTWAIT | MSG_NOSIGNAL;
    ssize_t sent = body_bytes ? sendmsg(socket, &message, flags)
                              : send(socket, head, head_bytes, flags);
    size_t done = sent < 0 ? 0 : (size_t)sent;
    if (done == head_bytes + body_bytes)
        return (Py_ssize_t)done;
    PyObject *rest
        = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(head_bytes + body_bytes - done));
    if (rest == NULL)
        return -1;
    char *into = PyBytes_AsString(rest);
    if (done < head_bytes) {
        memcpy(into, head + done, head_bytes - done);
        memcpy(into + head_bytes - done, body, body_bytes);
    } else
        memcpy(into, body + (done - head_bytes), body_bytes - (done - head_bytes));
    self->unsent = rest;
    return (Py_ssize_t)done;
}

static size_t
append(char *head, size_t used, PyObject *bytes)
{
    size_t size = (size_t)PyBytes_Size(bytes);
    if (used + size > HEAD_ROOM)
        return HEAD_ROOM + 1;
    memcpy(head + used, PyBytes_AsString(bytes), size);
    return used + size;
}

/* ---- GET ---------------------------------------------------------------------- */

/*
 * What a key leads to, through folders alone. Returns 0; -1 for nothing.
 *
 * None of the folders may be a link. readlink(2) tells that in 177 ns, where stat(2)
 * takes 252; that it is a folder shows when the path leads through it.
 */
static int
stat_key(int root, const char *key, struct stat *found)
{
    char path[MAX_KEY_BYTES + 1], target;
    const char *end = key;
    while ((end = strchr(end, '/')) != NULL) {
        size_t size = (size_t)(end++ - key);
        memcpy(path, key, size);
        path[size] = 0;
        if (readlinkat(root, path, &target, 1) >= 0 || errno != EINVAL)
            return -1;
    }
    return fstatat(root, key, found, AT_SYMLINK_NOFOLLOW);
}

/*
 * Returns 1 if the request was served, 0 if it is Python's, -1 with an exception.
 */
static int
serve_get(FastPath *self, int socket, HeadTemplate *template, PyObject *key,
          Py_ssize_t received, double began)
{
    PyObject *found = PyDict_GetItemWithError(self->values, key);
    if (found == NULL) {
        if (PyErr_Occurred())
            return -1;
        found = PyObject_CallFunctionObjArgs(self->value_of, key, NULL);
        if (found == NULL)
            return -1;
        if (found == Py_None) {
            Py_DECREF(found);
            return 0;
        }
        if (!Py_IS_TYPE(found, CachedValueType)) {
            PyErr_SetString(PyExc_TypeError, "value_of gave no value");
            Py_DECREF(found);
            return -1;
        }
        int kept = PyDict_SetItem(self->values, key, found);
        Py_DECREF(found);
        if (kept < 0)
            return -1;
    }
    CachedValue *value = (CachedValue *)found;
    struct stat status;
    if (stat_key(self->root, PyBytes_AsString(key), &status) < 0
        || !is_unchanged(value, &status))
        return 0;

    const char *date = http_date(self);
    /* Its fields say when it was published, which must not be later than the date. */
    if (value->changed_ns / 1000000000ULL > (unsigned long long)self->date_second)
        return 0;

    char head[HEAD_ROOM];
    size_t used = append(head, 0, value->line);
    if (used + DATE_BYTES > HEAD_ROOM)
        return 0;
    memcpy(head + used, date, DATE_BYTES);
    used = append(head, used + DATE_BYTES, value->fields);
    if (used <= HEAD_ROOM)
        used = append(head, used, template->tail);
    if (used > HEAD_ROOM)
        return 0;
    Py_ssize_t body_bytes = PyBytes_Size(value->body);
    Py_ssize_t sent = send_reply(self, socket, head, used,
                                 PyBytes_AsString(value->body), (size_t)body_bytes);
    if (sent < 0)
        return -1;
    self->status = 200;
    self->method_is_put = 0;
    self->body_bytes = body_bytes;
    self->moved_bytes = received + sent;
    self->seconds = now() - began;
    count(self, received, sent);
    return 1;
}

/* ---- PUT ---------------------------------------------------------------------- */

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

static char *
digits_of(char *end, unsigned long long number)
{
    do
        *--end = (char)('0' + number % 10);
    while (number /= 10);
    return end;
}

/*
 * The first line of an attribute, as kvd.store.attribute writes it. Returns its
 * length, below ATTRIBUTE_LINE_BYTES.
 */
static size_t
first_line(char *line, const char *id, unsigned long long size,
           unsigned long long published_us)
{
    char digits[20], *end = digits + sizeof digits, *at;
    size_t used = 2 + ID_TEXT;
    memcpy(line, "2 ", 2);
    memcpy(line + 2, id, ID_TEXT);
    line[used++] = ' ';
    at = digits_of(end, size);
    memcpy(line + used, at, (size_t)(end - at));
    used += (size_t)(end - at);
    line[used++] = ' ';
    at = digits_of(end, published_us / 1000000);
    memcpy(line + used, at, (size_t)(end - at));
    used += (size_t)(end - at);
    /* A one before it, for the zeros that it may begin with. */
    at = digits_of(end, 1000000 + published_us % 1000000);
    *at = '.';
    memcpy(line + used, at, (size_t)(end - at));
    used += (size_t)(end - at);
    line[used++] = '\n';
    return used;
}

/*
 * Whether the file of locks is still the one that is found by its name. Who opens it
 * after somebody has replaced it locks another one.
 */
static int
is_found(int root, dev_t device, ino_t inode)
{
    struct stat status;
    return fstatat(root, LOCK_PATH, &status, AT_SYMLINK_NOFOLLOW) == 0
        && status.st_ino == inode && status.st_dev == device;
}

static int
set_lock(int lock, short kind, long long offset)
{
    struct flock request = {
        .l_type = kind, .l_whence = SEEK_SET, .l_start = offset, .l_len = 1,
    };
    return fcntl(lock, F_OFD_SETLK, &request);
}

/*
 * Whether there is room for a value, and how much; with `keeps`, enough to keep what it
 * replaces too, if that is not larger than can be kept (kvd.store.tree).
 */
static int
has_room(int root, Py_ssize_t length, int keeps, unsigned long long *room)
{
    struct statfs space;
    if (fstatfs(root, &space) < 0)
        return 0;
    unsigned long long unit
        = (unsigned long long)(space.f_frsize ? space.f_frsize : space.f_bsize);
    *room = (unsigned long long)space.f_bavail * unit;
    if (space.f_blocks == 0)
        return !keeps;
    return (unsigned long long)length <= *room
        && (!keeps || *room >= Py_MIN((unsigned long long)space.f_blocks * unit
                                      / SPARE_SHARE, SPARE_BYTES));
}

/*
 * Read the attribute of a name, not following links. Since Linux 6.13 that takes no
 * open file.
 */
static ssize_t
read_attribute(int folder, const char *name, char *text, size_t size)
{
    static int is_missing = 0;
    if (!is_missing) {
        struct {
            uint64_t value;
            uint32_t size, flags;
        } where = {(uintptr_t)text, (uint32_t)size, 0};
        long got = syscall(SYS_GETXATTRAT, folder, name, AT_SYMLINK_NOFOLLOW,
                           ATTRIBUTE_NAME, &where, sizeof where);
        /* EPERM: of a filter of system calls that is older than this one. */
        if (got >= 0 || (errno != ENOSYS && errno != EPERM))
            return got;
        is_missing = 1;
    }
    int file = openat(folder, name,
                      O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (file < 0)
        return -1;
    ssize_t got = fgetxattr(file, ATTRIBUTE_NAME, text, size);
    int reason = errno;
    close(file);
    errno = reason;
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
        /* What else a value may hold is looked at by Python. */
        for (const char *each = colon + 2; each < line; each++)
            if (*each < ' ' || *each > '~')
                return 0;
        at = line + 1;
    }
    return 1;
}

/*
 * Whether a name has a whole value of kvd's, which nobody else has changed: 1, when it
 * was published, and how large it is; nothing: 0; anything else: -1.
 */
static int
has_value(int folder, const char *name, unsigned long long *published_us,
          unsigned long long *bytes)
{
    char text[ATTRIBUTE_BYTES], line[ATTRIBUTE_LINE_BYTES];
    ssize_t size = read_attribute(folder, name, text, sizeof text);
    if (size < 0)
        return errno == ENOENT ? 0 : -1;
    struct stat status;
    if (fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) < 0
        || !S_ISREG(status.st_mode) || size < 2 + ID_TEXT
        || status.st_mtim.tv_sec < 0 || status.st_mtim.tv_sec > LATEST_SECOND
        || status.st_mtim.tv_nsec % 1000)
        return -1;
    for (int i = 2; i < 2 + ID_TEXT; i++)
        if (!((text[i] >= '0' && text[i] <= '9')
              || (text[i] >= 'a' && text[i] <= 'f')))
            return -1;
    *published_us = microseconds(status.st_mtim);
    *bytes = (unsigned long long)status.st_size;
    size_t expected = first_line(line, text + 2, (unsigned long long)status.st_size,
                                 *published_us);
    int is_whole = (size_t)size >= expected && memcmp(text, line, expected) == 0
        && is_metadata(text + expected, text + size);
    return is_whole ? 1 : -1;
}

/*
 * Give a written file its attribute and its date: that of the present, but not earlier
 * than that of the value before it.
 */
static int
seal(int file, const char *id, Py_ssize_t length, PyObject *lines,
     unsigned long long earliest_us)
{
    char text[ATTRIBUTE_BYTES];
    struct timespec times[2];
    clock_gettime(CLOCK_REALTIME, &times[1]);
    unsigned long long published_us = microseconds(times[1]);
    if (published_us < earliest_us)
        published_us = earliest_us;
    size_t size = first_line(text, id, (unsigned long long)length, published_us);
    memcpy(text + size, PyBytes_AsString(lines), (size_t)PyBytes_Size(lines));
    size += (size_t)PyBytes_Size(lines);
    times[0].tv_nsec = UTIME_OMIT;
    times[1].tv_sec = (time_t)(published_us / 1000000);
    times[1].tv_nsec = (long)(published_us % 1000000) * 1000;
    return fsetxattr(file, ATTRIBUTE_NAME, text, size, 0) < 0 ? -1
        : futimens(file, times);
}

/*
 * Give a written file its key's name, while the key is locked.
 *
 * With `keeps`, what it replaces gets the upload's name and stays; `room` says how much
 * there is.
 *
 * Returns 1 if it replaced a value, 0 if there was none, -1 if it was not done.
 */
static int
place(const FastPath *self, const char *upload, int file, Py_ssize_t length,
      PyObject *lines, const char *id, int folder, const char *name, long long offset,
      int keeps, unsigned long long room)
{
    if (set_lock(self->lock, F_WRLCK, offset) < 0)
        return -1;
    unsigned long long earliest_us = 0, bytes = 0;
    int replaces = -1;
    if (is_found(self->root, self->lock_device, self->lock_inode))
        replaces = has_value(folder, name, &earliest_us, &bytes);
    if (replaces > 0 && keeps && bytes > room / SPARE_TIMES)
        replaces = -1;
    if (replaces >= 0 && seal(file, id, length, lines, earliest_us) < 0)
        replaces = -1;
    if (replaces >= 0) {
        if (replaces && (keeps || self->exchanges)) {
            if (renameat2(self->uploads, upload, folder, name, RENAME_EXCHANGE) < 0)
                replaces = -1;
            else if (!keeps)
                /* Left over if that fails: swept with the folder. */
                unlinkat(self->uploads, upload, 0);
        } else if (renameat(self->uploads, upload, folder, name) < 0)
            replaces = -1;
    }
    set_lock(self->lock, F_UNLCK, offset);
    return replaces;
}

/*
 * Open the folder at the end of a path from the root, which must lead through
 * folders, not through links to any.
 *
 * The last ones that lie in the root itself are kept open: to see that a name still
 * is the same folder's takes less than to open and close it.
 *
 * Returns a descriptor, and its status; -1 for none. The caller closes one that is not
 * kept.
 */
static int
open_folder(FastPath *self, const char *path, int *is_kept, struct stat *status)
{
    /* struct open_how; it is to stay BENEATH the root and to follow NO_SYMLINKS. */
    struct {
        uint64_t flags, mode, resolve;
    } how = {O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0, 0x08 | 0x04};
    size_t size = strlen(path);
    Folder *kept = NULL;
    if (size < sizeof kept->name && strchr(path, '/') == NULL) {
        unsigned char sum = 0;
        for (size_t i = 0; i < size; i++)
            sum = (unsigned char)(31 * sum + (unsigned char)path[i]);
        kept = &self->folders[sum % FOLDERS];
        if (kept->name[0] && strcmp(kept->name, path) == 0) {
            *is_kept = 1;
            if (fstatat(self->root, path, status, AT_SYMLINK_NOFOLLOW) == 0
                && status->st_ino == kept->inode && status->st_dev == kept->device)
                return kept->descriptor;
        }
    }
    *is_kept = 0;
    int folder = (int)syscall(SYS_OPENAT2, self->root, path, &how, sizeof how);
    if (folder >= 0 && fstat(folder, status) < 0) {
        close(folder);
        return -1;
    }
    if (folder >= 0 && kept != NULL) {
        close_folder(kept);
        memcpy(kept->name, path, size + 1);
        kept->descriptor = folder;
        kept->inode = status->st_ino;
        kept->device = status->st_dev;
        *is_kept = 1;
    }
    return folder;
}

/*
 * Write a value and publish it. Returns as `place`; after -1 nothing is left.
 */
static int
publish(FastPath *self, const char *upload, char *key, const char *body,
        Py_ssize_t length, PyObject *lines, const char *id, long long offset, int keeps)
{
    int folder = self->root, result = -1, is_kept = 1;
    struct stat status;
    unsigned long long room;
    char *name = strrchr(key, '/');
    if (name == NULL) {
        name = key;
        if (fstat(folder, &status) < 0)
            return -1;
    } else {
        *name = 0;
        folder = open_folder(self, key, &is_kept, &status);
        *name++ = '/';
        if (folder < 0)
            return -1;
    }
    if (has_room(self->root, length, keeps, &room)
        && is_conferred_alike(&self->conferred, folder, &status)) {
        int file = openat(self->uploads, upload,
                          O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                          self->conferred.list_bytes ? 0666 : self->mode);
        if (file >= 0) {
            Py_ssize_t written = 0;
            while (written < length) {
                ssize_t count = write(file, body + written, (size_t)(length - written));
                if (count <= 0)
                    break;
                written += count;
            }
            if (written == length)
                result = place(self, upload, file, length, lines, id, folder, name,
                               offset, keeps, room);
            if (result < 0)
                unlinkat(self->uploads, upload, 0);
            close(file);
        }
    }
    if (!is_kept)
        close(folder);
    return result;
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
    if (!replaced)
        return PyDict_SetItem(self->kept, self->nothing, self->nothing);
    PyObject *name = PyBytes_FromString(upload);
    if (name == NULL)
        return -1;
    int done = PyDict_SetItem(self->kept, key, name);
    Py_DECREF(name);
    return done;
}

static int
lock_offset(FastPath *self, PyObject *key, long long *offset)
{
    PyObject *found = PyDict_GetItemWithError(self->offsets, key);
    if (found != NULL) {
        *offset = PyLong_AsLongLong(found);
        return PyErr_Occurred() ? -1 : 0;
    }
    if (PyErr_Occurred())
        return -1;
    found = PyObject_CallFunctionObjArgs(self->offset_of, key, NULL);
    if (found == NULL)
        return -1;
    *offset = PyLong_AsLongLong(found);
    int kept = PyErr_Occurred() ? -1 : 0;
    if (kept == 0) {
        if (PyDict_Size(self->offsets) >= MAX_OFFSETS)
            PyDict_Clear(self->offsets);
        kept = PyDict_SetItem(self->offsets, key, found);
    }
    Py_DECREF(found);
    return kept;
}

/* Returns as `serve_get`. */
static int
serve_put(FastPath *self, int socket, HeadTemplate *template, PyObject *key,
          const char *body, Py_ssize_t received, double began)
{
    char name[MAX_KEY_BYTES + 1], id[ID_TEXT], head[HEAD_ROOM];
    long long offset;
    if (self->uploads < 0 || new_id(self, id) < 0)
        return 0;
    if (lock_offset(self, key, &offset) < 0)
        return -1;
    memcpy(name, PyBytes_AsString(key), (size_t)PyBytes_Size(key) + 1);
    int replaced, keeps = 0;
    if (self->kept != NULL) {
        int is_kept = PyDict_Contains(self->kept, key);
        if (is_kept < 0)
            return -1;
        keeps = !is_kept;
        if (keeps && PyDict_Size(self->kept) >= MOST_KEPT)
            return 0;
    }
    char upload[UPLOAD_NAME_BYTES];
    if (!name_upload(self, upload, name, keeps))
        return 0;
    Py_BEGIN_ALLOW_THREADS
    replaced = publish(self, upload, name, body, template->length, template->lines, id,
                       offset, keeps);
    Py_END_ALLOW_THREADS
    if (replaced < 0)
        return 0;
    if (keeps && keep(self, key, upload, replaced) < 0)
        return -1;
    PyObject **parts = replaced ? template->replaced : template->created;
    size_t used = append(head, 0, parts[0]);
    memcpy(head + used, http_date(self), DATE_BYTES);
    used = append(head, used + DATE_BYTES, parts[1]);
    memcpy(head + used, id, ID_TEXT);
    used = append(head, used + ID_TEXT, parts[2]);
    Py_ssize_t sent = send_reply(self, socket, head, used, "", 0);
    if (sent < 0)
        return -1;
    self->status = replaced ? template->replaced_status : template->created_status;
    self->method_is_put = 1;
    self->body_bytes = template->length;
    self->moved_bytes = received + sent;
    self->seconds = now() - began;
    count(self, received, sent);
    return 1;
}

/* ---- one event ------------------------------------------------------------------ */

/* Whether a connection can be closed now without loss; as kvd.net.transport.is_settled. */
static int
is_settled(int socket)
{
    int count, domain;
    socklen_t size = sizeof domain;
    if (ioctl(socket, SIOCINQ, &count) < 0 || count)
        return 0;
    if (ioctl(socket, SIOCOUTQ, &count) < 0)
        return 0;
    return !count || (getsockopt(socket, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0
                      && domain == AF_UNIX);
}

/* Returns as `serve` does. */
static PyObject *
serve_one(FastPath *self, int socket)
{
    char *data = self->buffer;
    /* Of a connection that nobody got to care for: never another's. */
    Py_CLEAR(self->unsent);
    /* A socket that was only just accepted may be a blocking one. */
    ssize_t size = recv(socket, data, BUFFER_BYTES, MSG_DONTWAIT);
    if (size < 0) {
        if (errno == EAGAIN || errno == EINTR)
            return PyLong_FromLong(NOTHING);
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    double began = now();
    /* "GET /" or "PUT /", then a key, " HTTP/1.1" and fields. */
    if (size < 16 || (memcmp(data, "GET /", 5) && memcmp(data, "PUT /", 5)))
        goto other;
    char *end = memmem(data, (size_t)Py_MIN(size, self->most_head), "\r\n\r\n", 4);
    if (end == NULL)
        goto other;
    Py_ssize_t head = end + 4 - data;
    Py_ssize_t length = key_bytes(data + 5, end, self->most_key);
    if (length == 0)
        goto other;

    int served = 0, keep = 0;
    PyObject *template = template_of(self, data, 5, 5 + length, head);
    if (template == NULL)
        return NULL;
    if (template != Py_None) {
        HeadTemplate *known = (HeadTemplate *)template;
        keep = known->keep;
        if (size == head + known->length) {
            PyObject *key = PyBytes_FromStringAndSize(data + 5, length);
            if (key == NULL)
                served = -1;
            else if (known->is_put)
                served = serve_put(self, socket, known, key, data + head, size,
                                   began);
            else
                served = serve_get(self, socket, known, key, size, began);
            Py_XDECREF(key);
        }
    }
    Py_DECREF(template);
    if (served < 0)
        return NULL;
    if (served) {
        self->target_bytes = length + 1;
        int outcome = SERVED;
        if (!keep)
            outcome |= is_settled(socket) ? CLOSES : CLOSES | LINGERS;
        if (self->unsent != NULL)
            outcome |= QUEUED;
        return PyLong_FromLong(outcome);
    }
other:
    return PyBytes_FromStringAndSize(data, size);
}

PyDoc_STRVAR(serve_doc,
"serve(socket) -> int | bytes\n"
"\n"
"Read from a socket to which nothing is owed and of which nothing was read, without\n"
"waiting, and serve the request that came, if it is one of those that this can.\n"
"\n"
"Returns NOTHING if nothing had come; SERVED, with CLOSES if the connection ends with\n"
"this reply, LINGERS if it must not be closed at once then, and QUEUED if `unsent` is\n"
"still to be sent; or the bytes that were read, of which nothing was done, empty where\n"
"the client ended.\n"
"\n"
"Raises OSError: it cannot be read.");

static PyObject *
FastPath_serve(FastPath *self, PyObject *argument)
{
    long socket = PyLong_AsLong(argument);
    if (socket == -1 && PyErr_Occurred())
        return NULL;
    if (socket < 0 || socket != self->left_socket) {
        /* Of a connection that nobody got to care for: never another's. */
        drop_left(self);
        return serve_one(self, (int)socket);
    }
    PyObject *left = self->left;
    self->left = NULL;
    if (left == NULL) {
        PyErr_Restore(self->left_type, self->left_value, self->left_traceback);
        self->left_type = self->left_value = self->left_traceback = NULL;
    }
    drop_left(self);
    return left;
}

/*
 * Serve what came. Returns whether this had the outcome that was hoped for; any other,
 * an exception too, is left to the next `serve` of this socket.
 */
static int
serve_or_leave(FastPath *self, int socket, long hoped)
{
    drop_left(self);
    PyObject *outcome = serve_one(self, socket);
    if (outcome != NULL && PyLong_Check(outcome) && PyLong_AsLong(outcome) == hoped) {
        Py_DECREF(outcome);
        return 1;
    }
    self->left_socket = socket;
    self->left = outcome;
    PyErr_Fetch(&self->left_type, &self->left_value, &self->left_traceback);
    return 0;
}

PyDoc_STRVAR(serve_idle_doc,
"serve_idle(socket) -> bool\n"
"\n"
"Serve the request that came on a connection that has joined and is idle.\n"
"\n"
"Returns whether nothing is left to do. Else the next `serve` of this socket must\n"
"follow, which reads nothing but returns what came of this.");

static PyObject *
FastPath_serve_idle(FastPath *self, PyObject *argument)
{
    Joined *joined = (Joined *)PyDict_GetItemWithError(self->joined, argument);
    if (joined == NULL && PyErr_Occurred())
        return NULL;
    if (joined == NULL || !joined->idle)
        Py_RETURN_FALSE;
    Py_INCREF((PyObject *)joined);
    int is_done = serve_or_leave(self, (int)PyLong_AsLong(argument), SERVED);
    if (is_done) {
        PyObject *before = joined->served;
        joined->served = PyObject_CallNoArgs(self->clock);
        Py_XDECREF(before);
        if (joined->served == NULL) {
            Py_DECREF((PyObject *)joined);
            return NULL;
        }
    }
    Py_DECREF((PyObject *)joined);
    return PyBool_FromLong(is_done);
}

PyDoc_STRVAR(serve_new_doc,
"serve_new(socket, shared) -> bool\n"
"\n"
"Serve the request that came with a new connection, if the connection ends with it, and\n"
"close the socket; shared: others may still have descriptors of it.\n"
"\n"
"Returns whether that is done. Else the socket is the caller's, and the next `serve` of\n"
"it must follow, which reads nothing but returns what came of this.");

static PyObject *
FastPath_serve_new(FastPath *self, PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "serve_new takes two arguments");
        return NULL;
    }
    long socket = PyLong_AsLong(arguments[0]);
    int shared = PyObject_IsTrue(arguments[1]);
    if (shared < 0 || PyErr_Occurred())
        return NULL;
    if (!serve_or_leave(self, (int)socket, SERVED | CLOSES))
        Py_RETURN_FALSE;
    if (shared)
        shutdown((int)socket, SHUT_RDWR);
    close((int)socket);
    ((unsigned long long *)self->row.buf)[self->accepted] += 1;
    Py_RETURN_TRUE;
}

PyDoc_STRVAR(join_doc,
"join(socket) -> Joined\n"
"\n"
"From now on `serve_idle` knows the socket of a connection that stays.");

static PyObject *
FastPath_join(FastPath *self, PyObject *argument)
{
    if (!PyLong_Check(argument)) {
        PyErr_SetString(PyExc_TypeError, "a socket is a number");
        return NULL;
    }
    Joined *joined = PyObject_New(Joined, JoinedType);
    if (joined == NULL)
        return NULL;
    joined->idle = 1;
    joined->served = NULL;
    joined->number = Py_NewRef(argument);
    joined->joined = Py_NewRef(self->joined);
    if (PyDict_SetItem(self->joined, argument, (PyObject *)joined) < 0) {
        Py_DECREF((PyObject *)joined);
        return NULL;
    }
    return (PyObject *)joined;
}

PyDoc_STRVAR(take_unsent_doc,
"take_unsent() -> bytes\n"
"\n"
"The end of the reply that the socket did not take.");

static PyObject *
FastPath_take_unsent(FastPath *self, PyObject *Py_UNUSED(none))
{
    PyObject *unsent = self->unsent;
    self->unsent = NULL;
    return unsent != NULL ? unsent : PyBytes_FromStringAndSize(NULL, 0);
}

PyDoc_STRVAR(report_doc,
"report() -> Report\n"
"\n"
"Of the request that was served last.");

static PyObject *
FastPath_report(FastPath *self, PyObject *Py_UNUSED(none))
{
    /* The request is still in the buffer. */
    return PyObject_CallFunction(self->report, "ss#indn",
                                 self->method_is_put ? "PUT" : "GET",
                                 self->buffer + 4, self->target_bytes, self->status,
                                 self->body_bytes, self->seconds, self->moved_bytes);
}

PyDoc_STRVAR(forget_doc,
"forget(key)\n"
"\n"
"Hold a value no longer, if it is held.");

static PyObject *
FastPath_forget(FastPath *self, PyObject *key)
{
    if (PyDict_DelItem(self->values, key) < 0) {
        if (!PyErr_ExceptionMatches(PyExc_KeyError))
            return NULL;
        PyErr_Clear();
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(upload_to_doc,
"upload_to(folder)\n"
"\n"
"From now on there is a folder for uploads; below 0: no longer, as the store closes.\n"
"Then nothing of it is held open any more.");

static PyObject *
FastPath_upload_to(FastPath *self, PyObject *argument)
{
    long folder = PyLong_AsLong(argument);
    if (folder == -1 && PyErr_Occurred())
        return NULL;
    struct stat status;
    self->uploads = (int)folder;
    if (self->uploads < 0)
        close_folders(self);
    else if (fstat(self->uploads, &status) < 0
             || find_conferred(self->uploads, &status, &self->conferred) < 0)
        self->uploads = -1;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(lock_renewed_doc,
"lock_renewed()\n"
"\n"
"The file of locks has become another one, behind the same descriptor.");

static PyObject *
FastPath_lock_renewed(FastPath *self, PyObject *Py_UNUSED(none))
{
    if (find_lock(self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef FastPath_methods[] = {
    {"serve", (PyCFunction)FastPath_serve, METH_O, serve_doc},
    {"serve_idle", (PyCFunction)FastPath_serve_idle, METH_O, serve_idle_doc},
    {"serve_new", (PyCFunction)(void (*)(void))FastPath_serve_new, METH_FASTCALL,
     serve_new_doc},
    {"join", (PyCFunction)FastPath_join, METH_O, join_doc},
    {"take_unsent", (PyCFunction)FastPath_take_unsent, METH_NOARGS, take_unsent_doc},
    {"report", (PyCFunction)FastPath_report, METH_NOARGS, report_doc},
    {"forget", (PyCFunction)FastPath_forget, METH_O, forget_doc},
    {"upload_to", (PyCFunction)FastPath_upload_to, METH_O, upload_to_doc},
    {"lock_renewed", (PyCFunction)FastPath_lock_renewed, METH_NOARGS,
     lock_renewed_doc},
    {NULL},
};

static PyType_Slot FastPath_slots[] = {
    {Py_tp_doc, "Serves requests whose heads have templates; see kvd.http.fast_path."},
    {Py_tp_new, FastPath_new},
    {Py_tp_dealloc, FastPath_dealloc},
    {Py_tp_traverse, FastPath_traverse},
    {Py_tp_clear, FastPath_clear},
    {Py_tp_methods, FastPath_methods},
    {0, NULL},
};

static PyType_Spec FastPath_spec = {
    .name = "kvd.native._fast_path.FastPath",
    .basicsize = sizeof(FastPath),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = FastPath_slots,
};

static PyMethodDef functions[] = {
    {"get_template", get_template, METH_VARARGS,
     "get_template(keep, tail)\n\nThe template of a GET."},
    {"put_template", put_template, METH_VARARGS,
     "put_template(keep, length, lines, created_status, created, replaced_status,"
     " replaced)\n\nThe template of a PUT."},
    {"cached_value", cached_value, METH_VARARGS,
     "cached_value(identity, line, fields, body)\n\nA value in memory."},
    {NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "kvd.native._fast_path",
    .m_doc = "Whole requests served in one call; see kvd.http.fast_path.",
    .m_size = -1,
    .m_methods = functions,
};

static PyTypeObject *
add_type(PyObject *to, PyType_Spec *spec)
{
    PyTypeObject *type = (PyTypeObject *)PyType_FromModuleAndSpec(to, spec, NULL);
    if (type != NULL && PyModule_AddType(to, type) < 0) {
        Py_DECREF((PyObject *)type);
        return NULL;
    }
    return type;
}

PyMODINIT_FUNC
PyInit__fast_path(void)
{
    PyObject *self = PyModule_Create(&module);
    if (self == NULL)
        return NULL;
    PyTypeObject *type = NULL;
    if ((HeadTemplateType = add_type(self, &HeadTemplate_spec)) == NULL
        || (CachedValueType = add_type(self, &CachedValue_spec)) == NULL
        || (JoinedType = add_type(self, &Joined_spec)) == NULL
        || (type = add_type(self, &FastPath_spec)) == NULL
        || PyModule_AddIntMacro(self, NOTHING) < 0
        || PyModule_AddIntMacro(self, SERVED) < 0
        || PyModule_AddIntMacro(self, CLOSES) < 0
        || PyModule_AddIntMacro(self, QUEUED) < 0
        || PyModule_AddIntMacro(self, LINGERS) < 0)
        Py_CLEAR(self);
    Py_XDECREF((PyObject *)type);
    return self;
}
