/*
 * PUTs at durability disk, from the written file to the reply.
 *
 *     begin_commit      the file is written and sealed, and given to a thread (sync.c)
 *     publish_synced    all files that are synced by now get their keys' names; in a later
 *                       second than they were sealed in, they are sealed and synced again
 *     (Python)          says which folders are to be synced (kvd.store.sync), and a thread
 *                       syncs them
 *     reply_to          the client hears of it
 *
 * The order is that of kvd.store.upload. All but the syncs is done in the reactor's thread.
 * Python knows each commit from its beginning (kvd.http.commits), and takes on what goes
 * another way: a sync that failed, a value that cannot be published here, a client that has
 * left, the end of the process.
 */

#include "fast_path.h"

#include <errno.h>
#include <stddef.h>
#include <structmember.h>
#include <unistd.h>

PyTypeObject *CommitType;

typedef struct Commit {
    PyObject_HEAD
    Sync sync;
    Upload upload;
    int file;                   /* below 0: it is published, or another's */
    int is_sealed_again;
    int replaced;               /* whether the key had a value */
    HeadTemplate *template;
    PyObject *key, *head;       /* of the request */
    Py_ssize_t line_bytes, size;    /* of it, as in Request */
    Py_ssize_t sent;            /* before the reply */
    double began;
    PyObject *connection;       /* Python's: which waits for the reply */
    Joined *joined;             /* which does, unknown to Python; NULL: none */
} Commit;

static void
Commit_dealloc(Commit *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    /* What is left of it is swept with the folder of uploads. */
    if (self->file >= 0)
        close(self->file);
    release(&self->upload);
    Py_XDECREF((PyObject *)self->upload.usage);
    Py_XDECREF((PyObject *)self->template);
    Py_XDECREF(self->key);
    Py_XDECREF(self->head);
    Py_XDECREF(self->connection);
    Py_XDECREF((PyObject *)self->joined);
    PyObject_Free(self);
    Py_DECREF((PyObject *)type);
}

PyDoc_STRVAR(take_file_doc,
"take_file() -> (descriptor, name, held)\n"
"\n"
"The file, its name in the folder of uploads, and how many bytes of the quotas are\n"
"reserved for it; all are the caller's from now on.");

static PyObject *
Commit_take_file(Commit *self, PyObject *Py_UNUSED(none))
{
    PyObject *taken
        = Py_BuildValue("(iyL)", self->file, self->upload.name, self->upload.held);
    if (taken != NULL) {
        self->file = -1;
        self->upload.held = 0;
    }
    return taken;
}

static PyObject *
Commit_etag(Commit *self, void *Py_UNUSED(closure))
{
    return PyUnicode_FromStringAndSize(self->upload.id, ID_TEXT);
}

static PyObject *
Commit_seconds(Commit *self, void *Py_UNUSED(closure))
{
    return PyFloat_FromDouble(now() - self->began);
}

/* The connection that waits unknown to Python. */
static PyObject *
Commit_unknown(Commit *self, void *Py_UNUSED(closure))
{
    if (self->joined == NULL || self->joined->connection == NULL)
        Py_RETURN_NONE;
    return Py_NewRef(self->joined->connection);
}

static PyMethodDef Commit_methods[] = {
    {"take_file", (PyCFunction)Commit_take_file, METH_NOARGS, take_file_doc},
    {NULL},
};

static PyGetSetDef Commit_getset[] = {
    {"unknown", (getter)Commit_unknown, NULL, NULL, NULL},
    {"etag", (getter)Commit_etag, NULL, NULL, NULL},
    {"seconds", (getter)Commit_seconds, NULL, NULL, NULL},
    {NULL},
};

static PyMemberDef Commit_members[] = {
    {"connection", T_OBJECT, offsetof(Commit, connection), 0, NULL},
    {"key", T_OBJECT, offsetof(Commit, key), READONLY, NULL},
    {"head", T_OBJECT, offsetof(Commit, head), READONLY, NULL},
    {"error", T_INT, offsetof(Commit, sync.error), READONLY, NULL},
    {"replaced", T_INT, offsetof(Commit, replaced), READONLY, NULL},
    {"sent", T_PYSSIZET, offsetof(Commit, sent), READONLY, NULL},
    {"size", T_PYSSIZET, offsetof(Commit, upload.length), READONLY, NULL},
    {"published_us", T_ULONGLONG, offsetof(Commit, upload.sealed_us), READONLY, NULL},
    {NULL},
};

