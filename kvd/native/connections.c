/*
 * The connections of a process: new ones, those that stay open, and the outcome of an event
 * that the next `serve` of the same socket returns.
 *
 * A new connection that stays open is held: the reactor's poller watches its descriptor, and
 * there is no Python object for it until Python has something to do. Most clients that are
 * started for a request need none: they connect, send it, read the reply and leave.
 */

#include "fast_path.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

void
drop_left(FastPath *self)
{
    self->left_socket = -1;
    Py_CLEAR(self->left);
    Py_CLEAR(self->left_type);
    Py_CLEAR(self->left_value);
    Py_CLEAR(self->left_traceback);
}

/* Forget what was found of a connection that has not joined. */
static void
forget_new(FastPath *self)
{
    self->new_socket = -1;
    self->new_account = (Account){0};
    Py_CLEAR(self->new_peer);
}

const char serve_doc[] =
"serve(socket) -> int | bytes\n"
"\n"
"Read from a socket between two requests, without waiting, and serve the request that\n"
"has arrived, if it has a template and nothing about it is unusual.\n"
"\n"
"Returns NOTHING if nothing has arrived; LOST if the socket cannot be read; SERVED, with\n"
"CLOSES if the connection ends with this reply, LINGERS if it must not be closed at once\n"
"then, and QUEUED if `unsent` is still to be sent; otherwise the bytes that were read,\n"
"empty if the client has closed its half.";

PyObject *
FastPath_serve(FastPath *self, PyObject *argument)
{
    long socket = PyLong_AsLong(argument);
    if (socket == -1 && PyErr_Occurred())
        return NULL;
    if (socket < 0 || socket != self->left_socket) {
        /* From a connection that was dropped; it must not reach another one. */
        drop_left(self);
        Joined *joined = (Joined *)PyDict_GetItemWithError(self->joined, argument);
        if (joined == NULL && PyErr_Occurred())
            return NULL;
        forget_new(self);
        Py_XINCREF((PyObject *)joined);
        PyObject *outcome = serve_one(self, (int)socket, joined);
        Py_XDECREF((PyObject *)joined);
        return outcome;
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

/* A set of outcomes. */
#define SET(outcome) (1U << (outcome))

/*
 * Serve what has arrived on a connection; NULL if it has not joined. Returns the outcome if
 * it is an expected one; otherwise -1, and the next `serve` of this socket returns the
 * outcome, or raises the exception.
 */
static long
serve_or_leave(FastPath *self, int socket, Joined *joined, unsigned int expected)
{
    drop_left(self);
    PyObject *outcome = serve_one(self, socket, joined);
    end_turn(self);
    if (outcome != NULL && PyLong_Check(outcome)) {
        long number = PyLong_AsLong(outcome);
        if (number <= (SERVED | CLOSES) && (SET(number) & expected)) {
            Py_DECREF(outcome);
            return number;
        }
    }
    self->left_socket = socket;
    self->left = outcome;
    PyErr_Fetch(&self->left_type, &self->left_value, &self->left_traceback);
    return -1;
}

/*
 * Close a connection that `is_drained`; as kvd.net.sockets.close_both_ways. Bytes that
 * have come since then make close(2) alone send a reset in place of the end, and the
 * client reads an error behind the reply.
 */
static void
close_both_ways(int socket)
{
    shutdown(socket, SHUT_RDWR);
    close(socket);
}

/* Whether one more connection may be held. */
static int
can_hold(const FastPath *self)
{
    return self->poller >= 0 && self->held < MOST_HELD
        && *word_of(self->counts, self->counts->open) + 1 < self->most_open;
}

static Joined *
new_joined(FastPath *self, PyObject *number, int socket)
{
    Joined *joined = PyObject_New(Joined, JoinedType);
    if (joined == NULL)
        return NULL;
    joined->held = 0;
    joined->made = 0;
    joined->idle = 1;
    joined->logs_in = 0;
    joined->secure = joined->records = NULL;
    joined->commit = NULL;
    joined->connection = NULL;
    joined->upload = NULL;
    joined->served = NULL;
    joined->peer = joined->user = joined->proxy = NULL;
    joined->account = (Account){0};
    joined->number = Py_NewRef(number);
    joined->joined = Py_NewRef(self->joined);
    if (PyDict_SetItem(self->joined, number, (PyObject *)joined) < 0) {
        Py_DECREF((PyObject *)joined);
        return NULL;
    }
    if (self->new_socket == socket) {
        joined->upload = self->new_upload;
        joined->peer = self->new_peer;
        joined->account = self->new_account;
        self->new_upload = NULL;
        self->new_peer = NULL;
        forget_new(self);
    }
    return joined;
}

/* What was said of the client of a new connection, borrowed; None: nothing. */
PyObject *
said_peer(const FastPath *self)
{
    return self->new_peer == NULL ? Py_None : self->new_peer;
}

/*
 * Hold a new connection.
 *
 * made: when it was accepted; below 0: just now.
 *
 * Returns 0; -1 if Python must serve it.
 */
static int
hold(FastPath *self, int socket, int is_served, double made)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = socket};
    PyObject *number = PyLong_FromLong(socket);
    PyObject *time = PyObject_CallNoArgs(self->clock);
    Joined *joined = NULL;
    if (number == NULL || time == NULL || !(joined = new_joined(self, number, socket)))
        goto failed;
    if (self->requests != NULL) {
        PyObject *peer = peer_of(self, socket, joined);
        if (peer == NULL)
            goto failed;
        Py_DECREF(peer);
    }
    if (epoll_ctl(self->poller, EPOLL_CTL_ADD, socket, &event) < 0)
        goto failed;
    joined->held = 1;
    joined->made = made < 0 ? PyFloat_AsDouble(time) : made;
    joined->served = is_served ? Py_NewRef(time) : NULL;
    Py_DECREF(time);
    Py_DECREF(number);
    Py_DECREF((PyObject *)joined);
    self->held++;
    /* In this order; see kvd.ipc.scoreboard. */
    count_opened(self->counts);
    return 0;
failed:
    /* What was found of it goes back to where `join` finds it. */
    if (joined != NULL) {
        self->new_upload = joined->upload;
        self->new_peer = joined->peer;
        self->new_account = joined->account;
        self->new_socket = socket;
        joined->upload = NULL;
        joined->peer = NULL;
        if (PyDict_DelItem(self->joined, number) < 0)
            PyErr_Clear();
        Py_DECREF((PyObject *)joined);
    }
    PyErr_Clear();
    Py_XDECREF(number);
    Py_XDECREF(time);
    return -1;
}

