"""
The fast path: requests that are served in one call of a compiled module
(``kvd/native/``, from ``fast_path.c``).

Most of the cost of a small GET or PUT is in Python: objects and calls for its
connection, its head, its handler and its upload. The fast path serves requests that
look like earlier ones: the same head except for the key, the length of the body,
conditions and a range, followed by a whole body. The Python modules say once what such
a head means, and what the head of its reply looks like; the compiled module remembers
that as a template (`kvd.http.templates`). For each request it only has to read, look
up, ask the file system, reply and count.

Wherever something is unusual, the fast path leaves the request to Python as if it had
done nothing; an upload whose body comes in pieces, with the file that it has written so
far. So the module decides nothing and reports no errors. Without it, or with
``--fast-path off``, kvd does the same, but slower.

The fast path is for the file store and the plain dialect only. At durability ``disk``,
the reply of a PUT waits for syncs; `kvd.http.commits` says how.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from kvd.http.access_log import Sender
from kvd.interfaces import IUpload
from kvd.model.keys import Key
from kvd.model.values import Metadata, ValueInfo
from kvd.native import compiled

if TYPE_CHECKING:
    from kvd.store.sync import Found

native: Final = compiled("_fast_path")
"""
The compiled module; None if kvd was installed without a C compiler.
"""

MAX_BODY_BYTES: Final[int] = 0 if native is None else native.MAX_BODY_BYTES
"""
The longest body of a PUT that it serves. Longer ones are moved inside the kernel.
"""

MAX_PARTIAL_BYTES: Final[int] = 0 if native is None else native.MAX_PARTIAL_BYTES
"""
The longest one that it serves if not all of the body comes in one event.
"""

NOTHING: Final = 0
SERVED: Final = 1
CLOSES: Final = 2
QUEUED: Final = 4
LINGERS: Final = 8
REMAINS: Final = 16
LOST: Final = 32
LEAVES_UPLOAD: Final = 64
COMMITS: Final = 128
"""
What `FastPath.serve` returns, as far as it is a number.
"""


class Report(NamedTuple):
    """
    A request that was served, for the access log.
    """

    ended: float
    """Seconds since the epoch."""
    peer: Any
    """What ``accept`` said of the client."""
    sender: Sender | None
    """What the head says of its sender."""
    certified: str | None
    """The user that the client's certificate names."""
    proxy: str | None
    """See `Joined`."""
    method: str
    target: str
    status: int
    body_bytes: int
    seconds: float


class Remainder(NamedTuple):
    """
    The end of a reply that is still to be sent. Nothing of its request is counted yet.
    """

    request: bytes
    """Its head."""
    unsent: bytes
    """What is left of the head of the reply."""
    status: int
    descriptor: int
    """Of the open file of the value, which the caller closes."""
    offset: int
    """Where the rest of the body begins in it."""
    rest_bytes: int
    """How long it is."""
    sent_bytes: int
    """What was sent, with the head."""
    body_bytes: int
    """Of the body."""
    seconds: float
    """Since the request came."""
    hit: ValueInfo | None
    """Describes the value, if its file is one of a near cache."""


class PartialUpload(NamedTuple):
    """
    An upload that has begun. Its request is counted as begun, and what was received.
    """

    adopt: Callable[[Key, int, Metadata, int, bytes, int], IUpload]
    """See `FileStore.adopt`."""
    request: bytes
    """Its head."""
    descriptor: int
    """Of its open file, which the caller closes."""
    name: bytes
    """Of the file, in the upload folder."""
    held: int
    """How many bytes its quotas hold for it, which are the caller's to give back."""
    received: int
    """How many bytes of the body have come and are in the file."""
    unwritten: bytes
    """What has come behind them: the file did not take it. It is not counted yet."""
    sent: int
    """How many bytes of ``100 Continue`` were sent, and counted."""
    unsent: bytes
    """What is left of it."""
    seconds: float
    """Since the request came."""
    waits_since: float
    """When the last bytes of the request came."""


