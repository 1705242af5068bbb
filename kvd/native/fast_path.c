/*
 * The fast path: serves a whole GET, HEAD or PUT in one call, if the shape of its head has
 * a template (shape.c).
 *
 * A template says what such a head means and what the head of its reply looks like.
 * Python makes it, once for each such shape (kvd/http/templates.py). So this module makes
 * no decision that Python has not made before for the same bytes. It returns everything
 * unexpected to Python, unchanged: a head without a template, a key with unusual bytes, a
 * second request behind the first, a file that another program has written, a lock that is
 * held, an error of any kind. So the only error handling here is cleaning up.
 *
 * This file has the Python type and the module. shared.c accepts from sockets that processes
 * share, connections.c and serve.c receive requests, and joined.c has what Python knows of a
 * connection. get.c and put.c serve requests, hits.c knows what a near cache has, upload.c
 * receives a body in pieces, commit.c has values synced (sync.c) before their replies,
 * logins.c knows from where passwords are served, and reports.c reports what was served;
 * value.c opens a value, file.c sends it, and recent.c keeps small ones in memory; publish.c
 * and place.c publish one, and known.c and turn.c know what need not be looked at again for
 * that. fast_path.h declares what the files share.
 *
 * Only the limited API of Python 3.11 is used: one wheel serves all later versions.
 */

#include "fast_path.h"

