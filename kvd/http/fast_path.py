"""
The fast path: small requests, served in one call of a compiled module
(``kvd/native/fast_path.c``).

Most of what a small GET or PUT costs is the way through Python: objects and calls for
its connection, its head, its handler and its upload. The fast path is the same way for
requests that look like ones that have gone it: the same head but for the key, and a
whole body behind it. What such a head means, what the head of its reply looks like and
which value a file holds is asked of the modules that know it, once, and remembered as a
template (`kvd.http.templates`); what is left for each request is to read it, to look it
up, to ask the file system, to reply and to count.

The fast path ends wherever something is not as usual, and the request goes the ordinary
way, as if nothing had been tried. So the module decides nothing, and has no errors to
report; kvd without it, or with ``--fast-path off``, does the same but slower.

It is for the file store and the plain dialect alone, and writes values only at
durability ``process``: it must not wait for a sync.
"""

from __future__ import annotations

import time
from typing import Final, NamedTuple, Protocol

from kvd.http.access_log import Entry
from kvd.native import compiled

native: Final = compiled("_fast_path")
"""
The compiled module; None if kvd was installed without a C compiler.
"""

NOTHING: Final = 0
SERVED: Final = 1
CLOSES: Final = 2
QUEUED: Final = 4
LINGERS: Final = 8
"""
What `FastPath.serve` answers, but for bytes.
"""

MAX_BODY_BYTES: Final = 60 * 1024
"""
Of a PUT: head and body have to come in one read of 64 KiB.
"""


class Report(NamedTuple):
    """
    What is known of a request that was served.
    """

    method: str
    target: str
    status: int
    body_bytes: int
    seconds: float
    moved_bytes: int
    """In both directions, heads included, as far as the socket took them."""


def entry_of(report: Report, peer_name: str) -> Entry:
    """
    A request that was served, for the access log.
    """
    return Entry(
        ended=time.time(),
        peer=peer_name,
        method=report.method,
        key=report.target,
        status=report.status,
        body_bytes=report.body_bytes,
        seconds=report.seconds,
    )


class FastPath(Protocol):
    """
    What the compiled module provides. It belongs to one process and one thread.
    """

    def serve(self, socket: int, /) -> int | bytes:
        """
        Read from a socket of which nothing was read that is not served, and to which
        nothing is owed; serve the request that came.

        Args:
            socket: A descriptor; it is not waited for, even if it is a blocking one.

        Returns:
            `NOTHING` if nothing has come. `SERVED`, with `CLOSES` if the connection
            is to end with this reply, `LINGERS` if it must not be closed at once then
            (`kvd.net.transport.is_settled`), and `QUEUED` if a rest of it is still
            to be sent (`take_unsent`). Else the bytes that were read, with which
            nothing was done: they are somebody else's; empty if the client ended.

        Raises:
            OSError: It cannot be read.
        """

    def take_unsent(self) -> bytes:
        """
        What the socket did not take of the last reply.
        """

    def report(self) -> Report:
        """
        Of the request served last.
        """


def is_compiled() -> bool:
    """
    Whether this installation of kvd has the compiled module.
    """
    return native is not None