class Commit(Protocol):
    """
    A PUT at durability ``disk``, from the written file to the reply.
    """

    connection: Any
    """The connection that waits for the reply and knows it; None: there is none."""
    unknown: Any
    """The one that waits without knowing it; None: there is none."""
    key: Key
    head: bytes
    """Of the request."""
    size: int
    """Of the value, in bytes."""
    etag: str
    published_us: int
    """The value's date, in microseconds since the epoch."""
    replaced: bool
    """Whether the key had a value."""
    error: int
    """The number of the error with which the sync of the file failed; else 0."""
    seconds: float
    """Since the request came."""
    sent: int
    """How many bytes were sent before the reply; they are counted."""

    def take_file(self) -> tuple[int, bytes, int]:
        """
        The file of a value that was not published, its name in the upload folder, and
        how many bytes its quotas hold for it; all are the caller's from now on.
        """


class Joined(Protocol):
    """
    A connection that stays, as far as its requests need no Python at all.
    """

    idle: bool
    """Whether it waits for a request, or for the body of one that the fast path has
    begun; then the fast path may read."""
    served: float | None
    """When `FastPath.serve_idle` last served one; None: never."""
    secure: object
    """What encrypts and decrypts for it (`kvd.net.secure_socket.SecureSocket`), over
    TLS."""
    records: tuple[Callable[..., Any], ...]
    """Its functions (`kvd.net.secure_socket.RecordFunctions`); without them, its
    methods do the same."""
    connection: Any
    """The connection, until it leaves."""
    peer: Any
    """What ``accept`` said of the client, or the proxy that has made the connection for
    it; None: the fast path asks the kernel."""
    user: str | None
    """The user that the client's certificate names."""
    proxy: str | None
    """The proxy that has made the connection for the client."""
    requests: int
    """How many the fast path has served on this connection. Those that the connection
    knows of before they end are not counted."""
    seconds: float
    """How long the requests took that it has served."""
    bytes: int
    """What it has received and sent for them, but for what the connection has
    counted."""

    def take_commit(self, connection: Any, /) -> Commit | None:
        """
        What `FastPath.serve_idle` has begun and this connection waits for without
        knowing it; None if it does not. From now on, it knows it.
        """

    def take_upload(self) -> PartialUpload | None:
        """
        The upload that the fast path has begun on this connection, if there is one; it
        is the caller's from now on.
        """

    def leave(self) -> None:
        """
        The connection is closed. Its descriptor will be another's.
        """


class SharedPort(Protocol):
    """
    See `kvd.net.port.Port`.
    """

    as_usual: bool

    def may_accept_one(self, is_open: bool | None, /) -> bool | None: ...

    def serve(self, descriptor: int, peer: Any, /) -> None:
        """
        Serve a connection that stays, as after `FastPath.serve_new`.
        """

    def unwatched(self, number: int, /) -> None: ...


class Gated(Protocol):
    """
    Whatever may keep its process from accepting.
    """

    may_accept: Callable[[int], bool]
    """Whether to accept, if so many connections wait."""


