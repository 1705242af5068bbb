/*
 * From where requests with a known password are served at once. Python decides that for an
 * address (kvd.access.authentication.Authentication.logs_in_at_once), and once it has said
 * yes, this holds as long as the daemon runs. So it is remembered: for a connection that
 * stays, and in a table for the first requests of others, which then cost a system call. Two
 * addresses with the same place in the table only have Python asked more often.
 */

#include "fast_path.h"

#include <netinet/in.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>

#define LOGIN_ADDRESSES 1024        /* a power of two */

struct LoginAddress {
    unsigned char family;       /* 0, AF_UNSPEC: there is none */
    unsigned char bytes[16];
};

/* The place of an address, which is put into `address`; NULL if it has none. */
static struct LoginAddress *
place_of(FastPath *self, const struct sockaddr_storage *from, struct LoginAddress *address)
{
    memset(address, 0, sizeof *address);
    address->family = (unsigned char)from->ss_family;
    if (from->ss_family == AF_INET)
        memcpy(address->bytes, &((const struct sockaddr_in *)from)->sin_addr, 4);
    else if (from->ss_family == AF_INET6)
        memcpy(address->bytes, &((const struct sockaddr_in6 *)from)->sin6_addr, 16);
    else if (from->ss_family != AF_UNIX)
        return NULL;
    if (self->login_addresses == NULL)
        /* Not earlier: it would cost memory in workers that never use it. */
        self->login_addresses = calloc(LOGIN_ADDRESSES, sizeof *self->login_addresses);
    uint32_t hash = 2166136261U;
    for (size_t i = 0; i < sizeof address->bytes; i++)
        hash = (hash ^ address->bytes[i]) * 16777619U;
    return self->login_addresses == NULL
        ? NULL : &self->login_addresses[(hash ^ hash >> 16) % LOGIN_ADDRESSES];
}

/* What Python says of a client. */
static int
ask(FastPath *self, PyObject *peer)
{
    PyObject *logs_in = Py_NewRef(self->logs_in);
    PyObject *said = PyObject_CallFunctionObjArgs(logs_in, peer, NULL);
    Py_DECREF(logs_in);
    int is_so = said == NULL ? -1 : PyObject_IsTrue(said);
    Py_XDECREF(said);
    return is_so;
}

/* Whether a request with a known password may be served here, on a connection (NULL: one
   that has not joined); -1 with an exception. */
int
logs_in_at_once(FastPath *self, int socket, Joined *joined)
{
    if (joined != NULL && joined->logs_in)
        return 1;
    struct sockaddr_storage from;
    struct LoginAddress address, *place = NULL;
    socklen_t size = sizeof from;
    PyObject *peer;
    if (joined != NULL && joined->peer != NULL)
        /* The kernel may only know a proxy. */
        peer = Py_NewRef(joined->peer);
    else {
        if (getpeername(socket, (struct sockaddr *)&from, &size) < 0)
            /* After a reset, which Python will see. */
            return 0;
        place = place_of(self, &from, &address);
        if (place != NULL && memcmp(place, &address, sizeof address) == 0) {
            if (joined != NULL)
                joined->logs_in = 1;
            return 1;
        }
        if ((peer = peer_from(&from)) == NULL)
            return -1;
    }
    int logs_in = ask(self, peer);
    Py_DECREF(peer);
    if (logs_in > 0 && joined != NULL)
        joined->logs_in = 1;
    if (logs_in > 0 && place != NULL)
        *place = address;
    return logs_in;
}

void
forget_login_addresses(FastPath *self)
{
    free(self->login_addresses);
    self->login_addresses = NULL;
}
