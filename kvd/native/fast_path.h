/*
 * What the files of the fast path share; fast_path.c says what it is.
 */

#ifndef KVD_FAST_PATH_H
#define KVD_FAST_PATH_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

/* What the first read of an event takes at most: a head and the body of a small PUT. */
#define EVENT_BYTES (64 * 1024)
/* The longest body of a PUT. */
#define MAX_BODY_BYTES (2 * 1024 * 1024)
/* What a record of TLS has at most. */
#define RECORD_BYTES (16 * 1024)
/* The longest one that need not come in one event; see docs/design.rst. */
#define MAX_PARTIAL_BYTES (256 * 1024)
#define BUFFER_BYTES (EVENT_BYTES + MAX_BODY_BYTES)
/* Longer heads get no template, so that they do not fill the table. */
#define MAX_HEAD_BYTES 1024
/* Larger values are sent from their files; see get.c. */
#define READ_BYTES 1024
#define FOLDERS 256
/* How many connections are held at most: Python adopts all of them in one turn, which takes
   some 50 us for each. */
#define MOST_HELD 64
/* For how many connections processes take turns once one had to be left to others. */
#define TURNS 32
/* Python handles longer keys. */
#define MAX_KEY_BYTES 512
#define MAX_LONGEST_KEY 1024        /* as kvd.model.keys */
#define STATUSES 1000               /* above the highest */
#define MAX_EXPONENTS 128           /* of durations */
#define ID_BYTES 16
#define ID_TEXT (2 * ID_BYTES)
#define ATTRIBUTE_BYTES 1400
#define ATTRIBUTE_LINE_BYTES 80     /* its first line, at most */
#define HEAD_ROOM 1024              /* for the head of a reply */
#define DATE_BYTES 29
#define DAY_BYTES 17                /* of these, up to the time */
#define LIST_BYTES 256              /* of a default access control list */
#define UPLOAD_NAME_BYTES 256       /* with the zero at its end */
#define KERNEL_DESCRIPTORS 253      /* no message has more (SCM_MAX_FD) */

/* What `serve` returns if not bytes. */
enum {
    NOTHING = 0, SERVED = 1, CLOSES = 2, QUEUED = 4, LINGERS = 8, REMAINS = 16, LOST = 32,
    LEAVES_UPLOAD = 64, COMMITS = 128,
};

/* What `publish` returns; below 0: nothing was published; see kvd.store.placing. */
enum { CREATED = 0, REPLACED = 1, KEPT = 2, SCARCE = -1, UNSEALED = -2, UNLINKED = -3,
       UNNAMED = -4 };

/* What a file is to kvd (kvd.store.attribute). */
enum { NO_VALUE, FOREIGN, TORN, OURS };

/* The fields whose values do not belong to the shape of a head (shape.c). */
enum {
    CONTENT_LENGTH, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, RANGE, VARYING_FIELDS,
};

/* A part of the input. */
typedef struct {
    const char *start;          /* NULL: there is none */
    Py_ssize_t size;
} Text;

/* The values of the varying fields of a head. */
typedef struct {
    Text texts[VARYING_FIELDS];
    Py_ssize_t body_bytes;
    long long modified_since, unmodified_since;     /* seconds; where the field is given */
} Varying;

/* The sets of conditions that hold: see kvd.http.templates. */
#define OUTCOMES 16

/* Everything about a request that does not depend on its key, its body and the varying
   fields. */
typedef struct {
    PyObject_HEAD
    Py_ssize_t method;          /* its first word (kvd.ipc.row.word_of_method) */
    int is_put;
    int is_head;                /* whether the reply has no body */
    int keep;                   /* whether the connection stays open */
    Py_ssize_t most_bytes;      /* of the body */
    PyObject *scopes, *user;    /* see limit_template; NULL: all keys */
    long long expires;          /* in seconds since the epoch; 0: never */
    int is_by_password;         /* see logins.c */
    int has_ranges;             /* whether a range is honoured */
    int outcomes[OUTCOMES];     /* of a GET: statuses, by the conditions that hold */
    PyObject *tail;             /* of a GET: the end of the reply's head */
    PyObject *missing[4];       /* for a missing key: the head up to the date and up to
                                   the length; the body before and after the key; NULL:
                                   Python replies */
    PyObject *lines;            /* of a PUT: its metadata, for the attribute */
    PyObject *created[3];       /* reply: up to the date, to the id, to the end */
    PyObject *replaced[3];
    PyObject *interim;          /* sent if the body has not begun to come, or empty */
    int created_status, replaced_status;
} HeadTemplate;