class FastPath(Protocol):
    """
    What the compiled module provides. One process and one thread use it.
    """

    def serve(self, socket: int, /) -> int | bytes:
        """
        Read from a socket between two requests, and serve the request that arrived; or
        read the rest of one that has begun to arrive.

        If only a part of the body of a PUT has arrived, and the whole is no longer than
        `MAX_PARTIAL_BYTES`, that part is written to the file of an upload, and the next
        call reads more. If the connection has not joined, it must do so next. Meanwhile
        the upload can be taken (`Joined.take_upload`).

        Args:
            socket: A descriptor. `serve` does not wait for it, even if it blocks.

        Returns:
            `NOTHING` if nothing has arrived, or not all of a body. `LOST` if the socket
            cannot be read. `SERVED`, with `CLOSES` if the connection ends with this
            reply, `LINGERS` if it must not be closed at once then
            (`kvd.net.sockets.is_drained`), and `QUEUED` if a part of the reply has
            still to be sent (`take_unsent`); or with `REMAINS` if it has, and is in a
            file (`take_remainder`). `COMMITS` if the reply is due when the value is on
            the disk (`take_commit`). `LEAVES_UPLOAD` if the caller must take the upload
            of this connection: the client sends no more, or the upload has failed.
            Otherwise the bytes that were read, which are left to the caller; empty if
            the client has closed its half.
        """

    def serve_secure(self, socket: int, secure: object, /) -> int | bytes:
        """
        As `serve`, over TLS. A body that has not come whole is left to the caller, and
        so is a value that has to be synced.

        Args:
            secure: See `Joined.secure`.
        """

    def join(self, socket: int, /) -> Joined:
        """
        Get to know a connection that stays.

        Args:
            socket: Its descriptor, which must not block.
        """

    def share(self, listener: int, port: SharedPort, server: Gated, /) -> None:
        """
        Let `serve_idle` accept from a socket that other processes accept from too, when
        a single connection waits there; it is served as `serve_new` does. The poller
        (`hold`) watches the socket with ``EPOLLEXCLUSIVE``.

        Args:
            listener: The descriptor of the listening and non-blocking socket, until
                `unshare`.
            port: Accepts from the socket where this does not.
            server: Has the gate of this process.
        """

    def unshare(self, listener: int, /) -> None:
        """
        Accept no more from a socket. One that is unknown is ignored.
        """

    def hold(
        self,
        poller: int,
        most_open: int,
        adopt: Callable[[int, float, Any], object],
        /,
    ) -> None:
        """
        From now on, keep a new connection that stays open without an object of Python,
        until there is something for Python to do. Until then, `serve_idle` serves it,
        and closes it when the client does. There are some dozens of them at most.

        Args:
            poller: The reactor's epoll instance, which is to watch such connections.
                The reactor calls `serve_idle` for every event of theirs.
            most_open: How many connections may be open in this process. The one that
                makes them so many is the caller's.
            adopt: Called with the descriptor of such a connection, which is its own
                from then on, when it was accepted, and what ``accept`` said of its
                client; None: that was not asked. The connection is counted as
                open, and `serve` must be called next for it, as after `serve_new`.
        """

    def adopt_held(self, before: float, /) -> None:
        """
        Give Python the connections that it has had nothing to do with so far.

        Args:
            before: Only those that were accepted before this time.
        """

    def serve_idle(self, socket: int, /) -> bool:
        """
        Serve the request that came on a connection that has joined and is idle, or read
        more of one, as `serve` does; or serve the connections that came on the channel
        of `take_batches`. If the reply waits for a sync, `reply_all` sends it.

        Returns:
            Whether nothing is left to do now. Else `serve` must be called next for the
            socket of such a connection: it reads nothing, but returns what came of
            this.
        """

    def take_batches(
        self,
        channel: int,
        credits: int,
        word: int,
        plain: bytes,
        adopt: Callable[[int, int], object],
        came: Callable[[bytes, list[int], int], object],
        /,
    ) -> None:
        """
        Let `serve_idle` read batches of connections from a control socket, and serve
        them as `serve_new` does.

        Args:
            channel: The control socket, until `leave_batches`.
            credits: The counter of credits.
            word: Of the row: where it writes the number of a batch that it has served.
            plain: Has a byte for each address that connections have come to, by its
                number; 0: it speaks TLS, and all its connections stay.
            adopt: Called with the descriptor of each connection that stays, as after
                `serve_new`, and the number of its address.
            came: Called with any other message, the descriptors that came with it,
                which are its own, and the flags that recvmsg(2) returned; also with a
                batch that is not whole, has no credit, or is to be acknowledged.
        """

    def leave_batches(self) -> None:
        """
        Read no more batches.
        """

    def forget_templates(self) -> None:
        """
        What senders may do has changed: ask Python again about every head. Requests
        whose heads have been served by a template end by it.
        """

    def serve_new(self, sockets: Sequence[int], /) -> int:
        """
        Serve the request that came with each new connection, if the connection ends
        with it, and close the socket, of which others may still have descriptors. Stop
        at the first that stays.

        Args:
            sockets: Their descriptors.

        Returns:
            How many were served. The next socket is still the caller's, and `serve`
            must be called next for it: it reads nothing, but returns what came of this.
        """

    def accept(
        self, listener: int, count: int, stays: int, /
    ) -> tuple[int, int, int, Any]:
        """
        Accept connections, and serve each as `serve_new` does.

        Args:
            listener: The descriptor of a listening and non-blocking socket.
            count: How many connections to accept at most.
            stays: How many at most that stay open.

        Returns:
            How many were accepted, and how many of them stay open; fewer of both if no
            more wait. The descriptor of the last one if it is the caller's, as after
            `serve_new`; else -1. What ``accept`` said of its client; None: that was not
            asked.

        Raises:
            OSError: None could be accepted, or none waits.
        """

    def take_unsent(self) -> bytes:
        """
        The part of the last reply that the socket did not take.
        """

    def take_remainder(self) -> Remainder:
        """
        The part of the last reply that the socket did not take, in an open file.
        """

    def send_at_most(self, size: int, /) -> None:
        """
        Send so many bytes of a file at once from now on; the rest remains
        (`take_remainder`).
        """

    def sync_event(self) -> int:
        """
        A descriptor that can be read when `publish_synced` has something to do, at
        durability ``disk``.
        """

    def take_commit(self, connection: Any, /) -> Commit:
        """
        What `serve` has begun for a connection. Its request is counted as begun.
        """

    def hand_over(self) -> None:
        """
        Have all synced that is to be. From the first call on, files and folders wait
        for the next one, so that those of a turn are synced together; it must come
        before the process waits for events.
        """

    def publish_synced(
        self,
    ) -> tuple[
        dict[bytes, list[Commit]],
        list[Commit],
        list[tuple[Callable[[Found], None], Found]],
    ]:
        """
        Publish the values of all commits whose files are synced by now.

        Returns:
            Those that were published, by their folders, which are still to be synced;
            those that were not, because the sync failed or because they are left to
            the caller; and the `done` of `sync_folders_later`, with its argument, of
            all folders that are synced by now.
        """

    def sync_folders_later(
        self, path: bytes, first: int, done: Callable[[Found], None], /
    ) -> bool:
        """
        Sync the folders on a path, as `kvd.store.sync.FolderSync`, in a thread that
        needs no turn of the Python interpreter. `publish_synced` returns its result.

        Returns:
            Whether there is a thread for it.
        """

    def reply_all(self, commits: list[Commit], /) -> list[Commit]:
        """
        Send the replies of commits whose folders are synced to the connections that
        wait without knowing it.

        Returns:
            The others, whose replies are still to be sent.
        """

    def reply_to(self, commit: Commit, socket: int, /) -> int:
        """
        Send the reply of a commit whose folders are synced.

        Returns:
            As `serve`.
        """

    def report_to(
        self, requests: bool, connections: bool, come: Callable[[bool], object], /
    ) -> None:
        """
        Report what is served from now on; see `take_reports`.

        Args:
            requests: Whether requests are reported.
            connections: Whether connections are that no object was made for.
            come: Called with whether many reports wait to be taken: when there is one,
                and for each from the time that there are many.
        """

    def take_reports(self) -> tuple[list[Report], list[tuple[Any, ...]]]:
        """
        The requests that ended since the last call, in their order; and the
        connections, each as the fields of a `kvd.http.recorder.Ended`.
        """


class HitTable(Protocol):
    """
    What the compiled module knows of a near cache; see `kvd.http.hits`.
    """

    def offer(
        self,
        key: Key,
        name: Key,
        file_etag: str,
        until: float,
        etag: str,
        changed: int,
        parts: object,
        info: ValueInfo,
        /,
    ) -> None:
        """
        Serve a key from a file of the cache. The fast path to a store with a cache
        serves nothing else.

        Args:
            key: The key.
            name: Of the file, in the folder of the cache.
            file_etag: The entity tag of the file.
            until: When that ends, by the clock of the process.
            etag: The entity tag of the value.
            changed: Its date, in whole seconds since the epoch.
            parts: What its replies look like (`kvd.http.templates`).
            info: `Remainder.hit`.
        """

    def withdraw(self, key: Key, /) -> None:
        """
        End an offer. A key that has none is ignored.
        """


def is_compiled() -> bool:
    """
    Whether this installation of kvd has the compiled module.
    """
    return native is not None
