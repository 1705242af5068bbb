/*
 * Listening sockets that several processes share: whether to accept the connection that
 * waits, and which process the kernel wakes for the next one.
 */

#include "fast_path.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/socket.h>

/* How many connections wait at a listening socket; below 0: the kernel does not say. As
   kvd.net.listening.accept_queue. */
static long
waiting_at(int listener)
{
    struct tcp_info info;
    socklen_t size = offsetof(struct tcp_info, tcpi_sacked);
    if (getsockopt(listener, IPPROTO_TCP, TCP_INFO, &info, &size) < 0)
        return -1;
    return (long)info.tcpi_unacked;
}

/*
 * Have the kernel wake another process for the next connection. It wakes the one that has
 * watched the socket for longest. So where connections come one after the other, one process
 * serves all of them, with warm caches. Where one comes while this process has another, it
 * would wake and leave that to the others: there processes take turns. Returns 0; -1, with
 * errno, if the poller watches the socket no more.
 */
static int
let_others(const FastPath *self, int listener)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLEXCLUSIVE, .data.fd = listener};
    epoll_ctl(self->poller, EPOLL_CTL_DEL, listener, NULL);
    return epoll_ctl(self->poller, EPOLL_CTL_ADD, listener, &event);
}

/*
 * Ask the gate of a server, while all is as usual at its port; otherwise, and when the gate is
 * closed, the port says what to do. Returns as `may_accept_one` of the port, or NULL.
 */
static PyObject *
may_accept(PyObject *port, PyObject *server)
{
    PyObject *usual = PyObject_GetAttrString(port, "as_usual"), *is_open;
    if (usual == NULL)
        return NULL;
    is_open = usual == Py_True ? PyObject_CallMethod(server, "may_accept", "i", 1)
                               : Py_NewRef(Py_None);
    Py_DECREF(usual);
    if (is_open == NULL || is_open == Py_True)
        return is_open;
    PyObject *may = PyObject_CallMethod(port, "may_accept_one", "O", is_open);
    Py_DECREF(is_open);
    return may;
}

/* Accept the only connection that waits at a shared socket. Returns 1 if nothing is left to
   do, 0 if Python should look, -1 with an exception. */
int
accept_one(FastPath *self, PyObject *number)
{
    PyObject *shared = PyDict_GetItemWithError(self->listeners, number);
    if (shared == NULL)
        return PyErr_Occurred() ? -1 : 0;
    int listener = (int)PyLong_AsLong(number);
    long waiting = waiting_at(listener);
    /* None: another process was faster. */
    if (waiting != 1)
        return waiting == 0;
    Py_INCREF(shared);
    PyObject *port = PyTuple_GetItem(shared, 0);
    PyObject *may = may_accept(port, PyTuple_GetItem(shared, 1));
    int status = may == NULL ? -1 : may == Py_None ? 0 : 1;
    if (may == Py_False)
        self->turns = TURNS;
    else if (status == 1) {
        int socket = accept_new(self, listener);
        if (socket < 0)
            /* Python meets any other error again. */
            status = errno == EAGAIN;
        else {
            int came_of_it = serve_accepted(self, socket, 0);
            PyObject *done = NULL;
            if (came_of_it == IS_LEFT)
                done = PyObject_CallMethod(port, "serve", "iO", socket, said_peer(self));
            else if (came_of_it == IS_HELD && self->turns > 0 && self->turns--
                     && let_others(self, listener) < 0)
                done = PyObject_CallMethod(port, "unwatched", "i", errno);
            else
                done = Py_NewRef(Py_None);
            status = done == NULL ? -1 : 1;
            Py_XDECREF(done);
        }
    }
    Py_XDECREF(may);
    Py_DECREF(shared);
    return status;
}

const char share_doc[] =
"share(listener, port, server)\n"
"\n"
"See kvd.http.fast_path.";

PyObject *
FastPath_share(FastPath *self, PyObject *args)
{
    PyObject *listener, *port, *server;
    if (!PyArg_ParseTuple(args, "O!OO:share", &PyLong_Type, &listener, &port, &server))
        return NULL;
    PyObject *shared = PyTuple_Pack(2, port, server);
    int set = shared == NULL ? -1 : PyDict_SetItem(self->listeners, listener, shared);
    Py_XDECREF(shared);
    if (set < 0)
        return NULL;
    Py_RETURN_NONE;
}

const char unshare_doc[] =
"unshare(listener)\n"
"\n"
"See kvd.http.fast_path.";

PyObject *
FastPath_unshare(FastPath *self, PyObject *argument)
{
    int is_known = PyDict_Contains(self->listeners, argument);
    if (is_known < 0 || (is_known && PyDict_DelItem(self->listeners, argument) < 0))
        return NULL;
    Py_RETURN_NONE;
}