/* A request whose head has a template. */
typedef struct {
    HeadTemplate *template;
    const Varying *varying;     /* NULL, if its body came later than its head */
    char *bytes;                /* from its first byte on */
    Py_ssize_t line_bytes;      /* up to its key */
    Py_ssize_t key_bytes, head_bytes, size;
    double began;
} Request;

/* When what is replaced cannot be kept (KEEPING of kvd.store.tree). */
typedef struct {
    unsigned long long share, bytes, times;
} Keeping;

/* The room of a file system, in bytes; none at all: it is unknown. */
typedef struct {
    unsigned long long free, all;
} Space;

/* The turns of the reactor in which a folder was looked at; see turn.c. */
typedef struct {
    unsigned long long found;   /* it has its name */
    unsigned long long alike;   /* files get the same in it as in the folder of uploads */
} Looks;

/* The folder of a key, or the last one on its path that exists. */
typedef struct {
    int descriptor;             /* below 0: it cannot be opened */
    int is_kept;                /* otherwise `leave_parent` closes it */
    int is_missing;             /* whether it is not the key's folder, which has to be made */
    Looks *looks;               /* NULL: it is not kept */
} Parent;

/* A value that is written and published. */
typedef struct {
    char name[UPLOAD_NAME_BYTES];   /* in the folder of uploads */
    int is_nameless;            /* whether its file does not have that name, or any other */
    const char *key;
    Py_ssize_t length;
    PyObject *lines;            /* of its metadata */
    char id[ID_TEXT];
    long long offset;           /* of its key's lock */
    int keeps;                  /* whether the replaced value is kept, under its name */
    struct Usage *usage;        /* counts it; NULL: the store has no limits */
    Py_ssize_t quota;           /* of its key (usage.c) */
    long long held;             /* bytes that it has reserved of its quotas */
    unsigned long long sealed_us;   /* the date that it was sealed with; 0: not yet */
    long sealed_epoch;              /* and the epoch */
} Upload;

/* What a value's file is sealed with: its attribute and its times. */
typedef struct {
    const char *id;
    unsigned long long length;
    Text lines;                 /* of its metadata */
    unsigned long long sealed_us;       /* as in Upload */
    long sealed_epoch;
} Seal;

/* What a key has now. */
typedef struct {
    int exists;
    unsigned long long bytes, earliest_us;      /* 0, unless kvd has written it */
    long epoch;                                 /* the same */
} Present;

/* How a written file gets the name of its key; see place.c. */
typedef struct {
    int uploads, file, folder, lock;    /* lock below 0: the store has no epochs */
    const char *upload, *name;
    const char *kept;           /* for what it replaces; NULL: the upload's own */
    int keeps, exchanges;
    int may_seal;               /* otherwise it has to be sealed already */
    int read_flags, ahead_seconds;
    const Keeping *keeping;
    const Space *space;
    unsigned long long now_us;
    long epoch;
    const char *left;           /* a file that could not be removed; NULL: none */
    int left_error;
} Placing;

/* A file that is to be synced, or has been, or the folders on a path (sync.c). */
typedef struct Sync {
    struct Sync *next;          /* in the list that it is in */
    struct Sync *leader;        /* the first of its group */
    struct Sync *fellow;        /* the next of its group; NULL: it is the last */
    unsigned int undone;        /* of a leader: how many of its group are not synced yet */
    int descriptor;             /* of the file, or of the root */
    const char *path;           /* from the root; NULL: it is a file */
    Py_ssize_t first, depth;    /* of folders; as sync_path */
    int error;                  /* an errno; 0: it is on the disk */
} Sync;

/* The bucket of a duration by its exponent (kvd.ipc.histogram). */
typedef struct {
    int least_exponent;
    Py_ssize_t count, most;     /* of buckets: the highest */
    unsigned char bucket[MAX_EXPONENTS];
} Durations;

/* The row of this process, and the numbers of words in it (kvd.ipc.row). */
typedef struct {
    PyObject_HEAD
    Py_buffer row;
    Py_ssize_t accepted, open, begun, done, bytes_in, bytes_out, uploads, awake;
    PyObject *status_words;     /* the word of a status, behind that of its method */
    Py_ssize_t method_words;    /* the last one behind that of a method */
    Durations durations;
} RequestCounts;