static PyType_Slot Commit_slots[] = {
    {Py_tp_dealloc, Commit_dealloc},
    {Py_tp_methods, Commit_methods},
    {Py_tp_members, Commit_members},
    {Py_tp_getset, Commit_getset},
    {0, NULL},
};

PyType_Spec Commit_spec = {
    .name = "kvd.native._fast_path.Commit",
    .basicsize = sizeof(Commit),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = Commit_slots,
};

/* Folders on a path that are to be synced, or have been. */
typedef struct {
    Sync sync;
    PyObject *path, *done;      /* bytes; what Python calls then */
} FolderSync;

static Commit *
commit_of(Sync *sync)
{
    return (Commit *)((char *)sync - offsetof(Commit, sync));
}

static FolderSync *
folders_of(Sync *sync)
{
    return (FolderSync *)((char *)sync - offsetof(FolderSync, sync));
}

static void
drop_sync(Sync *sync)
{
    if (sync->path == NULL) {
        Py_DECREF((PyObject *)commit_of(sync));
        return;
    }
    FolderSync *folders = folders_of(sync);
    Py_DECREF(folders->path);
    Py_DECREF(folders->done);
    PyMem_Free(folders);
}

/* Create, write and seal the file of an upload. Returns it; -1 after an error, with
   nothing left. */
static int
write_file(FastPath *self, Upload *upload, const char *body)
{
    int file = create_file(self, upload);
    if (file < 0)
        return -1;
    if (write_all(file, body, upload->length) == upload->length
        && seal_upload(self, file, upload) == 0)
        return file;
    unlinkat(self->uploads, upload->name, 0);
    close(file);
    return -1;
}

/*
 * Have a file synced, which is written and sealed. When the event reports it, `take_commit`
 * takes the commit.
 *
 * Returns 1, and the file belongs to the commit, with what is reserved for it; 0 if there is
 * no thread for it; -1 with an exception.
 */
static int
sync_upload(FastPath *self, const Request *request, PyObject *key, Upload *upload,
            int file)
{
    PyObject *head = PyBytes_FromStringAndSize(request->bytes, request->head_bytes);
    if (head == NULL)
        return -1;
    Commit *commit = PyObject_New(Commit, CommitType);
    if (commit == NULL) {
        Py_DECREF(head);
        return -1;
    }
    Py_INCREF((PyObject *)request->template);
    commit->template = request->template;
    commit->key = Py_NewRef(key);
    commit->head = head;
    commit->connection = NULL;
    commit->joined = NULL;
    commit->line_bytes = request->line_bytes;
    commit->size = request->size;
    commit->began = request->began;
    commit->is_sealed_again = 0;
    commit->replaced = 0;
    commit->sent = 0;
    commit->file = file;
    commit->upload = *upload;
    commit->upload.held = 0;
    Py_XINCREF((PyObject *)upload->usage);
    commit->sync.descriptor = file;
    commit->sync.path = NULL;
    commit->sync.error = 0;
    int begun;
    Py_BEGIN_ALLOW_THREADS
    begun = sync_later(self->syncs, &commit->sync);
    Py_END_ALLOW_THREADS
    if (begun < 0) {
        commit->file = -1;
        Py_DECREF((PyObject *)commit);
        return 0;
    }
    commit->upload.held = upload->held;
    upload->held = 0;
    /* The one reference is the thread's from now on. */
    self->commit = (Commit *)Py_NewRef((PyObject *)commit);
    return 1;
}

/*
 * Write the value of a PUT to its file, and have that synced.
 *
 * Returns 1; 0 if the request is left to Python; -1 with an exception.
 */
int
begin_commit(FastPath *self, const Request *request, PyObject *key, Upload *upload)
{
    int file;
    Py_BEGIN_ALLOW_THREADS
    file = write_file(self, upload, request->bytes + request->head_bytes);
    Py_END_ALLOW_THREADS
    int begun = file < 0 ? 0 : sync_upload(self, request, key, upload, file);
    if (begun > 0) {
        count_begun(self->counts, 1);
        count_received(self->counts, request->size);
        return 1;
    }
    release(upload);
    if (file >= 0) {
        unlinkat(self->uploads, upload->name, 0);
        close(file);
    }
    return begun;
}

/*
 * Have the file of a PUT synced whose body has come in pieces, all of which are written.
 * Returns 1; 0 if the upload is left to Python; -1 with an exception.
 */
int
commit_partial(FastPath *self, PartialUpload *partial)
{
    Upload *upload = &partial->upload;
    if (self->uploads < 0 || seal_upload(self, partial->file, upload) < 0)
        return 0;
    int begun = sync_upload(self, &partial->request, partial->key, upload, partial->file);
    if (begun > 0) {
        self->commit->sent = partial->sent;
        partial->file = -1;
        upload->name[0] = 0;
    }
    return begun;
}