/* A connection is held no longer; the poller does not watch it. */
static void
release_held(FastPath *self, Joined *joined, int socket)
{
    joined->held = 0;
    self->held--;
    epoll_ctl(self->poller, EPOLL_CTL_DEL, socket, NULL);
}

/* Close a connection that is held. Returns 0; -1 with an exception. */
static int
end_held(FastPath *self, Joined *joined, int socket)
{
    int reported = report_end(self, joined->made, &joined->account);
    release_held(self, joined, socket);
    count_closed(self->counts);
    close_both_ways(socket);
    return PyDict_DelItem(self->joined, joined->number) < 0 ? -1 : reported;
}

/* Give Python a connection that is held. Returns 0; -1 with an exception. */
static int
adopt(FastPath *self, Joined *joined, int socket)
{
    release_held(self, joined, socket);
    PyObject *python = Py_NewRef(self->adopt_held);
    self->adopting = joined;
    PyObject *adopted = PyObject_CallFunction(
        python, "idO", socket, joined->made, joined->peer == NULL ? Py_None : joined->peer);
    Py_DECREF(python);
    if (self->adopting == joined) {
        /* It has ended before it joined. */
        self->adopting = NULL;
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        if (PyDict_DelItem(self->joined, joined->number) < 0)
            PyErr_WriteUnraisable(joined->number);
        PyErr_Restore(type, value, traceback);
    }
    Py_XDECREF(adopted);
    return adopted == NULL ? -1 : 0;
}

/* As `serve_idle`, for a connection that is held. Returns 0; -1 with an exception. */
static int
serve_held(FastPath *self, Joined *joined, int socket)
{
    long outcome = serve_or_leave(self, socket, joined,
                                  SET(NOTHING) | SET(SERVED) | SET(SERVED | CLOSES));
    if (outcome == NOTHING)
        return 0;
    if (outcome == SERVED) {
        PyObject *before = joined->served;
        joined->served = PyObject_CallNoArgs(self->clock);
        Py_XDECREF(before);
        return joined->served == NULL ? -1 : 0;
    }
    /* Nothing else is under way, so this is what Python would do. */
    int has_left = self->left != NULL && PyBytes_Check(self->left)
        && PyBytes_Size(self->left) == 0 && joined->upload == NULL;
    if (outcome < 0 && !has_left)
        return adopt(self, joined, socket);
    drop_left(self);
    return end_held(self, joined, socket);
}