typedef struct Syncs Syncs;
/* A PUT whose head has come, and not all of its body: what has come is in its file. */
typedef struct {
    Request request;            /* has the bytes of its head alone */
    PyObject *key;
    Upload upload;
    int file;
    int may_keep;               /* whether its name is fit for what it replaces */
    Py_ssize_t received;        /* of the body */
    double waits_since;         /* for more of it; by Python's clock */
    PyObject *unwritten;        /* what the file did not take; NULL: nothing */
    Py_ssize_t sent;            /* of the interim reply */
    PyObject *unsent;           /* what the socket did not take of it; NULL: nothing */
    PyObject *make;             /* what Python is given of it */
    char head[];
} PartialUpload;

/* A value whose file is open. */
typedef struct {
    int file;
    unsigned long long device, inode, size;
    unsigned long long changed_ns, touched_ns;      /* mtime, ctime; modulo 2**64 */
    time_t published;                               /* in seconds */
    char published_date[DATE_BYTES];
    char id[ID_TEXT];
    PyObject *parts;            /* of its replies, for its metadata (value.c) */
} Value;

/* The part of a value that is sent. */
typedef struct {
    int status;
    unsigned long long first, bytes;
} Selection;

/* The attribute of a file. */
typedef struct {
    char text[ATTRIBUTE_BYTES];
    size_t bytes, line_bytes;   /* of all of it, and of its first line */
} Attribute;

/* What was found under a key. */
enum { ABSENT, FOUND, UNUSUAL };

/* A value that is kept in memory, with its file open. */
typedef struct RecentValue {
    PyObject_HEAD
    Value value;
    PyObject *key, *body;
    struct RecentValue *newer, *older;      /* by the time of the last read */
} RecentValue;

typedef struct RecentValues RecentValues;

/* A value of another store, whose file is one of a cache (hits.c). */
typedef struct {
    PyObject_HEAD
    PyObject *name;             /* of the file */
    PyObject *parts;            /* of the value's replies */
    PyObject *info;             /* what Python knows of the value */
    double until;               /* by Python's clock */
    time_t published;
    char published_date[DATE_BYTES];
    char file_id[ID_TEXT], id[ID_TEXT];     /* of the file, and of the value */
} Hit;

/* What the values of the store take, counted by all processes. */
typedef struct Usage Usage;

/* Values that may be removed to make room. */
typedef struct Candidates Candidates;

/* What a connection has had served here. */
typedef struct {
    unsigned int requests;
    double seconds;             /* of all of them */
    unsigned long long bytes;   /* received and sent */
} Account;

/* A connection that stays open after a request, or has sent none yet. */
typedef struct {
    PyObject_HEAD
    char held;                  /* whether it has no Python object; see `hold` */
    double made;                /* when it was accepted, if it was held */
    char idle;                  /* whether the fast path may read the next bytes */
    char logs_in;               /* see logins.c */
    PartialUpload *upload;      /* that receives the next bytes; NULL: none */
    struct Commit *commit;      /* the one that it waits for and Python does not know of */
    PyObject *connection;       /* the Python object */
    PyObject *served;           /* when serve_idle last served a request; NULL: never */
    /* Over TLS: the connection's kvd.net.secure_socket.SecureSocket, and its functions.
       NULL: it is a plain one. */
    PyObject *secure, *records;
    PyObject *number;           /* of its socket */
    PyObject *joined;           /* FastPath.joined */
    PyObject *peer;             /* the client; NULL: not asked yet */
    PyObject *user;             /* that its certificate names; NULL: none */
    PyObject *proxy;            /* that has made it for the client; NULL: none */
    Account account;
} Joined;

/* A folder that is held open. */
typedef struct {
    char name[64];              /* empty: none */
    int descriptor;
    dev_t device;
    ino_t inode;
    Looks looks;
} Folder;

/* What files inherit from the folder that they are created in
   (kvd.store.conferring). */
typedef struct {
    long long group;            /* -1: that of the process */
    ssize_t list_bytes;         /* of its default access control list */
    char list[LIST_BYTES];
} Conferred;