/* Of a connection that nobody got to care for: the value is stored all the same. */
void
drop_commit(FastPath *self)
{
    Commit *commit = self->commit;
    if (commit == NULL)
        return;
    self->commit = NULL;
    self->method = commit->template->method;
    self->status = 0;
    self->seconds = now() - commit->began;
    count_upload_done(self);
    Py_DECREF((PyObject *)commit);
}

/* Let go of all that were not taken; the store is closed. */
void
end_commits(FastPath *self)
{
    drop_commit(self);
    if (self->syncs == NULL)
        return;
    Sync *next, *sync;
    Py_BEGIN_ALLOW_THREADS
    sync = end_syncs(self->syncs);
    Py_END_ALLOW_THREADS
    for (; sync != NULL; sync = next) {
        next = sync->next;
        drop_sync(sync);
    }
}

const char sync_event_doc[] =
"sync_event() -> int\n"
"\n"
"A descriptor that can be read when `publish_synced` has something to do; -1 if that will\n"
"never be.";

PyObject *
FastPath_sync_event(FastPath *self, PyObject *Py_UNUSED(none))
{
    return PyLong_FromLong(self->syncs == NULL ? -1 : event_of(self->syncs));
}

/* Give a commit to a connection, which knows of it from now on. Returns it; NULL if there is
   none at that place. */
static PyObject *
give_commit(Commit **place, PyObject *connection)
{
    Commit *commit = *place;
    if (commit == NULL)
        return NULL;
    *place = NULL;
    commit->connection = Py_NewRef(connection);
    Py_CLEAR(commit->joined);
    return (PyObject *)commit;
}

const char take_commit_doc[] =
"take_commit(connection) -> Commit\n"
"\n"
"What `serve` has begun for a connection.";

PyObject *
FastPath_take_commit(FastPath *self, PyObject *connection)
{
    PyObject *commit = give_commit(&self->commit, connection);
    if (commit == NULL)
        PyErr_SetString(PyExc_ValueError, "no commit has begun");
    return commit;
}

/*
 * Have a connection that stays wait for the commit that it has just begun, if its reply
 * will be all that is left to do. Python learns of it only if something else happens
 * meanwhile (`Joined.take_commit`). Returns whether it waits.
 */
int
wait_alone(FastPath *self, Joined *joined)
{
    Commit *commit = self->commit;
    if (commit == NULL || !commit->template->keep || joined->connection == NULL)
        return 0;
    drop_left(self);
    self->commit = NULL;
    joined->commit = commit;
    commit->joined = (Joined *)Py_NewRef((PyObject *)joined);
    return 1;
}

/* The connection waits no longer, if it did. */
void
leave_commit(Joined *joined)
{
    Commit *commit = joined->commit;
    if (commit == NULL)
        return;
    joined->commit = NULL;
    Py_CLEAR(commit->joined);
    Py_DECREF((PyObject *)commit);
}

const char joined_take_commit_doc[] =
"take_commit(connection) -> Commit | None\n"
"\n"
"What this connection waits for unknown to Python, which knows of it from now on.";

PyObject *
Joined_take_commit(Joined *self, PyObject *connection)
{
    PyObject *commit = give_commit(&self->commit, connection);
    return commit != NULL ? commit : Py_NewRef(Py_None);
}

/*
 * Seal and sync a value once more that is synced, if it was sealed in an earlier second: the
 * date is that of publication. Returns whether it is the thread's again.
 *
 * Once only: a disk that takes a second for each sync would never be done.
 */
static int
sync_again(FastPath *self, Commit *commit)
{
    if (commit->sync.error || self->uploads < 0 || commit->is_sealed_again
        || is_of_present(&commit->upload))
        return 0;
    int error = 0;
    commit->is_sealed_again = 1;
    Py_BEGIN_ALLOW_THREADS
    if (seal_upload(self, commit->file, &commit->upload) < 0)
        error = errno;
    else if (sync_later(self->syncs, &commit->sync) < 0)
        error = EAGAIN;
    Py_END_ALLOW_THREADS
    /* Half of the new seal may be in the file: it must not be published unsynced. */
    if (error)
        commit->sync.error = error;
    return error == 0;
}

