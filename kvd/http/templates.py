"""
Head templates: what the fast path (`kvd.http.fast_path`) looks up.

Each says once what a request would get through Python: what a head means, whatever its
key; what the head of the reply looks like; and which value is in memory under a key.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Final, cast

from kvd.dispatch.histogram import BUCKET_OF_EXPONENT, LEAST_EXPONENT
from kvd.dispatch.scoreboard import WORDS_OF_REQUESTS
from kvd.errors import KvdError
from kvd.http.context import ListenerContext
from kvd.http.fast_path import MAX_BODY_BYTES, FastPath, Report, native
from kvd.http.reply_fields import fields_of, is_ahead, published_reply
from kvd.http.wire.replies import reply_parts, with_length
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.model.operations import Get, Put
from kvd.model.requests import Request
from kvd.model.values import Published, ValueInfo
from kvd.store.attribute import encode_metadata
from kvd.store.file import FileStore
from kvd.store.locks import offset_of

# An id of the length that all have, to be replaced.
_SOME_ID: Final = "0" * 32


@dataclass(frozen=True, slots=True)
class _Templates:
    """
    Makes what the compiled module looks up: the template of a head, the reply of a
    value. It asks once for each.
    """

    native: ModuleType
    store: FileStore
    listener: ListenerContext

    def make_template(self, head: bytes) -> object:
        """
        What a head means, whatever its key, and whatever the values of the fields that
        vary (``kvd/native/shape.c``); None if the fast path does not serve such
        requests. It asks only about GET and PUT of a key.
        """
        process = self.listener.process
        try:
            request = process.heads.parse(head)
            dialects = process.dialects
            operation = dialects.understand(dialects.of(request.target), request)
        except KvdError:
            return None
        if request.chunked or request.expects_continue:
            return None
        if not self.listener.guard.knows(request.host):
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
        ):
            return None
        _, tail = reply_parts(
            200, [], close=not request.keep_alive, minor=request.minor
        )
        return self.native.get_template(request.keep_alive, tail)

    def _template_of_put(self, operation: Put, request: Request) -> object:
        limit = self.listener.process.limits.value_bytes
        if (
            operation.conditions is not UNCONDITIONAL
            or operation.empty
            or operation.digests
            or request.length is None
            or self.store.durability != "process"
        ):
            return None
        lines = encode_metadata(operation.metadata)
        created = self._reply_to_put(request, created=True)
        replaced = self._reply_to_put(request, created=False)
        most_bytes = MAX_BODY_BYTES if limit is None else min(limit, MAX_BODY_BYTES)
        return self.native.put_template(
            request.keep_alive, most_bytes, lines, *created, *replaced
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
        known = self.store.fast_path_state.recent.known(key)
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


def fast_path_to(listener: ListenerContext) -> FastPath | None:
    """
    Make the fast path to the store of a process; None if there cannot be one.

    Args:
        listener: Where requests come from. The fast path serves only hosts that are
            allowed at every address.
    """
    process = listener.process
    store = process.store
    if (
        native is None
        or not isinstance(store, FileStore)
        or not process.dialects.is_plain
    ):
        return None
    templates = _Templates(native, store, listener)
    state = store.fast_path_state
    made = native.FastPath(
        state.root,
        state.lock.descriptor,
        state.exchanges,
        state.kept,
        state.has_epochs,
        state.file_mode,
        process.limits.head_bytes,
        process.limits.target_bytes,
        Report,
        process.row.words,
        WORDS_OF_REQUESTS,
        BUCKET_OF_EXPONENT,
        LEAST_EXPONENT,
        templates.make_template,
        templates.value_of,
        offset_of,
        process.clock.seconds,
    )
    state.recent.forgotten = made.forget
    state.uploads.made = made.upload_to
    state.lock.renewed = made.lock_renewed
    made.upload_to(state.uploads.descriptor)
    return cast(FastPath, made)