/* The fast path of a process. */
typedef struct {
    PyObject_HEAD
    int busy;                   /* whether a request is being served */
    int may_block;              /* whether its socket may be a blocking one */
    int root, lock, uploads, exchanges, folder_mode;
    int read_flags, create_flags, nameless_flags;   /* with which files are opened */
    dev_t device;               /* of the root */
    int guesses;                /* whether the end of a key may say the type of its value */
    int finds_unwritten;        /* whether its file system reports unwritten parts */
    int expects_new;            /* whether the next PUT is tried as one of a new key */
    int may_not_replace;        /* whether a rename can be told not to replace anything */
    int links_nameless;         /* whether a file without a name can be given one */
    int is_all_in_memory;       /* whether it never reports that a read would block */
    const char *plain;          /* the bytes of a key that error messages do not escape */
    PyObject *plain_bytes;
    /* How much of a file is sent at once; up to which round-trip time a client gets a
       small send buffer, and how small it is. */
    Py_ssize_t file_bytes;
    int low_round_trip_microseconds, low_round_trip_buffer_bytes;
    Py_ssize_t large_file_bytes;        /* smaller parts of files leave the buffer alone */
    dev_t lock_device;
    ino_t lock_inode;
    Conferred conferred;        /* from the upload folder */
    mode_t mode;                /* of files that are created in it */
    Py_ssize_t most_head, most_key;     /* bytes; Python handles longer ones */
    RequestCounts *counts;
    /* Functions and types of Python, and their cached results. */
    PyObject *report, *rest, *partial, *make_template, *make_parts, *logs_in, *prune, *clock;
    PyObject *templates, *older_templates;      /* by shape; see template.c */
    PyObject *parts;
    PyObject *hits;             /* by key; NULL: the values are those of the store */
    PyObject *kept;             /* see kvd.store.writeback; NULL: nothing is kept */
    int has_epochs;             /* see kvd.store.epochs */
    Usage *usage;               /* NULL: the store has no limits */
    unsigned long long min_free;        /* how many bytes stay free */
    Py_ssize_t most_kept;       /* replaced values, at once */
    Keeping keeping;
    char slash;                 /* in the name of what is kept */
    int ahead_seconds;          /* of an access time (AHEAD_SECONDS of kvd.store.epochs) */
    long long latest_second;    /* of any date */
    Text metadata_fields;       /* in `metadata_bytes`: see `kind_of` */
    PyObject *metadata_bytes;
    size_t message_bytes, message_descriptors;      /* see kvd.ipc.messages */
    int channel, credits;       /* see batches.c; channel below 0: none */
    Py_ssize_t batch_word;      /* of the row */
    PyObject *adopt, *came;     /* NULL without a channel */
    PyObject *plain_groups;     /* a byte for each group of sockets; NULL without one */
    PyObject *nothing;          /* empty bytes */
    PyObject *joined;           /* connections that stay open, by descriptor */
    int poller;                 /* the reactor's; below 0: none is held; see `hold` */
    unsigned long long most_open;       /* below so many open ones, one can be held */
    Py_ssize_t held;            /* how many are */
    PyObject *adopt_held;       /* NULL without a poller */
    int turns;                  /* for so many connections more, processes take turns */
    PyObject *listeners;        /* see `share`: ports and servers, by descriptor */
    Joined *adopting;           /* that Python is about to have join, borrowed; or NULL */
    /* Those of the connection that is served now, borrowed; NULL: it is a plain one. */
    PyObject *secure, *records;
    /* RECORD_BYTES; a view of the buffer; and names of attributes. NULL: not needed so
       far. */
    PyObject *record_bytes, *view, *begun_name, *unsent_name;
    /* The outcome that the next `serve` of this socket returns; below 0: none. */
    int left_socket;
    PyObject *left;             /* NULL: it raises the exception */
    PyObject *left_type, *left_value, *left_traceback;
    Syncs *syncs;               /* at durability disk; else NULL */
    struct Commit *commit;      /* one that nobody has taken yet; NULL: none */
    /* Of the last connection that was served and has not joined yet; NULL: none. */
    int new_socket;
    PartialUpload *new_upload;
    PyObject *new_peer;
    Account new_account;
    /* See reports.c; NULL: nobody wants them. */
    PyObject *requests, *connections, *reports_come;
    /* The last request. */
    PyObject *unsent;           /* the end of its reply; NULL: nothing */
    int rest_file;              /* the file with the rest of its body; below 0: none */
    PyObject *hit_info;         /* of the value in it, if it is that of a hit; or NULL */
    unsigned long long rest_offset, rest_bytes;
    int status;                 /* 0: the client left before the reply */
    Py_ssize_t method;          /* the first word of those that count it */
    Py_ssize_t head_bytes, body_bytes, sent_bytes;
    Py_ssize_t moved_bytes;
    double seconds;
    time_t date_second, day;
    char day_text[DAY_BYTES];   /* the date of `day`; empty: not set yet */
    char date[DATE_BYTES + 1];
    unsigned char random[1024];
    size_t random_left;
    unsigned long long names;
    unsigned int most_folders;
    Folder *folders;            /* so many; NULL: none yet */
    unsigned long long turn;    /* see turn.c; 0: no look is shared */
    unsigned long long batches; /* of commits */
    Looks root_looks;
    Space room;                 /* what is left of it */
    unsigned long long room_turn;       /* when it was looked at */
    Py_ssize_t most_recent;     /* the largest number of values kept in memory */
    RecentValues *recent;       /* NULL: none yet */
    struct KnownValue *known;   /* see known.c; NULL: none yet */
    struct LoginAddress *login_addresses;       /* see logins.c; NULL: none yet */
    /* Allocated separately: a process that serves nothing never touches its pages. */
    char *buffer;
} FastPath;