/* Publish a value that is synced. Returns whether that was done. */
static int
publish_one(FastPath *self, Commit *commit)
{
    int replaced, is_made;
    if (commit->sync.error || self->uploads < 0)
        return 0;
    Py_BEGIN_ALLOW_THREADS
    /* Folders that it made in vain are Python's to use or to prune. */
    replaced = publish_file(self, &commit->upload, commit->file, &is_made);
    if (replaced >= 0)
        close(commit->file);
    Py_END_ALLOW_THREADS
    if (replaced < 0)
        return 0;
    commit->file = -1;
    commit->replaced = replaced != CREATED;
    return 1;
}

/* Add a commit to those of its folder. Returns -1 with an exception. */
static int
add_to_folder(PyObject *folders, Commit *commit)
{
    const char *key = commit->upload.key, *slash = strrchr(key, '/');
    PyObject *folder = PyBytes_FromStringAndSize(key, slash == NULL ? 0 : slash - key);
    if (folder == NULL)
        return -1;
    int done = -1;
    PyObject *list = PyDict_GetItemWithError(folders, folder);
    if (list != NULL)
        done = PyList_Append(list, (PyObject *)commit);
    else if (!PyErr_Occurred() && (list = PyList_New(0)) != NULL) {
        if (PyList_Append(list, (PyObject *)commit) == 0)
            done = PyDict_SetItem(folders, folder, list);
        Py_DECREF(list);
    }
    Py_DECREF(folder);
    return done;
}

const char sync_folders_later_doc[] =
"sync_folders_later(path, first, done)\n"
"\n"
"See kvd.http.fast_path.";

PyObject *
FastPath_sync_folders_later(FastPath *self, PyObject *args)
{
    PyObject *path, *done;
    Py_ssize_t first;
    if (!PyArg_ParseTuple(args, "SnO:sync_folders_later", &path, &first, &done))
        return NULL;
    FolderSync *folders = self->syncs == NULL ? NULL : PyMem_Calloc(1, sizeof *folders);
    if (folders == NULL) {
        if (self->syncs != NULL)
            return PyErr_NoMemory();
        PyErr_SetString(PyExc_ValueError, "nothing is synced at this durability");
        return NULL;
    }
    folders->sync.descriptor = self->root;
    folders->sync.path = PyBytes_AsString(path);
    folders->sync.first = first;
    folders->path = Py_NewRef(path);
    folders->done = Py_NewRef(done);
    int begun;
    Py_BEGIN_ALLOW_THREADS
    begun = sync_later(self->syncs, &folders->sync);
    Py_END_ALLOW_THREADS
    if (begun < 0)
        drop_sync(&folders->sync);
    return PyBool_FromLong(begun == 0);
}

const char hand_over_doc[] =
"hand_over()\n"
"\n"
"See kvd.http.fast_path.";

PyObject *
FastPath_hand_over(FastPath *self, PyObject *Py_UNUSED(none))
{
    if (self->syncs != NULL) {
        gather_syncs(self->syncs);
        hand_over_syncs(self->syncs);
    }
    Py_RETURN_NONE;
}

/* Add folders that are synced to those of which Python is told. Returns -1 with an
   exception. */
static int
add_synced(PyObject *synced, const FolderSync *folders)
{
    const Sync *sync = &folders->sync;
    PyObject *each = sync->error == 0
        ? Py_BuildValue("(OO)", folders->done, Py_None)
        : Py_BuildValue("(O(ni))", folders->done, sync->depth, sync->error);
    int added = each == NULL ? -1 : PyList_Append(synced, each);
    Py_XDECREF(each);
    return added;
}

const char publish_synced_doc[] =
"publish_synced() -> (dict[bytes, list[Commit]], list[Commit], list[(done, found)])\n"
"\n"
"Publish the values of all commits whose files are synced by now.\n"
"\n"
"Returns those that were published, by their folders, which are still to be synced; those\n"
"that were not: the sync failed if there is an `error`, else it is left to Python; and what\n"
"to call for folders that are synced by now, with what of kvd.store.sync.FolderSync.";

PyObject *
FastPath_publish_synced(FastPath *self, PyObject *Py_UNUSED(none))
{
    PyObject *published = PyDict_New(), *left = PyList_New(0), *synced = PyList_New(0);
    int failed = published == NULL || left == NULL || synced == NULL;
    if (!failed && self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "a request is being served");
        failed = 1;
    }
    Sync *next, *sync = failed || self->syncs == NULL ? NULL : take_synced(self->syncs);
    int was_busy = self->busy;
    self->busy = 1;
    begin_batch(self);
    for (; sync != NULL; sync = next) {
        int done;
        next = sync->next;
        if (sync->path != NULL)
            done = add_synced(synced, folders_of(sync));
        else if (sync_again(self, commit_of(sync)))
            continue;
        else if (publish_one(self, commit_of(sync)))
            done = add_to_folder(published, commit_of(sync));
        else
            done = PyList_Append(left, (PyObject *)commit_of(sync));
        failed |= done < 0;
        drop_sync(sync);
    }
    end_turn(self);
    self->busy = was_busy;
    if (failed) {
        Py_XDECREF(published);
        Py_XDECREF(left);
        Py_XDECREF(synced);
        return NULL;
    }
    return Py_BuildValue("(NNN)", published, left, synced);
}

