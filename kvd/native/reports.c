/*
 * What the access log and the record of connections hear of the requests and connections
 * that are served here. Python takes the reports, many at once, and writes them
 * (kvd.http.reports).
 */

#include "fast_path.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

/* Python takes so many at once, in about a millisecond. */
#define MOST_REPORTS 256

/* An address as `accept` of Python's sockets returns it, as far as logs say it; that of a
   Unix socket for any other. */
PyObject *
peer_from(const struct sockaddr_storage *from)
{
    char host[INET6_ADDRSTRLEN];
    const void *address = NULL;
    unsigned int port = 0;
    if (from->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)from;
        address = &in->sin_addr;
        port = ntohs(in->sin_port);
    } else if (from->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)from;
        address = &in->sin6_addr;
        port = ntohs(in->sin6_port);
    }
    if (address == NULL || inet_ntop(from->ss_family, address, host, sizeof host) == NULL)
        return PyUnicode_FromString("");
    return from->ss_family == AF_INET ? Py_BuildValue("(sI)", host, port)
                                      : Py_BuildValue("(sIII)", host, port, 0, 0);
}

/* The client of a connection; NULL with an exception. As kvd.net.sockets.peer_of, if nobody
   has said it. */
PyObject *
peer_of(FastPath *self, int socket, Joined *joined)
{
    if (joined != NULL && joined->peer != NULL)
        return Py_NewRef(joined->peer);
    if (joined == NULL && self->new_socket == socket && self->new_peer != NULL)
        return Py_NewRef(self->new_peer);
    struct sockaddr_storage from;
    socklen_t size = sizeof from;
    PyObject *peer = getpeername(socket, (struct sockaddr *)&from, &size) < 0
        ? Py_BuildValue("(si)", "", 0) : peer_from(&from);
    if (peer != NULL && joined != NULL)
        joined->peer = Py_NewRef(peer);
    return peer;
}

/*
 * Accept a connection. Where reports name the client, this remembers who it is: after a reset,
 * the socket does not say so. Returns as accept4(2).
 */
int
accept_new(FastPath *self, int listener)
{
    struct sockaddr_storage from;
    socklen_t size = sizeof from;
    int flags = SOCK_CLOEXEC | SOCK_NONBLOCK;
    Py_CLEAR(self->new_peer);
    if (self->requests == NULL)
        return accept4(listener, NULL, NULL, flags);
    int socket = accept4(listener, (struct sockaddr *)&from, &size, flags);
    self->new_socket = socket;
    if (socket >= 0 && (self->new_peer = peer_from(&from)) == NULL)
        PyErr_Clear();
    return socket;
}

/* Add a report, which this takes. Python hears of the first, and when there are many.
   Returns 0; -1 with an exception. */
static int
add(FastPath *self, PyObject *reports, PyObject *report)
{
    if (report == NULL || PyList_Append(reports, report) < 0) {
        Py_XDECREF(report);
        return -1;
    }
    Py_DECREF(report);
    Py_ssize_t count = PyList_Size(reports);
    if (count > 1 && count < MOST_REPORTS)
        return 0;
    PyObject *come = Py_NewRef(self->reports_come);
    PyObject *called = PyObject_CallFunctionObjArgs(come, count > 1 ? Py_True : Py_False,
                                                    NULL);
    if (called == NULL)
        /* What is wrong with the log is not the client's fault. */
        PyErr_WriteUnraisable(come);
    Py_XDECREF(called);
    Py_DECREF(come);
    return 0;
}

/*
 * Report a request that was served, and count it for its connection (NULL: one that has not
 * joined).
 *
 * is_known: whether Python has counted that it came.
 *
 * Returns 0; -1 with an exception.
 */
int
report(FastPath *self, int socket, Joined *joined, const Request *request, int is_known)
{
    Account *account = joined == NULL ? &self->new_account : &joined->account;
    account->requests += !is_known;
    account->seconds += self->seconds;
    account->bytes += (unsigned long long)self->moved_bytes;
    if (self->requests == NULL)
        return 0;
    PyObject *peer = peer_of(self, socket, joined);
    if (peer == NULL)
        return -1;
    PyObject *sender = request->template->user;
    PyObject *certified = joined == NULL ? NULL : joined->user;
    PyObject *proxy = joined == NULL ? NULL : joined->proxy;
    struct timespec ended;
    clock_gettime(CLOCK_REALTIME, &ended);
    Py_ssize_t method = request->line_bytes - 2;
    PyObject *made = PyObject_CallFunction(
        self->report, "dOOOOs#s#ind", (double)ended.tv_sec + (double)ended.tv_nsec * 1e-9,
        peer, sender == NULL ? Py_None : sender, certified == NULL ? Py_None : certified,
        proxy == NULL ? Py_None : proxy,
        request->bytes, method, request->bytes + method + 1,
        request->key_bytes + 1, self->status, self->body_bytes, self->seconds);
    Py_DECREF(peer);
    return add(self, self->requests, made);
}

/* The time by Python's clock; -1 with an exception. */
double
clock_seconds(const FastPath *self)
{
    PyObject *time = PyObject_CallNoArgs(self->clock);
    double seconds = time == NULL ? -1 : PyFloat_AsDouble(time);
    Py_XDECREF(time);
    return seconds;
}

/*
 * Report a connection that ends now, and that Python has had nothing to do with.
 *
 * made: when it was accepted, by Python's clock.
 *
 * Returns 0; -1 with an exception.
 */
int
report_end(FastPath *self, double made, const Account *account)
{
    if (self->connections == NULL)
        return 0;
    struct timespec ended;
    clock_gettime(CLOCK_MONOTONIC, &ended);
    double present = clock_seconds(self);
    if (PyErr_Occurred())
        return -1;
    return add(self, self->connections, Py_BuildValue(
        "(LddKI)", (long long)ended.tv_sec * 1000000000 + ended.tv_nsec, present - made,
        account->seconds, account->bytes, account->requests));
}

const char report_to_doc[] =
"report_to(requests, connections, come)\n"
"\n"
"See kvd.http.fast_path.";

PyObject *
FastPath_report_to(FastPath *self, PyObject *args)
{
    int requests, connections;
    PyObject *come;
    if (!PyArg_ParseTuple(args, "ppO:report_to", &requests, &connections, &come))
        return NULL;
    PyObject *before = self->reports_come;
    self->reports_come = Py_NewRef(come);
    Py_XDECREF(before);
    Py_CLEAR(self->requests);
    Py_CLEAR(self->connections);
    if ((requests && (self->requests = PyList_New(0)) == NULL)
        || (connections && (self->connections = PyList_New(0)) == NULL))
        return NULL;
    Py_RETURN_NONE;
}

/* Give a list away, and begin another in its place. Returns NULL with an exception. */
static PyObject *
take(PyObject **place)
{
    if (*place == NULL || PyList_Size(*place) == 0)
        return PyList_New(0);
    PyObject *taken = *place, *empty = PyList_New(0);
    if (empty == NULL)
        return NULL;
    *place = empty;
    return taken;
}

const char take_reports_doc[] =
"take_reports() -> (list[Report], list[tuple])\n"
"\n"
"See kvd.http.fast_path.";

PyObject *
FastPath_take_reports(FastPath *self, PyObject *Py_UNUSED(none))
{
    PyObject *requests = take(&self->requests), *connections = NULL;
    if (requests != NULL && (connections = take(&self->connections)) == NULL)
        Py_CLEAR(requests);
    return requests == NULL ? NULL : Py_BuildValue("(NN)", requests, connections);
}