static inline double
now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* Append to the head of a reply. Returns the new length; above HEAD_ROOM if there is no
   room. */
static inline size_t
append_text(char *head, size_t used, const char *text, size_t size)
{
    if (used + size > HEAD_ROOM)
        return HEAD_ROOM + 1;
    memcpy(head + used, text, size);
    return used + size;
}

static inline size_t
append(char *head, size_t used, PyObject *bytes)
{
    return append_text(head, used, PyBytes_AsString(bytes), (size_t)PyBytes_Size(bytes));
}

/* joined.c */
extern PyTypeObject *JoinedType;
extern PyType_Spec Joined_spec;

/* connections.c */
extern const char serve_doc[];
extern const char serve_idle_doc[];
extern const char serve_new_doc[];
extern const char accept_doc[];
extern const char join_doc[];
void drop_left(FastPath *self);
PyObject *FastPath_serve(FastPath *self, PyObject *argument);
PyObject *FastPath_serve_idle(FastPath *self, PyObject *argument);
PyObject *FastPath_serve_new(FastPath *self, PyObject *argument);
PyObject *FastPath_accept(FastPath *self, PyObject *const *arguments,
                          Py_ssize_t count);
PyObject *FastPath_join(FastPath *self, PyObject *argument);
enum { HAS_ENDED, IS_HELD, IS_LEFT };
int serve_accepted(FastPath *self, int socket, int may_block);
int serve_whole(FastPath *self, int socket, int may_block);
PyObject *said_peer(const FastPath *self);
extern const char hold_doc[];
extern const char adopt_held_doc[];
PyObject *FastPath_hold(FastPath *self, PyObject *args);
PyObject *FastPath_adopt_held(FastPath *self, PyObject *argument);

/* shared.c */
extern const char share_doc[];
extern const char unshare_doc[];
int accept_one(FastPath *self, PyObject *number);
PyObject *FastPath_share(FastPath *self, PyObject *args);
PyObject *FastPath_unshare(FastPath *self, PyObject *argument);

/* batches.c */
extern const char take_batches_doc[];
extern const char leave_batches_doc[];
int serve_channel(FastPath *self);
void leave_batches(FastPath *self);
PyObject *FastPath_take_batches(FastPath *self, PyObject *args);
PyObject *FastPath_leave_batches(FastPath *self, PyObject *none);

/* turn.c */
void begin_turn(FastPath *self);
void begin_batch(FastPath *self);
void end_turn(FastPath *self);
int is_of_turn(const FastPath *self, unsigned long long looked);

/* serve.c */
PyObject *serve_one(FastPath *self, int socket, Joined *joined);
Py_ssize_t read_more(int socket, char *bytes, Py_ssize_t received, Py_ssize_t size);
PyObject *outcome_of(FastPath *self, int socket, Joined *joined, const Request *request,
                     int is_known);

/* reports.c */
extern const char report_to_doc[];
extern const char take_reports_doc[];
PyObject *peer_from(const struct sockaddr_storage *from);
PyObject *peer_of(FastPath *self, int socket, Joined *joined);
int accept_new(FastPath *self, int listener);
int report(FastPath *self, int socket, Joined *joined, const Request *request,
           int is_known);
int report_end(FastPath *self, double made, const Account *account);
double clock_seconds(const FastPath *self);
PyObject *FastPath_report_to(FastPath *self, PyObject *args);
PyObject *FastPath_take_reports(FastPath *self, PyObject *none);

/* logins.c */
int logs_in_at_once(FastPath *self, int socket, Joined *joined);
void forget_login_addresses(FastPath *self);

/* secure.c */
extern const char serve_secure_doc[];
PyObject *FastPath_serve_secure(FastPath *self, PyObject *const *arguments,
                                Py_ssize_t count);
