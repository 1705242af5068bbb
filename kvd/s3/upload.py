"""
What all kinds of uploads to an engine have in common.

- A small value is kept in memory and sent at its commit (`kvd.s3.buffered_upload`).
- A large one of known length is sent as it comes, in one request
  (`kvd.s3.streamed_upload`).
- One of unknown length is sent in parts (`kvd.s3.multipart_upload`).
"""

from __future__ import annotations

import hashlib
import time
from typing import Final

from twisted.internet.defer import Deferred

from kvd.client.sources import ISource
from kvd.errors import KeyAbsent, StoreBusy, StoreFault
from kvd.model.conditions import UNCONDITIONAL, Conditions
from kvd.model.keys import Key, escape
from kvd.model.values import Metadata, Published, ValueInfo
from kvd.s3.engine import Engine
from kvd.s3.guards import CHANGED, Change, Guards
from kvd.s3.record import Stored, fields_of
from kvd.s3.requests import Ask
from kvd.s3.value import stat_object
from kvd.store.attribute import new_etag
from kvd.store.waiting import Underway

TRIES: Final = 3
"""
How often a change is tried that another client came before, although its conditions
still hold.
"""


class UploadContext:
    """
    What all uploads of a store share.
    """

    def __init__(self, engine: Engine, guards: Guards, underway: Underway) -> None:
        self.engine = engine
        self.guards = guards
        self.underway = underway


class ObjectUpload:
    """
    What all kinds of uploads do.
    """

    def __init__(
        self,
        context: UploadContext,
        key: Key,
        name: str,
        length: int | None,
        metadata: Metadata,
    ) -> None:
        self._context = context
        self._engine = context.engine
        self._key = key
        self._name = name
        self._length = length
        self._metadata = metadata
        self._etag = new_etag()
        self._written = 0
        self._ended = False

    def fileno(self) -> int | None:
        return None

    def commit(self, conditions: Conditions) -> Deferred[Published]:
        self._ended = True
        return self._context.underway.shield(self._commit(conditions))

    async def _commit(self, conditions: Conditions) -> Published:
        raise NotImplementedError

    def _check_length(self) -> None:
        if self._length not in (None, self._written):
            raise StoreFault(f"{self._written} bytes came, not {self._length}.")

    async def _current(self) -> Stored | None:
        """
        The value that the key has now.
        """
        try:
            return await stat_object(self._engine, self._key, self._name)
        except KeyAbsent:
            return None

    async def _publish_whole(
        self, body: bytes | ISource, conditions: Conditions
    ) -> Published:
        """
        Publish bytes that are all there, in one request.
        """
        sha256 = hashlib.sha256(body).hexdigest() if isinstance(body, bytes) else None
        for _ in range(TRIES):
            current = await self._current()
            guard = await self._guard(conditions, current)
            if not isinstance(body, bytes):
                body.rewind()
            changed = changed_after(current)
            fields = fields_of(
                self._etag, self._metadata, changed=changed, sha256=sha256
            )
            reply = await self._engine.ask(
                Ask("PUT", self._name, "", fields | guard, body, expected_with(guard))
            )
            self._engine.dismiss(reply)
            if reply.status in CHANGED and not await self._is_published():
                continue
            info = ValueInfo(
                self._key, self._written, self._etag, changed, self._metadata
            )
            return Published(info, created=current is None)
        raise overtaken(self._key)

    async def _guard(
        self,
        conditions: Conditions,
        current: Stored | None,
    ) -> dict[str, str]:
        """
        The field by which the engine publishes only over what was found.

        Raises:
            PreconditionFailed: A condition does not hold.
            ConditionUnsupported: The engine does not keep such a condition.
        """
        if conditions == UNCONDITIONAL:
            return {}
        conditions.check_change(None if current is None else current.info)
        return await self._context.guards.field(
            Change.PUT, None if current is None else current.engine_tag
        )

    async def _found(self, current: Stored | None) -> Published:
        """
        Describe what was published, whose time only the engine knows.

        Args:
            current: The value that the key had before.
        """
        info = ValueInfo(
            self._key, self._written, self._etag, time.time(), self._metadata
        )
        stored = await self._current()
        if stored is not None and stored.info.etag == self._etag:
            info = stored.info
        return Published(info, created=current is None)

    async def _is_published(self) -> bool:
        """
        Whether the value is this one: the reply to an earlier attempt may have been
        lost.
        """
        current = await self._current()
        return current is not None and current.info.etag == self._etag


def changed_after(current: Stored | None) -> float:
    """
    The time of a change that is made now: never before the last one.
    """
    now = time.time()
    if current is not None:
        now = max(now, current.info.changed)
    return round(now, 6)


def expected_with(guard: dict[str, str]) -> frozenset[int]:
    """
    The statuses that are answers to a change with such a guard.
    """
    return CHANGED if guard else frozenset()


def too_late(key: Key) -> StoreBusy:
    """
    The conditions of the commit are not those that the upload began with.
    """
    return StoreBusy(f"/{escape(key)} changed while a value for it arrived: try again.")


def overtaken(key: Key) -> StoreBusy:
    """
    Another client was faster.
    """
    return StoreBusy(
        f"Other clients changed /{escape(key)} at the same time, each time that it was"
        " tried: try again."
    )