/* Send the reply of a commit that is done, and count it. Returns how much was sent; -1
   with an exception. */
static Py_ssize_t
send_published(FastPath *self, int socket, const Commit *commit)
{
    /* Of a connection that nobody got to care for: never another's. */
    drop_rest(self);
    Py_ssize_t sent = reply_published(self, socket, commit->template, &commit->upload,
                                      commit->replaced);
    if (sent < 0)
        return -1;
    self->method = commit->template->method;
    self->seconds = now() - commit->began;
    count_sent(self->counts, sent);
    count_upload_done(self);
    return sent;
}

/* For its report. */
static Request
request_of(const Commit *commit)
{
    return (Request){
        .template = commit->template, .bytes = PyBytes_AsString(commit->head),
        .line_bytes = commit->line_bytes, .key_bytes = PyBytes_Size(commit->key),
        .head_bytes = PyBytes_Size(commit->head), .size = commit->size,
    };
}

const char reply_to_doc[] =
"reply_to(commit, socket) -> int\n"
"\n"
"Send the reply of a commit that is done. Returns as `serve`.";

PyObject *
FastPath_reply_to(FastPath *self, PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 2 || !Py_IS_TYPE(arguments[0], CommitType)) {
        PyErr_SetString(PyExc_TypeError, "reply_to takes a commit and a socket");
        return NULL;
    }
    long socket = PyLong_AsLong(arguments[1]);
    if (socket == -1 && PyErr_Occurred())
        return NULL;
    Commit *commit = (Commit *)arguments[0];
    Py_ssize_t sent = send_published(self, (int)socket, commit);
    if (sent < 0)
        return NULL;
    self->moved_bytes = sent;   /* What was received counted when it was. */
    Request request = request_of(commit);
    Joined *joined = (Joined *)PyDict_GetItemWithError(self->joined, arguments[1]);
    return PyErr_Occurred() ? NULL
                            : outcome_of(self, (int)socket, joined, &request, 1);
}

/* Reply to a connection that waits unknown to Python. Returns 1; 0 if that is left to
   Python; -1 with an exception. */
static int
reply_alone(FastPath *self, Commit *commit)
{
    Joined *joined = commit->joined;
    if (joined == NULL)
        return 0;
    int socket = (int)PyLong_AsLong(joined->number);
    Py_ssize_t sent = send_published(self, socket, commit);
    if (sent < 0)
        return -1;
    self->moved_bytes = commit->size + commit->sent + sent;
    Request request = request_of(commit);
    if (report(self, socket, joined, &request, 0) < 0)
        return -1;
    Py_INCREF((PyObject *)joined);
    leave_commit(joined);
    PyObject *before = joined->served;
    joined->served = PyObject_CallNoArgs(self->clock);
    Py_XDECREF(before);
    int done = joined->served == NULL ? -1 : 1;
    if (done > 0 && self->unsent != NULL) {
        PyObject *rest = self->unsent;
        self->unsent = NULL;
        PyObject *called = PyObject_CallMethod(joined->connection, "send_rest", "N", rest);
        Py_XDECREF(called);
        done = called == NULL ? -1 : 1;
    }
    Py_DECREF((PyObject *)joined);
    return done;
}

const char reply_all_doc[] =
"reply_all(commits) -> list[Commit]\n"
"\n"
"Send the replies of commits that are done to the connections that wait unknown to\n"
"Python. Returns the others, whose replies are the caller's.";

PyObject *
FastPath_reply_all(FastPath *self, PyObject *commits)
{
    PyObject *others = PyList_New(0);
    if (others == NULL || !PyList_Check(commits)) {
        Py_XDECREF(others);
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "reply_all takes a list of commits");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PyList_Size(commits); i++) {
        PyObject *commit = PyList_GetItem(commits, i);
        int done = Py_IS_TYPE(commit, CommitType) ? reply_alone(self, (Commit *)commit) : 0;
        if (done < 0)
            /* The connection cannot go on; Python ends it. */
            PyErr_WriteUnraisable(commit);
        if (done <= 0 && PyList_Append(others, commit) < 0) {
            Py_DECREF(others);
            return NULL;
        }
    }
    return others;
}