Py_ssize_t receive_secure(FastPath *self, int socket);
Py_ssize_t receive_more_secure(FastPath *self, Py_ssize_t received, Py_ssize_t size);
Py_ssize_t send_reply_secure(FastPath *self, int socket, const char *head,
                             size_t head_bytes, const char *body, size_t body_bytes);
int send_file_secure(FastPath *self, int socket, Value *value, const Selection *selected,
                     const char *head, size_t head_bytes, Py_ssize_t received,
                     double began);

/* fields.c */
enum { MATCHES_STRONGLY = 1, MATCHES_WEAKLY = 2 };
enum { WHOLE, PART, BEYOND, SEVERAL };
int match_tags(const Text *list, const char *etag, Py_ssize_t etag_bytes);
int read_date(const Text *text, long long *second);
int read_range(const Text *asked, const Text *condition, const char *etag,
               Py_ssize_t etag_bytes, unsigned long long size,
               unsigned long long *first, unsigned long long *length);
PyObject *entity_tags(PyObject *module, PyObject *argument);
PyObject *fixed_date(PyObject *module, PyObject *argument);
PyObject *byte_range(PyObject *module, PyObject *args);

/* shape.c */
Py_ssize_t cut_head(char *shape, const char *head, Py_ssize_t line, Py_ssize_t rest,
                    Py_ssize_t size, Text texts[VARYING_FIELDS]);
Py_ssize_t body_length(const Text *given);

/* conditions.c */
int read_varying(Varying *varying);
int select_part(const HeadTemplate *template, const Varying *varying,
                const Value *value, Selection *selected);

/* target.c */
Py_ssize_t plain_key_bytes(const char *text, const char *end);
PyObject *plain_key(PyObject *module, PyObject *target);

/* template.c */
extern PyTypeObject *HeadTemplateType;
extern PyType_Spec HeadTemplate_spec;
PyObject *template_of(FastPath *self, const char *shape, Py_ssize_t shape_bytes,
                      const char *head, Py_ssize_t head_bytes);
PyObject *get_template(PyObject *module, PyObject *args);
PyObject *put_template(PyObject *module, PyObject *args);
PyObject *limit_template(PyObject *module, PyObject *args);
int is_for_key(const HeadTemplate *template, const char *key, Py_ssize_t key_bytes);

/* get.c */
int serve_get(FastPath *self, int socket, HeadTemplate *template,
              const Varying *varying, PyObject *key, Py_ssize_t received, double began);

/* value.c */
int open_value(FastPath *self, const char *key, Value *value, Attribute *attribute);
int is_written(const FastPath *self, int file, const struct stat *status);
int is_unchanged(const Value *value, const struct stat *found);
int are_parts(PyObject *parts);
int find_parts(FastPath *self, Value *value, const Attribute *attribute, PyObject *key);
size_t value_head(FastPath *self, char *head, const Value *value,
                  const Selection *selected, PyObject *tail);

/* hits.c */
extern PyTypeObject *HitType;
extern PyType_Spec Hit_spec;
extern const char offer_doc[];
extern const char withdraw_doc[];
PyObject *FastPath_offer(FastPath *self, PyObject *args);
PyObject *FastPath_withdraw(FastPath *self, PyObject *key);
Hit *find_hit(FastPath *self, PyObject *key);
int is_of_hit(const Hit *hit, const Value *value);
void describe_hit(const Hit *hit, Value *value);

/* file.c */
int send_file(FastPath *self, int socket, Value *value, const Selection *selected,
              char *head, size_t head_bytes, Py_ssize_t received, double began);
void drop_rest(FastPath *self);
extern const char take_remainder_doc[];
PyObject *FastPath_take_remainder(FastPath *self, PyObject *none);
extern const char send_at_most_doc[];
PyObject *FastPath_send_at_most(FastPath *self, PyObject *size);

/* recent.c */
extern PyTypeObject *RecentValueType;
extern PyType_Spec RecentValue_spec;
RecentValue *find_recent(FastPath *self, PyObject *key);
int was_read(FastPath *self, PyObject *key, const Value *value);
int keep_recent(FastPath *self, PyObject *key, Value *value, PyObject *body);
void forget_recent(FastPath *self);

/* known.c */
void remember_published(FastPath *self, int file, const Upload *upload);
int find_published(FastPath *self, int folder, const char *name, const Upload *upload,
                   Present *present);
void forget_published(FastPath *self);