const char hold_doc[] =
"hold(poller, most_open, adopt)\n"
"\n"
"See kvd.http.fast_path.";

PyObject *
FastPath_hold(FastPath *self, PyObject *args)
{
    int poller;
    unsigned long long most_open;
    PyObject *adopt_held;
    if (!PyArg_ParseTuple(args, "iKO:hold", &poller, &most_open, &adopt_held))
        return NULL;
    self->poller = poller;
    self->most_open = most_open;
    PyObject *before = self->adopt_held;
    self->adopt_held = Py_NewRef(adopt_held);
    Py_XDECREF(before);
    Py_RETURN_NONE;
}

const char adopt_held_doc[] =
"adopt_held(before)\n"
"\n"
"See kvd.http.fast_path.";

PyObject *
FastPath_adopt_held(FastPath *self, PyObject *argument)
{
    double before = PyFloat_AsDouble(argument);
    if (PyErr_Occurred())
        return NULL;
    if (self->held == 0)
        Py_RETURN_NONE;
    /* Adopting one may end others. */
    PyObject *all = PyDict_Values(self->joined);
    for (Py_ssize_t i = 0; all != NULL && i < PyList_Size(all); i++) {
        Joined *joined = (Joined *)PyList_GetItem(all, i);
        if (joined->held && joined->made < before
            && adopt(self, joined, (int)PyLong_AsLong(joined->number)) < 0)
            Py_CLEAR(all);
    }
    if (all == NULL)
        return NULL;
    Py_DECREF(all);
    Py_RETURN_NONE;
}

/*
 * Serve the request that came with a new connection. Returns `HAS_ENDED` if this was all: its
 * socket is closed; `IS_HELD` if the connection stays, and Python has nothing to do with it;
 * `IS_LEFT` if the caller keeps it, and the next `serve` of this socket returns the outcome.
 */
int
serve_accepted(FastPath *self, int socket, int may_block)
{
    double made = self->connections == NULL ? -1 : clock_seconds(self);
    self->may_block = may_block;
    int may_hold = !may_block && can_hold(self);
    long outcome = serve_or_leave(
        self, socket, NULL,
        SET(SERVED | CLOSES) | (may_hold ? SET(NOTHING) | SET(SERVED) : 0));
    self->may_block = 1;
    if (outcome == (SERVED | CLOSES)) {
        /* Before the client can see the end. */
        count_accepted(self->counts);
        if (report_end(self, made, &self->new_account) < 0)
            PyErr_WriteUnraisable(self->reports_come);
        close_both_ways(socket);
        forget_new(self);
        return HAS_ENDED;
    }
    if (outcome >= 0) {
        if (hold(self, socket, outcome == SERVED, made) == 0)
            return IS_HELD;
        self->left_socket = socket;
        self->left = PyLong_FromLong(outcome);
        PyErr_Fetch(&self->left_type, &self->left_value, &self->left_traceback);
    }
    return IS_LEFT;
}

/* As `serve_accepted`, for a connection that another process has accepted. */
int
serve_whole(FastPath *self, int socket, int may_block)
{
    forget_new(self);
    return serve_accepted(self, socket, may_block);
}

const char serve_idle_doc[] =
"serve_idle(socket) -> bool\n"
"\n"
"Serve the request that has arrived on a connection that has joined and is idle, or read\n"
"more of its body; or serve the connections that have arrived on the channel of\n"
"`take_batches`.\n"
"\n"
"Returns whether nothing is left to do. Otherwise `serve` must be called next for the\n"
"socket of such a connection: it reads nothing, but returns the outcome.";

