"""
Upgrading a running daemon: new code takes over its listening sockets, and it drains.

======= ============================== =============================================
message from                           means
======= ============================== =============================================
(first) the old daemon                 the manifest
started the new daemon                 its settings are right; with its process
ready   the new daemon                 all its workers are ready, and accept nothing
error   the new daemon                 it cannot serve, with a sentence
take    the old daemon                 serve; with what the store's values take
serves  the new daemon                 it accepts
main    the old daemon                 it accepts no more, and service manager knows
stop    the old daemon                 end
signal  the old daemon                 it got this signal: heed it, once you serve
======= ============================== =============================================

Each is a JSON object in one datagram, so that versions of kvd understand each other.
Both accept connections from the same sockets between ``take`` and ``main``, so at no
moment does nobody. Until ``take`` the new daemon touches no connection, and its end
costs none. If the old daemon dies meanwhile, the new one serves as soon as it can: the
sockets are open in both, and no connection in their queues is lost.
"""
