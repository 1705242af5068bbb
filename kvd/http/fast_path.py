"""
Small requests, served in one call of a compiled module (``kvd/native/fast_path.c``).

Most of what a small GET or PUT costs is the way through Python: objects and calls
for its connection, its head, its turn, its exchange and its upload. A shortcut is
the same way for requests that look like ones that have gone it: the same head but
for the key, and a whole body behind it. What such a head means, what the head of its
reply looks like and which value a file holds is asked of the modules that know it,
once; what is left for each request is to read it, to look it up, to ask the file
system, to reply and to count.

A shortcut ends wherever something is not as usual, and the request goes the ordinary
way, as if nothing had been tried. So the module decides nothing, and does without
errors to tell; kvd without it, or with ``--shortcuts off``, is the same but slower.

They are for the file store and the plain dialect alone, and write values only at
durability ``process``: a sync must not be waited for here.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Final, NamedTuple, Protocol, cast

from kvd.dispatch.histogram import BUCKET_OF_EXPONENT, LEAST_EXPONENT
from kvd.dispatch.scoreboard import WORDS_OF_REQUESTS
from kvd.errors import KvdError
from kvd.http.methods.get import fields_of, is_ahead
from kvd.http.methods.put import published_reply
from kvd.http.site import Site
from kvd.http.wire.replies import reply_parts, with_length
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.model.operations import Get, Put
from kvd.model.requests import Request
from kvd.model.values import Published, ValueInfo
from kvd.native import compiled
from kvd.store.attribute import encode_metadata
from kvd.store.file import FileStore
from kvd.store.locks import offset_of

_native = compiled("_fast_path")

NOTHING: Final = 0
SERVED: Final = 1
CLOSES: Final = 2
QUEUED: Final = 4
LINGERS: Final = 8
"""
What `Shortcuts.serve` answers, but for bytes.
"""

MAX_BODY_BYTES: Final = 60 * 1024
"""
Of a PUT: head and body have to come in one read of 64 KiB.
"""

# An id of the length that all have, to be replaced.
_SOME_ID: Final = "0" * 32


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


class Joined(Protocol):
    """
    A connection that stays, as far as its requests need no Python at all.
    """

    idle: bool
    """Whether it waits for a request, which the fast path may read."""
    served: float | None
    """When `Shortcuts.serve_idle` last served one; None: never."""

    def leave(self) -> None:
        """
        The connection is closed. Its descriptor will be another's.
        """


class Shortcuts(Protocol):
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

    def join(self, socket: int, /) -> Joined:
        """
        Let `serve_idle` know a connection that stays. Nobody may want a report of its
        requests.
        """

    def serve_idle(self, socket: int, /) -> bool:
        """
        Serve the request that came on a connection that has joined and is idle.

        Returns:
            Whether nothing is left to do. Else `serve` must be called next for this
            socket: it reads nothing, but returns what came of this.
        """

    def serve_new(self, socket: int, shared: bool, /) -> bool:
        """
        Serve the request that came with a new connection, if the connection ends with
        it, and close the socket.

        Args:
            shared: Whether others may still have descriptors of it.

        Returns:
            Whether that is done. Else the socket is still the caller's, and `serve`
            must be called next for it: it reads nothing, but returns what came of this.
        """

    def take_unsent(self) -> bytes:
        """
        What the socket did not take of the last reply.
        """

    def report(self) -> Report:
        """
        Of the request served last.
        """


@dataclass(frozen=True, slots=True)
class _Templates:
    """
    Makes what the compiled module looks up: the template of a head, the reply of a
    value. It asks once for each.
    """

    native: ModuleType
    store: FileStore
    site: Site

    def make_template(self, head: bytes) -> object:
        """
        What a head means, whatever its key; None if the fast path does not serve such
        requests. It asks only about GET and PUT of a key.
        """
        try:
            request = self.site.heads.parse(head)
            dialects = self.site.dialects
            operation = dialects.understand(dialects.of(request.target), request)
        except KvdError:
            return None
        if request.chunked or request.expects_continue:
            return None
        if not self.site.guard.knows(request.host):
            # It depends on where a connection came in, which is nothing to look up.
            return None
        if isinstance(operation, Get):
            return self._template_of_get(operation, request)
        assert isinstance(operation, Put)
        return self._template_of_put(operation, request)

    def _template_of_get(self, operation: Get, request: Request) -> object:
        if (
            operation.conditions is not UNCONDITIONAL
            or not operation.body
            or b"range" in request.fields
            or request.has_body
        ):
            return None
        _, tail = reply_parts(
            200, [], close=not request.keep_alive, minor=request.minor
        )
        return self.native.get_template(request.keep_alive, tail)

    def _template_of_put(self, operation: Put, request: Request) -> object:
        length = request.length
        limit = self.site.limits.value_bytes
        if (
            operation.conditions is not UNCONDITIONAL
            or operation.empty
            or operation.digests
            or length is None
            or length > MAX_BODY_BYTES
            or (limit is not None and length > limit)
            or self.store.durability != "process"
        ):
            return None
        lines = encode_metadata(operation.metadata)
        created = self._reply_to_put(request, created=True)
        replaced = self._reply_to_put(request, created=False)
        return self.native.put_template(
            request.keep_alive, length, lines, *created, *replaced
        )

    def _reply_to_put(
        self, request: Request, *, created: bool
    ) -> tuple[int, tuple[bytes, bytes, bytes]]:
        """
        The status of a reply; and what stands before its date, between date and id,
        and behind the id.
        """
        info = ValueInfo(Key(b""), 0, _SOME_ID, 0.0)
        status, fields = published_reply(
            Published(info, created=created), self.store.durability
        )
        line, rest = reply_parts(
            status,
            with_length(status, fields, 0),
            close=not request.keep_alive,
            minor=request.minor,
        )
        before, _, behind = rest.partition(_SOME_ID.encode())
        return status, (line, before, behind)

    def value_of(self, key: Key) -> object:
        """
        What is held in memory under a key; None for nothing.
        """
        known = self.store.insides.recent.known(key)
        if known is None:
            return None
        identity, value = known
        if is_ahead(value.info):
            # It is said to be of the present, which changes.
            return None
        fields = with_length(200, fields_of(value.info), value.info.size)
        line, rest = reply_parts(200, fields, close=False, minor=1)
        return self.native.cached_value(
            identity, line, rest.removesuffix(b"\r\n\r\n"), value.body
        )


def shortcuts_to(site: Site) -> Shortcuts | None:
    """
    Shortcuts to the store of a site; None where there can be none.
    """
    store = site.store
    if (
        _native is None
        or not isinstance(store, FileStore)
        or not site.dialects.is_plain
    ):
        return None
    templates = _Templates(_native, store, site)
    insides = store.insides
    native = _native.FastPath(
        insides.root,
        insides.lock.descriptor,
        insides.swaps,
        insides.kept,
        insides.file_mode,
        site.limits.head_bytes,
        site.limits.target_bytes,
        Report,
        site.row.words,
        WORDS_OF_REQUESTS,
        BUCKET_OF_EXPONENT,
        LEAST_EXPONENT,
        templates.make_template,
        templates.value_of,
        offset_of,
        site.clock.seconds,
    )
    insides.recent.forgotten = native.forget
    insides.uploads.made = native.upload_to
    insides.lock.renewed = native.lock_renewed
    native.upload_to(insides.uploads.descriptor)
    return cast(Shortcuts, native)


def are_compiled() -> bool:
    """
    Whether this installation of kvd has them.
    """
    return _native is not None