/* put.c */
PyObject *kept_name(PyObject *module, PyObject *args);
int is_of_kept(PyObject *kept);
PyObject *keeps_replaced(PyObject *module, PyObject *args);
PyObject *note_change(PyObject *module, PyObject *args);
int serve_put(FastPath *self, int socket, const Request *request, PyObject *key);
int prepare_upload(FastPath *self, const Request *request, PyObject *key, Upload *upload);
int finish_put(FastPath *self, int socket, PartialUpload *partial);

/* upload.c */
extern const char take_upload_doc[];
PyObject *Joined_take_upload(Joined *self, PyObject *none);
int begin_upload(FastPath *self, const Request *request, PyObject *key, Joined *joined);
int ask_for_body(FastPath *self, int socket, PartialUpload *partial);
PyObject *receive_body(FastPath *self, int socket, PartialUpload **place, Joined *joined,
                       char *bytes, Py_ssize_t received);
void free_upload(PartialUpload *partial);
void drop_new_upload(FastPath *self);
Py_ssize_t reply_published(FastPath *self, int socket, const HeadTemplate *template,
                           const Upload *upload, int replaced);

/* commit.c */
extern PyTypeObject *CommitType;
extern PyType_Spec Commit_spec;
extern const char sync_event_doc[];
extern const char take_commit_doc[];
extern const char hand_over_doc[];
extern const char publish_synced_doc[];
extern const char sync_folders_later_doc[];
extern const char reply_all_doc[];
extern const char reply_to_doc[];
extern const char joined_take_commit_doc[];
PyObject *Joined_take_commit(Joined *self, PyObject *connection);
void leave_commit(Joined *joined);
int wait_alone(FastPath *self, Joined *joined);
int begin_commit(FastPath *self, const Request *request, PyObject *key, Upload *upload);
int commit_partial(FastPath *self, PartialUpload *partial);
void drop_commit(FastPath *self);
void end_commits(FastPath *self);
PyObject *FastPath_sync_event(FastPath *self, PyObject *none);
PyObject *FastPath_take_commit(FastPath *self, PyObject *connection);
PyObject *FastPath_hand_over(FastPath *self, PyObject *none);
PyObject *FastPath_publish_synced(FastPath *self, PyObject *none);
PyObject *FastPath_sync_folders_later(FastPath *self, PyObject *args);
PyObject *FastPath_reply_all(FastPath *self, PyObject *commits);
PyObject *FastPath_reply_to(FastPath *self, PyObject *const *arguments,
                            Py_ssize_t count);

/* sync.c */
PyObject *count_syncs(PyObject *module, PyObject *args);
PyObject *sync_descriptor(PyObject *module, PyObject *argument);
PyObject *sync_folders(PyObject *module, PyObject *args);
Syncs *new_syncs(unsigned int most_threads);
int event_of(const Syncs *syncs);
int sync_later(Syncs *syncs, Sync *sync);
void gather_syncs(Syncs *syncs);
void hand_over_syncs(Syncs *syncs);
Sync *take_synced(Syncs *syncs);
Sync *end_syncs(Syncs *syncs);
void free_syncs(Syncs *syncs);

/* attribute.c */
PyObject *write_line(PyObject *module, PyObject *args);
PyObject *read_line(PyObject *module, PyObject *attribute);
ssize_t get_attribute(int file, char *text, size_t size);
PyObject *read_metadata(PyObject *module, PyObject *args);
PyObject *file_kind(PyObject *module, PyObject *args);
size_t whole_line(const FastPath *self, const char *text, ssize_t size,
                  const struct stat *status, unsigned long long *published_us);
int has_value(const FastPath *self, int folder, const char *name,
              unsigned long long *published_us, long *epoch, unsigned long long *bytes);
unsigned long long present_us(void);
int is_sealed(const Seal *seal, unsigned long long now_us, unsigned long long earliest_us,
              long epoch);
int seal_file(int ahead_seconds, int file, Seal *seal, unsigned long long now_us,
              unsigned long long earliest_us, long epoch);
PyObject *seal_now(PyObject *module, PyObject *args);

PyObject *stamp_file(PyObject *module, PyObject *args);
PyObject *stamped_epoch(PyObject *module, PyObject *args);
PyObject *note_read(PyObject *module, PyObject *args);
PyObject *is_stale_at(PyObject *module, PyObject *args);
void note_if_stale(const FastPath *self, int file, const struct stat *status);