PyObject *
FastPath_serve_idle(FastPath *self, PyObject *argument)
{
    Joined *joined = (Joined *)PyDict_GetItemWithError(self->joined, argument);
    if (joined == NULL && PyErr_Occurred())
        return NULL;
    if (joined == NULL) {
        long descriptor = PyLong_AsLong(argument);
        if (descriptor == -1 && PyErr_Occurred())
            return NULL;
        int is_all = descriptor == self->channel ? serve_channel(self)
                                                 : accept_one(self, argument);
        return is_all < 0 ? NULL : PyBool_FromLong(is_all);
    }
    if (!joined->idle || joined->commit != NULL)
        Py_RETURN_FALSE;
    Py_INCREF((PyObject *)joined);
    int socket = (int)PyLong_AsLong(argument);
    self->may_block = 0;
    begin_turn(self);
    if (joined->held) {
        int status = serve_held(self, joined, socket);
        self->may_block = 1;
        Py_DECREF((PyObject *)joined);
        return status < 0 ? NULL : PyBool_FromLong(1);
    }
    self->secure = joined->secure;
    self->records = joined->records;
    long outcome = serve_or_leave(self, socket, joined, SET(NOTHING) | SET(SERVED));
    self->secure = self->records = NULL;
    self->may_block = 1;
    if (outcome < 0 && wait_alone(self, joined)) {
        Py_DECREF((PyObject *)joined);
        Py_RETURN_TRUE;
    }
    if (outcome == SERVED) {
        PyObject *before = joined->served;
        joined->served = PyObject_CallNoArgs(self->clock);
        Py_XDECREF(before);
        if (joined->served == NULL) {
            Py_DECREF((PyObject *)joined);
            return NULL;
        }
    }
    Py_DECREF((PyObject *)joined);
    return PyBool_FromLong(outcome >= 0);
}

const char serve_new_doc[] =
"serve_new(sockets) -> int\n"
"\n"
"Serve the request that has arrived with each new connection, if the connection ends\n"
"with it, and close the socket, of which other processes may have descriptors. Stop at\n"
"the first connection that stays open.\n"
"\n"
"Returns how many were served. The caller keeps the next socket, and must call `serve`\n"
"for it, which reads nothing, but returns the outcome.";

PyObject *
FastPath_serve_new(FastPath *self, PyObject *argument)
{
    Py_ssize_t count = PySequence_Size(argument);
    if (count < 0)
        return NULL;
    Py_ssize_t served = 0;
    while (served < count) {
        PyObject *number = PySequence_GetItem(argument, served);
        if (number == NULL)
            return NULL;
        long socket = PyLong_AsLong(number);
        Py_DECREF(number);
        if (socket == -1 && PyErr_Occurred())
            return NULL;
        /* The process that accepted it may have left it blocking. */
        if (serve_whole(self, (int)socket, 1) == IS_LEFT)
            break;
        served++;
    }
    return PyLong_FromSsize_t(served);
}

const char accept_doc[] =
"accept(listener, count, stays) -> (int, int, int, object)\n"
"\n"
"See kvd.http.fast_path.";

PyObject *
FastPath_accept(FastPath *self, PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "accept takes three arguments");
        return NULL;
    }
    long listener = PyLong_AsLong(arguments[0]);
    long most = PyLong_AsLong(arguments[1]);
    long stays = PyLong_AsLong(arguments[2]);
    if (PyErr_Occurred())
        return NULL;
    long accepted = 0, stayed = 0;
    int socket = -1;
    while (accepted < most && stayed < stays) {
        /* The listening socket is non-blocking, so this does not block. */
        int new_socket = accept_new(self, (int)listener);
        if (new_socket < 0)
            break;
        accepted++;
        int came_of_it = serve_accepted(self, new_socket, 0);
        if (came_of_it == HAS_ENDED)
            continue;
        stayed++;
        if (came_of_it == IS_LEFT) {
            socket = new_socket;
            break;
        }
    }
    /* Otherwise the next call gets the error, or it concerned a single connection. */
    if (accepted == 0 && most > 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return Py_BuildValue("(lliO)", accepted, stayed, socket,
                         socket < 0 ? Py_None : said_peer(self));
}

const char join_doc[] =
"join(socket) -> Joined\n"
"\n"
"A connection stays open; its socket does not block. `serve_idle` serves it from now on.";

PyObject *
FastPath_join(FastPath *self, PyObject *argument)
{
    long socket = PyLong_AsLong(argument);
    if (socket == -1 && PyErr_Occurred())
        return NULL;
    Joined *joined = self->adopting;
    if (joined != NULL && socket == PyLong_AsLong(joined->number)) {
        self->adopting = NULL;
        return Py_NewRef((PyObject *)joined);
    }
    return (PyObject *)new_joined(self, argument, (int)socket);
}