static int
find_device(FastPath *self)
{
    struct stat status;
    if (fstat(self->root, &status) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    self->device = status.st_dev;
    return 0;
}

static PyObject *
FastPath_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {
        "root", "lock", "exchanges", "finds_unwritten", "most_recent", "kept",
        "has_epochs", "sync_threads", "usage", "min_free", "keeping",
        "dates", "metadata_fields", "message", "folder_mode", "flags", "head_bytes", "target_bytes", "plain", "sending", "report", "remainder", "partial", "counts",
        "make_template", "make_parts", "logs_in",
        "prune", "clock", "has_hits", "guesses",
        NULL,
    };
    int root, lock, exchanges, finds_unwritten, has_epochs, sync_threads, has_hits, guesses;
    int folder_mode, read_flags, create_flags, nameless_flags;
    int low_round_trip_microseconds, low_round_trip_buffer_bytes;
    PyObject *kept, *plain, *metadata_fields, *report, *rest, *partial, *counts, *make_template;
    PyObject *make_parts, *logs_in, *prune, *clock, *usage;
    unsigned long long min_free;
    Keeping keeping;
    Py_ssize_t most_kept, message_bytes, message_descriptors;
    char slash;
    int ahead_seconds;
    long long latest_second;
    Py_ssize_t most_recent, head_bytes, target_bytes, file_bytes, large_file_bytes;
    if (!PyArg_ParseTupleAndKeywords(
            args, keywords,
            "iippnOpiOK(nKKKc)(iL)S(nn)i(iii)nnS(niin)OOOOOOOOOpp:FastPath", names,
            &root, &lock, &exchanges, &finds_unwritten, &most_recent, &kept, &has_epochs,
            &sync_threads, &usage, &min_free,
            &most_kept, &keeping.share, &keeping.bytes, &keeping.times, &slash, &ahead_seconds,
            &latest_second, &metadata_fields, &message_bytes, &message_descriptors, &folder_mode, &read_flags,
            &create_flags, &nameless_flags,
            &head_bytes, &target_bytes, &plain,
            &file_bytes, &low_round_trip_microseconds, &low_round_trip_buffer_bytes,
            &large_file_bytes, &report, &rest, &partial, &counts, &make_template, &make_parts, &logs_in, &prune,
            &clock, &has_hits, &guesses))
        return NULL;
    if (message_bytes < 1 || message_bytes > BUFFER_BYTES || message_descriptors < 1
        || message_descriptors > KERNEL_DESCRIPTORS)
        return PyErr_Format(PyExc_ValueError, "no room for messages of %zd bytes and %zd"
                            " descriptors", message_bytes, message_descriptors);
    FastPath *self = (FastPath *)PyType_GenericAlloc(type, 0);
    if (self == NULL)
        return NULL;
    self->rest_file = -1;
    self->may_block = self->expects_new = self->may_not_replace = 1;
    if (Py_TYPE(counts) != RequestCountsType) {
        PyErr_SetString(PyExc_TypeError, "counts is no RequestCounts");
        Py_DECREF(self);
        return NULL;
    }
    self->counts = (RequestCounts *)Py_NewRef(counts);
    self->root = root;
    self->lock = lock;
    if (find_device(self) < 0 || find_lock(self) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    self->uploads = self->left_socket = self->new_socket = self->channel = self->poller = -1;
    self->exchanges = exchanges;
    self->has_epochs = has_epochs;
    self->finds_unwritten = finds_unwritten;
    self->guesses = guesses;
    self->most_recent = most_recent;
    self->plain_bytes = Py_NewRef(plain);
    self->plain = PyBytes_AsString(plain);
    self->file_bytes = file_bytes;
    self->low_round_trip_microseconds = low_round_trip_microseconds;
    self->low_round_trip_buffer_bytes = low_round_trip_buffer_bytes;
    self->large_file_bytes = large_file_bytes;
    self->folder_mode = folder_mode;
    self->read_flags = read_flags;
    self->create_flags = create_flags;
    self->nameless_flags = nameless_flags;
    self->most_folders = most_folders();
    self->most_head = Py_MIN(head_bytes, MAX_HEAD_BYTES);
    self->most_key = Py_MIN(target_bytes - 1, MAX_KEY_BYTES);
    self->report = Py_NewRef(report);
    self->rest = Py_NewRef(rest);
    self->partial = Py_NewRef(partial);
    self->make_template = Py_NewRef(make_template);
    self->make_parts = Py_NewRef(make_parts);
    self->logs_in = Py_NewRef(logs_in);
    self->prune = Py_NewRef(prune);
    self->clock = Py_NewRef(clock);
    if (!is_of_kept(kept)) {
        Py_DECREF(self);
        return NULL;
    }
    self->kept = kept == Py_None ? NULL : Py_NewRef(kept);
    if (usage != Py_None && Py_TYPE(usage) != UsageType) {
        PyErr_SetString(PyExc_TypeError, "usage is no Usage");
        Py_DECREF(self);
        return NULL;
    }
    self->usage = usage == Py_None ? NULL : (Usage *)Py_NewRef(usage);
    self->min_free = min_free;
    self->most_kept = most_kept;
    self->keeping = keeping;
    self->slash = slash;
    self->ahead_seconds = ahead_seconds;
    self->latest_second = latest_second;
    self->metadata_bytes = Py_NewRef(metadata_fields);
    self->metadata_fields = (Text){PyBytes_AsString(metadata_fields),
                                   PyBytes_Size(metadata_fields)};
    self->message_bytes = (size_t)message_bytes;
    self->message_descriptors = (size_t)message_descriptors;
    self->nothing = PyBytes_FromStringAndSize(NULL, 0);
    self->templates = PyDict_New();
    self->older_templates = PyDict_New();
    self->parts = PyDict_New();
    self->joined = PyDict_New();
    self->listeners = PyDict_New();
    self->hits = has_hits ? PyDict_New() : NULL;
    if ((has_hits && !self->hits) || !self->nothing || !self->templates || !self->older_templates || !self->parts
        || !self->joined || !self->listeners) {
        Py_DECREF(self);
        return NULL;
    }
    self->buffer = PyMem_Malloc(BUFFER_BYTES);
    if (self->buffer == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    if (sync_threads >= 0
        && (self->syncs = new_syncs((unsigned int)sync_threads)) == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

/* Members that are not visited cannot be part of a cycle. The garbage collector may clear
   these before a store calls `upload_to`. */
static int
FastPath_traverse(FastPath *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE((PyObject *)self));
    Py_VISIT(self->report);
    Py_VISIT(self->reports_come);
    Py_VISIT(self->rest);
    Py_VISIT(self->partial);
    Py_VISIT(self->make_template);
    Py_VISIT(self->make_parts);
    Py_VISIT(self->logs_in);
    Py_VISIT(self->prune);
    Py_VISIT(self->clock);
    Py_VISIT(self->adopt);
    Py_VISIT(self->came);
    Py_VISIT(self->adopt_held);
    Py_VISIT(self->listeners);
    return 0;
}

static int
FastPath_clear(FastPath *self)
{
    Py_CLEAR(self->report);
    Py_CLEAR(self->reports_come);
    Py_CLEAR(self->requests);
    Py_CLEAR(self->connections);
    Py_CLEAR(self->rest);
    Py_CLEAR(self->partial);
    Py_CLEAR(self->make_template);
    Py_CLEAR(self->make_parts);
    Py_CLEAR(self->logs_in);
    Py_CLEAR(self->prune);
    Py_CLEAR(self->clock);
    leave_batches(self);
    self->poller = -1;
    Py_CLEAR(self->adopt_held);
    if (self->listeners != NULL)
        PyDict_Clear(self->listeners);
    return 0;
}

static void
FastPath_dealloc(FastPath *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    PyObject_GC_UnTrack(self);
    drop_new_upload(self);
    FastPath_clear(self);
    drop_left(self);
    if (self->joined != NULL)
        PyDict_Clear(self->joined);
    Py_CLEAR(self->joined);
    Py_CLEAR(self->listeners);
    Py_CLEAR(self->templates);
    Py_CLEAR(self->older_templates);
    Py_CLEAR(self->parts);
    Py_CLEAR(self->hits);
    forget_recent(self);
    forget_published(self);
    forget_login_addresses(self);
    Py_CLEAR(self->plain_bytes);
    Py_CLEAR(self->metadata_bytes);
    Py_XDECREF((PyObject *)self->counts);
    Py_CLEAR(self->kept);
    Py_XDECREF((PyObject *)self->usage);
    Py_CLEAR(self->nothing);
    Py_CLEAR(self->record_bytes);
    Py_CLEAR(self->view);
    Py_CLEAR(self->begun_name);
    Py_CLEAR(self->new_peer);
    Py_CLEAR(self->unsent_name);
    drop_rest(self);
    end_commits(self);
    if (self->syncs != NULL)
        free_syncs(self->syncs);
    close_folders(self);
    PyMem_Free(self->buffer);
    PyObject_GC_Del(self);
    Py_DECREF((PyObject *)type);
}

PyDoc_STRVAR(take_unsent_doc,
"take_unsent() -> bytes\n"
"\n"
"The end of the last reply, which the socket did not take.");

static PyObject *
FastPath_take_unsent(FastPath *self, PyObject *Py_UNUSED(none))
{
    PyObject *unsent = self->unsent;
    self->unsent = NULL;
    return unsent != NULL ? unsent : PyBytes_FromStringAndSize(NULL, 0);
}

PyDoc_STRVAR(upload_to_doc,
"upload_to(folder, conferred, mode)\n"
"\n"
"Set the folder for uploads, with what it confers (kvd.store.conferring), and the mode of\n"
"files that are created in it. Below 0: the store closes, and nothing of it stays open.");

static PyObject *
FastPath_upload_to(FastPath *self, PyObject *args)
{
    int folder;
    unsigned int mode;
    PyObject *group;
    const char *list;
    Py_ssize_t list_bytes;
    if (!PyArg_ParseTuple(args, "i(Oy#)I:upload_to", &folder, &group, &list, &list_bytes,
                          &mode))
        return NULL;
    long long number = group == Py_None ? -1 : PyLong_AsLongLong(group);
    if (number == -1 && PyErr_Occurred())
        return NULL;
    int is_closed = folder < 0 && self->uploads >= 0;
    /* A longer list than kvd has room for is Python's to compare. */
    self->uploads = list_bytes > LIST_BYTES ? -1 : folder;
    self->mode = (mode_t)mode;
    self->conferred.group = number;
    self->conferred.list_bytes = Py_MIN(list_bytes, LIST_BYTES);
    memcpy(self->conferred.list, list, (size_t)self->conferred.list_bytes);
    if (is_closed)
        end_commits(self);
    self->root_looks.alike = self->room_turn = 0;
    if (self->folders != NULL)
        for (unsigned int i = 0; i < self->most_folders; i++)
            self->folders[i].looks.alike = 0;
    self->links_nameless = self->uploads >= 0 && links_nameless(self);
    if (self->uploads < 0) {
        close_folders(self);
        forget_recent(self);
        forget_published(self);
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(lock_renewed_doc,
"lock_renewed()\n"
"\n"
"The descriptor of the file of locks now leads to another file.");

static PyObject *
FastPath_lock_renewed(FastPath *self, PyObject *Py_UNUSED(none))
{
    if (find_lock(self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(forget_templates_doc,
"forget_templates()\n"
"\n"
"What senders may do has changed: ask Python again about every head.");

static PyObject *
FastPath_forget_templates(FastPath *self, PyObject *Py_UNUSED(none))
{
    PyDict_Clear(self->templates);
    PyDict_Clear(self->older_templates);
    Py_RETURN_NONE;
}

static PyMethodDef FastPath_methods[] = {
    {"serve", (PyCFunction)FastPath_serve, METH_O, serve_doc},
    {"serve_secure", (PyCFunction)(void (*)(void))FastPath_serve_secure, METH_FASTCALL,
     serve_secure_doc},
    {"serve_idle", (PyCFunction)FastPath_serve_idle, METH_O, serve_idle_doc},
    {"serve_new", (PyCFunction)FastPath_serve_new, METH_O, serve_new_doc},
    {"accept", (PyCFunction)(void (*)(void))FastPath_accept, METH_FASTCALL, accept_doc},
    {"share", (PyCFunction)FastPath_share, METH_VARARGS, share_doc},
    {"unshare", (PyCFunction)FastPath_unshare, METH_O, unshare_doc},
    {"hold", (PyCFunction)FastPath_hold, METH_VARARGS, hold_doc},
    {"adopt_held", (PyCFunction)FastPath_adopt_held, METH_O, adopt_held_doc},
    {"join", (PyCFunction)FastPath_join, METH_O, join_doc},
    {"take_batches", (PyCFunction)FastPath_take_batches, METH_VARARGS, take_batches_doc},
    {"leave_batches", (PyCFunction)FastPath_leave_batches, METH_NOARGS,
     leave_batches_doc},
    {"take_unsent", (PyCFunction)FastPath_take_unsent, METH_NOARGS, take_unsent_doc},
    {"take_remainder", (PyCFunction)FastPath_take_remainder, METH_NOARGS, take_remainder_doc},
    {"send_at_most", (PyCFunction)FastPath_send_at_most, METH_O, send_at_most_doc},
    {"sync_event", (PyCFunction)FastPath_sync_event, METH_NOARGS, sync_event_doc},
    {"take_commit", (PyCFunction)FastPath_take_commit, METH_O, take_commit_doc},
    {"hand_over", (PyCFunction)FastPath_hand_over, METH_NOARGS, hand_over_doc},
    {"publish_synced", (PyCFunction)FastPath_publish_synced, METH_NOARGS,
     publish_synced_doc},
    {"sync_folders_later", (PyCFunction)FastPath_sync_folders_later, METH_VARARGS,
     sync_folders_later_doc},
    {"reply_all", (PyCFunction)FastPath_reply_all, METH_O, reply_all_doc},
    {"reply_to", (PyCFunction)(void (*)(void))FastPath_reply_to, METH_FASTCALL,
     reply_to_doc},
    {"offer", (PyCFunction)FastPath_offer, METH_VARARGS, offer_doc},
    {"withdraw", (PyCFunction)FastPath_withdraw, METH_O, withdraw_doc},
    {"report_to", (PyCFunction)FastPath_report_to, METH_VARARGS, report_to_doc},
    {"take_reports", (PyCFunction)FastPath_take_reports, METH_NOARGS, take_reports_doc},
    {"upload_to", (PyCFunction)FastPath_upload_to, METH_VARARGS, upload_to_doc},
    {"forget_templates", (PyCFunction)FastPath_forget_templates, METH_NOARGS,
     forget_templates_doc},
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
     "get_template(method, is_head, keep, has_ranges, outcomes, tail, missing)\n\n"
     "The template of a GET or HEAD."},
    {"put_template", put_template, METH_VARARGS,
     "put_template(method, keep, most_bytes, lines, created_status, created, replaced_status,"
     " replaced, interim)\n\nThe template of a PUT."},
    {"limit_template", limit_template, METH_VARARGS,
     "limit_template(template, scopes, expires, user, by_password)\n\n"
     "Serve by a template only the keys that a sender has rights for."},
    {"offset_of", offset_of, METH_O, "offset_of(key)\n\nSee kvd.store.locks."},
    {"open_folder", open_folder, METH_VARARGS,
     "open_folder(root, path, mode)\n\nSee PathOpener of kvd.store.folders."},
    {"make_folder", make_one_folder, METH_VARARGS,
     "make_folder(folder, name, mode) -> int\n\nSee kvd.store.conferring."},
    {"default_list", default_list, METH_O,
     "default_list(folder) -> bytes\n\nSee kvd.store.conferring."},
    {"conferred", conferred_by, METH_O,
     "conferred(folder) -> (int | None, bytes)\n\nSee kvd.store.conferring."},
    {"sync", sync_descriptor, METH_O, "sync(descriptor)\n\nSee kvd.store.sync."},
    {"count_syncs", count_syncs, METH_VARARGS,
     "count_syncs(row, word, bucket_of_exponent, least_exponent)\n\n"
     "See kvd.ipc.syncs; row: None for nowhere."},
    {"sync_folders", sync_folders, METH_VARARGS,
     "sync_folders(root, path, first) -> (depth, errno) | None\n\n"
     "See FolderSync of kvd.store.sync."},
    {"mark_text", mark_text, METH_VARARGS,
     "mark_text(mode, user, group, list) -> bytes\n\nSee kvd.store.conferring."},
    {"room_beside", room_beside, METH_VARARGS,
     "room_beside(min_free, available, unit, blocks) -> int | None\n\nSee kvd.store.space."},
    {"magic_of", magic_of, METH_O, "magic_of(folder)\n\nSee kvd.store.exchange."},
    {"entity_tags", entity_tags, METH_O,
     "entity_tags(value) -> (strong, weak) | None\n\nThe tags of a list."},
    {"fixed_date", fixed_date, METH_O,
     "fixed_date(value) -> int | None\n\nThe second that an IMF-fixdate means."},
    {"byte_range", byte_range, METH_VARARGS,
     "byte_range(value, if_range, etag, size) -> (first, length) | None\n\n"
     "The part of a value that is asked for."},
    {"write_line", write_line, METH_VARARGS,
     "write_line(etag, size, published_us) -> bytes\n\nSee kvd.store.attribute."},
    {"read_line", read_line, METH_O,
     "read_line(attribute) -> (etag, size, published_us | None, length) | None\n\n"
     "See kvd.store.attribute."},
    {"plain_key", plain_key, METH_O,
     "plain_key(target) -> bytes | None\n\nSee kvd.http.wire.targets."},
    {"date_text", date_text, METH_O, "date_text(second)\n\nSee kvd.http.wire.replies."},
    {"read_metadata", read_metadata, METH_VARARGS,
     "read_metadata(fields, lines) -> dict[str, str] | None\n\nSee kvd.store.attribute."},
    {"file_kind", file_kind, METH_VARARGS,
     "file_kind(fields, attribute | None, mode, size, second, nanosecond) -> int\n\n"
     "See kvd.store.attribute."},
    {"has_no_place", has_no_place, METH_VARARGS,
     "has_no_place(file, size) -> bool\n\nSee kvd.store.unwritten."},
    {"kept_name", kept_name, METH_VARARGS,
     "kept_name(slash, letter, number, key) -> bytes | None\n\nSee kvd.store.uploads."},
    {"keeps_replaced", keeps_replaced, METH_VARARGS,
     "keeps_replaced(kept, key, most) -> bool | None\n\nSee kvd.store.replaced."},
    {"note_change", note_change, METH_VARARGS,
     "note_change(kept, key, name)\n\nSee kvd.store.replaced."},
    {"epoch_of", epoch_of_fraction, METH_O,
     "epoch_of(nanosecond) -> int\n\nSee kvd.store.epochs."},
    {"stamp", stamp_file, METH_VARARGS,
     "stamp(ahead_seconds, file, published_us, epoch)\n\nSee kvd.store.epochs."},
    {"stamped_epoch", stamped_epoch, METH_VARARGS,
     "stamped_epoch(ahead_seconds, second, nanosecond, changed_second) -> int\n\n"
     "See kvd.store.epochs."},
    {"is_scarce", is_scarce_for, METH_VARARGS,
     "is_scarce(share, bytes, times, size, free, all) -> bool\n\nSee kvd.store.tree."},
    {"seal", seal_now, METH_VARARGS,
     "seal(ahead_seconds, file, earliest_us, seal) -> int\n\nSee kvd.store.placing."},
    {"place", place_written, METH_VARARGS,
     "place(descriptors, names, (keeps, exchanges), read_flags, ahead_seconds, keeping,"
     " space, present, seal) -> (result, sealed_us, sealed_epoch, errno, left, left_errno)\n\n"
     "See kvd.store.placing."},
    {"exchange_names", exchange_names, METH_VARARGS,
     "exchange_names(folder, name, other_folder, other_name)\n\n"
     "See kvd.store.exchange."},
    {"note_read", note_read, METH_VARARGS,
     "note_read(ahead_seconds, file)\n\nSee kvd.store.reading."},
    {"is_stale", is_stale_at, METH_VARARGS,
     "is_stale(accessed, resolution, present) -> bool\n\nSee kvd.store.reading."},
    {"look_at", look_at, METH_VARARGS,
     "look_at(folder, prefix, names, lists, expired_ns, future_ns)\n\n"
     "See Look of kvd.store.looking."},
    {"remove_unchanged", remove_unchanged, METH_VARARGS,
     "remove_unchanged(root, lock, candidates, wanted, from_ns, to_ns)"
     " -> list[int] | None\n\nSee kvd.store.removing."},
    {"quota_of", quota_of_key, METH_VARARGS,
     "quota_of(prefixes, key) -> int\n\nSee kvd.store.usage."},
    {"taken_by", taken_by_length, METH_O, "taken_by(length)\n\nSee kvd.store.usage."},
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
        || (RecentValueType = add_type(self, &RecentValue_spec)) == NULL
        || (HitType = add_type(self, &Hit_spec)) == NULL
        || (CommitType = add_type(self, &Commit_spec)) == NULL
        || (JoinedType = add_type(self, &Joined_spec)) == NULL
        || (RequestCountsType = add_type(self, &RequestCounts_spec)) == NULL
        || (UsageType = add_type(self, &Usage_spec)) == NULL
        || (CandidatesType = add_type(self, &Candidates_spec)) == NULL
        || (type = add_type(self, &FastPath_spec)) == NULL
        || PyModule_AddIntMacro(self, NOTHING) < 0
        || PyModule_AddIntMacro(self, SERVED) < 0
        || PyModule_AddIntMacro(self, CLOSES) < 0
        || PyModule_AddIntMacro(self, QUEUED) < 0
        || PyModule_AddIntMacro(self, LINGERS) < 0
        || PyModule_AddIntMacro(self, REMAINS) < 0
        || PyModule_AddIntMacro(self, COMMITS) < 0
        || PyModule_AddIntMacro(self, LOST) < 0
        || PyModule_AddIntMacro(self, LEAVES_UPLOAD) < 0
        || PyModule_AddIntMacro(self, CREATED) < 0
        || PyModule_AddIntMacro(self, REPLACED) < 0
        || PyModule_AddIntMacro(self, KEPT) < 0
        || PyModule_AddIntMacro(self, SCARCE) < 0
        || PyModule_AddIntMacro(self, UNSEALED) < 0
        || PyModule_AddIntMacro(self, UNLINKED) < 0
        || PyModule_AddIntMacro(self, UNNAMED) < 0
        || PyModule_AddIntMacro(self, NO_VALUE) < 0
        || PyModule_AddIntMacro(self, FOREIGN) < 0
        || PyModule_AddIntMacro(self, TORN) < 0
        || PyModule_AddIntMacro(self, OURS) < 0
        || PyModule_AddIntMacro(self, MAX_LONGEST_KEY) < 0
        || PyModule_AddIntMacro(self, MAX_BODY_BYTES) < 0
        || PyModule_AddIntMacro(self, MAX_PARTIAL_BYTES) < 0)
        Py_CLEAR(self);
    Py_XDECREF((PyObject *)type);
    return self;
}