/* folder.c */
unsigned int most_folders(void);
void close_folders(FastPath *self);
int open_beneath(int root, const char *path, int flags);
int open_path(int root, const char *path, int mode);
int enter_parent(FastPath *self, const char *key, Parent *parent);
void leave_parent(const Parent *parent);
int is_conferred_alike(const FastPath *self, const Parent *parent);
PyObject *open_folder(PyObject *module, PyObject *args);
PyObject *make_one_folder(PyObject *module, PyObject *args);
PyObject *default_list(PyObject *module, PyObject *folder);
PyObject *conferred_by(PyObject *module, PyObject *folder);
PyObject *mark_text(PyObject *module, PyObject *args);
PyObject *magic_of(PyObject *module, PyObject *folder);

/* offset.c */
long long lock_offset(const char *key, size_t size);
PyObject *offset_of(PyObject *module, PyObject *key);

/* place.c */
long epoch_of_lock(int lock);
long epoch_in(long nanosecond);
int is_scarce(const Keeping *keeping, const Space *space, unsigned long long size);
int place_file(Placing *placing, const Present *present, Seal *seal);
PyObject *has_no_place(PyObject *module, PyObject *args);
PyObject *epoch_of_fraction(PyObject *module, PyObject *nanosecond);
PyObject *is_scarce_for(PyObject *module, PyObject *args);
PyObject *exchange_names(PyObject *module, PyObject *args);
PyObject *place_written(PyObject *module, PyObject *args);

/* publish.c */
#define LOCK_PATH ".kvd/lock"
int find_lock(FastPath *self);
PyObject *room_beside(PyObject *module, PyObject *args);
int seal_upload(const FastPath *self, int file, Upload *upload);
int links_nameless(const FastPath *self);
int set_lock(int lock, short kind, long long offset);
void unlock_all(int lock);
int reserve(Upload *upload);
void release(Upload *upload);
int create_file(FastPath *self, Upload *upload);
int create_file_early(FastPath *self, Upload *upload);
int is_of_present(const Upload *upload);
Py_ssize_t write_all(int file, const char *body, Py_ssize_t length);
int publish_file(FastPath *self, Upload *upload, int file, int *is_made);
int publish(FastPath *self, Upload *upload, const char *body, int *is_made);

/* candidates.c */
extern PyTypeObject *CandidatesType;
extern PyType_Spec Candidates_spec;
int remember_value(Candidates *self, long long accessed_ns, unsigned long long inode,
                   const char *prefix, size_t prefix_bytes, const char *name,
                   size_t name_bytes);

/* look.c */
PyObject *look_at(PyObject *module, PyObject *args);

/* remove.c */
PyObject *remove_unchanged(PyObject *module, PyObject *args);

/* usage.c */
extern PyTypeObject *UsageType;
extern PyType_Spec Usage_spec;
long long taken_by(unsigned long long length);
PyObject *taken_by_length(PyObject *module, PyObject *length);
PyObject *quota_of_key(PyObject *module, PyObject *args);
Py_ssize_t quota_of(const Usage *self, const char *key, size_t size);
int reserve_bytes(const Usage *self, Py_ssize_t quota, long long bytes);
void release_bytes(const Usage *self, Py_ssize_t quota, long long bytes);
void count_published(const Usage *self, Py_ssize_t quota, long long bytes,
                     long long replaced);
long long read_resolution(const Usage *self);

/* counts.c */
extern PyTypeObject *RequestCountsType;
extern PyType_Spec RequestCounts_spec;
int read_durations(Durations *durations, PyObject *buckets, int least_exponent);
Py_ssize_t bucket_of(const Durations *durations, double seconds);
unsigned long long *word_of(const RequestCounts *self, Py_ssize_t number);
Py_ssize_t words_of(const RequestCounts *self);
int has_method(const RequestCounts *self, Py_ssize_t method);
void count_opened(const RequestCounts *self);
void count_closed(const RequestCounts *self);
void count_accepted(const RequestCounts *self);
void count_begun(const RequestCounts *self, int is_upload);
void count_received(const RequestCounts *self, Py_ssize_t bytes);
void count_sent(const RequestCounts *self, Py_ssize_t bytes);
void count_done(const RequestCounts *self, Py_ssize_t method, int is_upload, int status,
                double seconds);

/* reply.c */
PyObject *date_text(PyObject *module, PyObject *second);
void write_date(FastPath *self, char *text, time_t second);
char *write_digits(char *end, unsigned long long number);
const char *http_date(FastPath *self);
void count_upload_done(FastPath *self);
void count(FastPath *self, Py_ssize_t received, Py_ssize_t sent);
Py_ssize_t send_reply(FastPath *self, int socket, char *head, size_t head_bytes,
                      char *body, size_t body_bytes);

#endif
