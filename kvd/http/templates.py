"""
Head templates: what the fast path (`kvd.http.fast_path`) looks up.

Each says once what a request would get through Python: what a head means, whatever its
key; and what the head of the reply looks like, whatever the value.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from types import ModuleType
from typing import Any, Final, cast

from kvd.access.rules import ByPrefix
from kvd.access.scope import Scope
from kvd.errors import KvdError, PreconditionFailed
from kvd.http.access_log import sender_of
from kvd.http.commits import Commits
from kvd.http.context import ProcessContext
from kvd.http.fast_path import (
    MAX_BODY_BYTES,
    FastPath,
    PartialUpload,
    Remainder,
    Report,
    native,
)
from kvd.http.methods.listing import wants_page
from kvd.http.page_guard import check_page
from kvd.http.pieces import FILE_BYTES
from kvd.http.reply_fields import (
    Fields,
    cache_field,
    fields_of,
    part_fields,
    published_reply,
    refusal_fields,
    unchanged_fields,
)
from kvd.http.reports import bring_reports
from kvd.http.wire.replies import CONTINUE, http_date, problem, reply_parts, with_length
from kvd.interfaces import ICachingStore
from kvd.ipc.messages import MAX_BYTES, MAX_DESCRIPTORS
from kvd.ipc.row import word_of_method
from kvd.model.conditions import UNCONDITIONAL, Conditions, EntityTags
from kvd.model.keys import Key, escape
from kvd.model.operations import Get, Put
from kvd.model.requests import Request
from kvd.model.values import Published, ValueInfo
from kvd.net.sending import (
    LARGE_FILE_BYTES,
    LOW_ROUND_TRIP_MICROSECONDS,
    LOW_ROUND_TRIP_SEND_BUFFER,
)
from kvd.store.attribute import (
    FIELDS,
    MalformedAttribute,
    decode_metadata,
    encode_metadata,
)
from kvd.store.epochs import AHEAD_SECONDS
from kvd.store.exchange import renames_removed_files, reports_unwritten_parts
from kvd.store.faults import absence
from kvd.store.file import FileStore
from kvd.store.tree import KEEPING
from kvd.store.uploads import FILE_FLAGS, NAMELESS_FLAGS
from kvd.store.value import LATEST, READ_FLAGS

# To be replaced: an id of the length that all have, and a key that no sentence has.
_SOME_ID: Final = "0" * 32
_SOME_KEY: Final = Key(_SOME_ID.encode())

# Numbers to be replaced: neither they nor _FIRST + _LENGTH - 1 contain one another.
_SIZE: Final = 9 * 10**17
_FIRST: Final = 10**17 + 1
_LENGTH: Final = 3 * 10**17

PLAIN: Final = bytes(byte for byte in range(256) if escape(bytes((byte,))) == chr(byte))
"""
The bytes of a key that are the same in a sentence.
"""

ALL_KEYS: Final = Scope(ByPrefix({b"": True}), None)

MOST_SCOPES: Final = 64
"""
Where the rights of a sender depend on more prefixes, requests take the ordinary way.
"""

MOST_RECENT: Final = 2048
"""
The most small values that are kept in memory. Each holds a descriptor; they use an
eighth of the descriptors of the process at most.
"""

MOST_LINES: Final = 1200
"""
Values with metadata of more bytes, as lines, take the ordinary way; so what is kept of
their replies takes little memory.
"""


@dataclass(frozen=True, slots=True)
class _Templates:
    """
    Makes what the compiled module looks up: the template of a head, the parts of the
    reply of a value. It asks once for each.
    """

    native: ModuleType
    process: ProcessContext
    is_near: bool
    """Whether values come from a near cache, and none is stored."""

    def make_template(self, head: bytes) -> object:
        """
        What a head means, whatever its key, and whatever the values of the fields that
        vary (``kvd/native/shape.c``); None if the fast path does not serve such
        requests; False if it is not known yet who sends them. It asks only about GET,
        HEAD and PUT of a key.
        """
        process = self.process
        try:
            request = process.heads.parse(head)
            # What is looked at is part of the shape of a head; not so the target, by
            # which pages of other sites may be allowed.
            check_page(request, None)
            operation = process.dialects.understand_plainly(request)
        except KvdError:
            return None
        if request.chunked:
            return None
        if not process.guard.knows(request.host):
            # It depends on where a connection came in, which is nothing to look up.
            return None
        if operation.__class__ is not Get and operation.__class__ is not Put:
            # It is about an upload that can be resumed.
            return None
        assert isinstance(operation, Get | Put)
        scope = self._scope(request, operation)
        if scope is None:
            return False
        if len(scope.allowed.items) > MOST_SCOPES:
            return None
        if isinstance(operation, Get):
            template = self._template_of_get(operation, request)
        else:
            template = self._template_of_put(operation, request)
        if template is not None and (scope is not ALL_KEYS or process.log is not None):
            # The time of day is compared in whole seconds.
            expires = 0 if scope.expires is None else max(1, int(scope.expires))
            scopes = [bytes((yes,)) + prefix for prefix, yes in scope.allowed.items]
            sender = None if process.log is None else sender_of(request, scope.user)
            self.native.limit_template(
                template, tuple(scopes), expires, sender, scope.by_password
            )
        return template

    def logs_in_at_once(self, peer: Any) -> bool:
        """
        Whether a request with a password is served by a template, given what ``accept``
        said of its client. The compiled module remembers for which addresses it is.
        """
        authorization = self.process.authorization
        return authorization is not None and authorization.logs_in_at_once(peer)

    def _scope(self, request: Request, operation: Get | Put) -> Scope | None:
        """
        For which keys a head means the same; None if it is not known yet who sends it.
        """
        process = self.process
        scope: Scope | None = ALL_KEYS
        if process.authorization is not None:
            scope = process.authorization.scope(request, operation)
        if scope is not None and process.dialects.plain.items:
            scope = scope.without(process.dialects.plain)
        if scope is None or process.cors is None:
            return scope
        # Python tells browsers which pages may see a reply.
        silent = {prefix: not said for prefix, said in process.cors.origins.items}
        return scope.without(ByPrefix(silent))

    def _template_of_get(self, operation: Get, request: Request) -> object:
        if request.expects_continue:
            return None
        _, tail = reply_parts(
            200, [], close=not request.keep_alive, minor=request.minor
        )
        conditions = operation.conditions
        return self.native.get_template(
            word_of_method(request.method),
            not operation.body,
            request.keep_alive,
            operation.body and operation.ranges,
            _outcomes(
                conditions.if_match is not None,
                conditions.if_none_match is not None,
                conditions.if_modified_since is not None,
                conditions.if_unmodified_since is not None,
            ),
            tail,
            # A browser may mean a folder.
            None if wants_page(self.process, request) else _missing(),
        )

    def _template_of_put(self, operation: Put, request: Request) -> object:
        limit = self.process.limits.value_bytes
        if (
            self.is_near
            or operation.conditions is not UNCONDITIONAL
            or operation.empty
            or operation.digests
            or request.length is None
        ):
            return None
        lines = encode_metadata(operation.metadata)
        if len(lines) > MOST_LINES:
            return None
        created = self._reply_to_put(request, operation, created=True)
        replaced = self._reply_to_put(request, operation, created=False)
        most_bytes = MAX_BODY_BYTES if limit is None else min(limit, MAX_BODY_BYTES)
        return self.native.put_template(
            word_of_method(request.method),
            *(request.keep_alive, most_bytes, lines, *created, *replaced),
            CONTINUE if request.expects_continue else b"",
        )

    def _reply_to_put(
        self, request: Request, operation: Put, *, created: bool
    ) -> tuple[int, tuple[bytes, bytes, bytes]]:
        """
        The status of a reply; and what stands before its date, between date and id,
        and behind the id.
        """
        info = ValueInfo(Key(b""), 0, _SOME_ID, 0.0, operation.metadata)
        status, fields = published_reply(
            Published(info, created=created), self.process.store.durability
        )
        line, rest = reply_parts(
            status,
            with_length(status, fields, 0),
            close=not request.keep_alive,
            minor=request.minor,
        )
        before, _, behind = rest.partition(_SOME_ID.encode())
        return status, (line, before, behind)

    def ending_of(self, key: Key) -> bytes:
        """
        What of a key the type of a value without one depends on.
        """
        if self.process.guess_type is None:
            return b""
        from kvd.http.guessing import ending_of

        return ending_of(key)

    def make_parts(
        self, lines: bytes, ending: bytes, cache_status: str | None = None
    ) -> object:
        """
        What the head of a reply with a value looks like.

        Args:
            lines: The value's metadata, as its attribute has it.
            ending: See `ending_of`.
            cache_status: See `kvd.interfaces.ICachedValue`; None: it comes from no
                cache.

        Returns:
            For the statuses 200, 206 and 304, what stands between the date, the id, the
            date of publication and the numbers that a reply has; None if kvd does not
            write such an attribute.
        """
        try:
            metadata = decode_metadata(lines)
        except MalformedAttribute:
            return None
        info = ValueInfo(Key(ending), _SIZE, _SOME_ID, 0.0, metadata)
        guess = self.process.guess_type
        part = part_fields(info, _FIRST, _LENGTH, guess)
        last = _FIRST + _LENGTH - 1
        cached = [] if cache_status is None else [cache_field(cache_status)]
        whole, part = [*fields_of(info, guess), *cached], [*part, *cached]
        return (
            _pieces(200, with_length(200, whole, _SIZE), _SIZE),
            _pieces(206, with_length(206, part, _LENGTH), _FIRST, last, _SIZE, _LENGTH),
            _pieces(304, [*unchanged_fields(info), *cached]),
        )


def _pieces(status: int, fields: Fields, *numbers: int) -> tuple[bytes, ...]:
    """
    A head, cut at its date, the id, the date of publication, and some numbers.
    """
    line, rest = reply_parts(status, fields, close=False, minor=1)
    rest = rest.removesuffix(b"\r\n\r\n")
    # Metadata may contain the same. These come before it,
    before_id, _, rest = rest.partition(_SOME_ID.encode())
    before_date, _, rest = rest.partition(http_date(0.0).encode())
    # and these behind it.
    behind: list[bytes] = []
    for number in reversed(numbers):
        rest, _, after = rest.rpartition(b"%d" % number)
        behind.insert(0, after)
    return line, before_id, before_date, rest, *behind


# A client that sends another shape of head each time has a template made each time, so
# what is the same in many is kept.


@cache
def _missing() -> tuple[bytes, bytes, bytes, bytes]:
    """
    The reply where there is no value: its head up to the date and from there up to the
    length, and its body up to the key and from there on.
    """
    refusal = absence(_SOME_KEY)
    line, fields = _up_to_length(refusal.status, refusal_fields(refusal))
    before, _, behind = problem(refusal.status, refusal.sentence).partition(_SOME_KEY)
    return line, fields, before, behind


@cache
def _outcomes(*given: bool) -> tuple[int, ...]:
    """
    What a GET with some conditions is answered, whatever they name: a status for each
    set of them that holds; 0 for a refusal, which is left to Python.

    Args:
        given: Whether there is an If-Match, an If-None-Match, an If-Modified-Since, an
            If-Unmodified-Since. The index of a status has a bit for each that holds
            (the value has one of the tags, or is not newer), the highest for the first.
    """
    return tuple(
        _outcome(given, holding) for holding in product((False, True), repeat=4)
    )


def _outcome(given: tuple[bool, ...], holding: tuple[bool, ...]) -> int:
    tags = [EntityTags(any=holds) for holds in holding[:2]]
    dates = [0 if holds else -1 for holds in holding[2:]]
    conditions = Conditions(
        tags[0] if given[0] else None,
        tags[1] if given[1] else None,
        dates[0] if given[2] else None,
        dates[1] if given[3] else None,
    )
    info = ValueInfo(Key(b""), 0, _SOME_ID, 0.0)
    try:
        return 304 if conditions.is_unchanged(info) else 200
    except PreconditionFailed:
        return 0


def _up_to_length(status: int, fields: Fields) -> tuple[bytes, bytes]:
    """
    A head up to its date, and from there up to the length of the body.
    """
    line, rest = reply_parts(
        status, with_length(status, fields, 0), close=False, minor=1
    )
    return line, rest.removesuffix(b"0\r\n\r\n")


def fast_path_to(process: ProcessContext) -> FastPath | None:
    """
    Make the fast path to the store of a process; None if there cannot be one.

    Args:
        process: What its connections share. The fast path serves only hosts that are
            allowed at every address.
    """
    near = ICachingStore(process.store, None)
    store = process.store if near is None else near.cache
    if (
        native is None
        or not isinstance(store, FileStore)
        or not process.dialects.has_plain
    ):
        return None
    state = store.fast_path_state
    if not state.keeps_attributes:
        return None
    templates = _Templates(native, process, near is not None)
    made = native.FastPath(
        root=state.root,
        lock=state.lock.descriptor,
        exchanges=state.exchanges,
        finds_unwritten=reports_unwritten_parts(state.root),
        most_recent=_most_recent(state.root),
        kept=state.kept,
        has_epochs=state.has_epochs,
        usage=state.usage,
        min_free=state.min_free,
        keeping=KEEPING,
        dates=(AHEAD_SECONDS, LATEST),
        metadata_fields=FIELDS,
        message=(MAX_BYTES, MAX_DESCRIPTORS),
        sync_threads=-1 if state.syncs is None else state.sync_threads,
        folder_mode=state.folder_mode,
        flags=(READ_FLAGS, FILE_FLAGS, NAMELESS_FLAGS),
        head_bytes=process.limits.head_bytes,
        target_bytes=process.limits.target_bytes,
        plain=PLAIN,
        sending=(
            FILE_BYTES,
            LOW_ROUND_TRIP_MICROSECONDS,
            LOW_ROUND_TRIP_SEND_BUFFER,
            LARGE_FILE_BYTES,
        ),
        report=Report,
        remainder=Remainder,
        partial=partial(PartialUpload, state.adopt),
        counts=process.row.counts,
        make_template=templates.make_template,
        make_parts=templates.make_parts,
        logs_in=templates.logs_in_at_once,
        prune=state.prune,
        clock=process.clock.seconds,
        has_hits=near is not None,
        guesses=process.guess_type is not None,
    )
    state.uploads.made = made.upload_to
    state.lock.renewed = made.lock_renewed
    state.uploads.say_made()
    fast_path = cast(FastPath, made)
    if process.log is not None or process.recorder is not None:
        bring_reports(fast_path, process.log, process.recorder)
    if near is not None:
        # Not at the top: only where it is needed.
        from kvd.http.hits import FastHits

        near.hits = FastHits(made, templates.make_parts, templates.ending_of)
    process.pieces.changed = fast_path.send_at_most
    if state.syncs is not None:
        process.commits = Commits(fast_path, state, state.syncs, process)
    return fast_path


def _most_recent(root: int) -> int:
    """
    How many small values are kept in memory, with their files open.
    """
    if renames_removed_files(root):
        return 0
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(MOST_RECENT, descriptors // 8)
