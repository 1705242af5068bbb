"""
Makes one store a copy of another.

A value at the destination is a copy of the source's if it has the same size and was
published later. Digests decide instead if the operator asks for that, which reads every
value on both sides. So a run that was interrupted goes on where it ended, and no record
is kept between runs.

Other programs may use both stores meanwhile. What they publish at the destination
stays: each value is written on the condition that the destination still has what the
listing said.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from kvd.errors import (
    ConditionUnsupported,
    KeyAbsent,
    KvdError,
    PreconditionFailed,
)
from kvd.interfaces import IConditionalStore, IStore
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.model.values import Published, ValueInfo
from kvd.moving.comparing import Pair, Pairs
from kvd.moving.copying import ABSENT, copy, digest_in, exactly, verify
from kvd.store.waiting import resolved


@dataclass(frozen=True, slots=True)
class Choices:
    """
    What the operator chose.
    """

    prefix: bytes = b""
    """Only keys below it; empty, or ending with a slash."""
    deletes: bool = False
    """Whether values that the source does not have are removed."""
    overwrites: bool = False
    """Whether the source's value replaces a newer one, or its absence removes it."""
    compares_digests: bool = False
    """Whether to read what seems to be a copy, on both sides."""
    verifies: bool = True
    """Whether to read back what was written."""
    changes_nothing: bool = False
    """Whether to count only what would be done."""
    at_once: int = 4
    """How many values are copied at once."""


@dataclass(slots=True)
class Counts:
    """
    How many keys met which end.
    """

    copied: int = 0
    bytes: int = 0
    """Of the values that were copied."""
    equal: int = 0
    """Were copies before."""
    newer: int = 0
    """Are newer at the destination, or changed there meanwhile, and were left alone."""
    removed: int = 0
    failed: int = 0


@dataclass(slots=True)
class Mirror:
    """
    Makes one store a copy of another.
    """

    source: IStore
    destination: IStore
    choices: Choices
    clock: IReactorTime
    failed: Callable[[Key, KvdError], None]
    """Called with each key that fails; the others go on."""
    counts: Counts = field(default_factory=Counts)
    _bug: Failure | None = None
    _is_over: bool = False

    async def run(self) -> Counts:
        """
        Do what is needed for all keys. If this is cancelled or closed, so are the
        copies underway.

        Returns:
            The counts, which grow meanwhile.

        Raises:
            ConditionUnsupported: The destination could not be kept from losing what
                others write there, and the operator wants that.
            StoreFault: A listing cannot continue.
        """
        await self._expect_conditions()
        slots = DeferredSemaphore(self.choices.at_once)
        underway: set[Deferred[None]] = set()
        try:
            pairs = Pairs(self.source, self.destination, self.choices.prefix)
            while (pair := await pairs.next()) is not None:
                await slots.acquire()
                settling = Deferred.fromCoroutine(self._settle(pair))
                underway.add(settling)
                settling.addBoth(self._settled, settling, slots, underway)
            for _ in range(self.choices.at_once):
                await slots.acquire()
        except BaseException:
            # A slot that became free now would resume this coroutine.
            self._is_over = True
            for settling in list(underway):
                settling.cancel()
            raise
        if self._bug is not None:
            self._bug.raiseException()
        return self.counts

    async def _expect_conditions(self) -> None:
        if self.choices.overwrites or self.choices.changes_nothing:
            return
        store = self.destination
        if IConditionalStore.providedBy(store) and not await resolved(
            IConditionalStore(store).keeps_conditions()
        ):
            raise ConditionUnsupported(
                "The destination keeps no conditions, so what others write there"
                " meanwhile could be replaced: see that nobody does, and give"
                " --overwrite."
            )

    def _settled(
        self,
        result: Failure | None,
        settling: Deferred[None],
        slots: DeferredSemaphore,
        underway: set[Deferred[None]],
    ) -> None:
        underway.discard(settling)
        if isinstance(result, Failure) and not result.check(CancelledError):
            self._bug = self._bug or result
        if not self._is_over:
            slots.release()

    async def _settle(self, pair: Pair) -> None:
        """
        Do what one key needs.
        """
        try:
            if pair.source is None:
                assert pair.destination is not None, "one of them has a value"
                await self._remove(pair.destination)
            else:
                await self._bring(pair.source, pair.destination)
        except KvdError as error:
            self.counts.failed += 1
            self.failed(pair.key, error)

    async def _remove(self, there: ValueInfo) -> None:
        if not self.choices.deletes:
            return
        if not self.choices.changes_nothing:
            conditions = (
                UNCONDITIONAL if self.choices.overwrites else exactly(there.etag)
            )
            try:
                await resolved(self.destination.remove(there.key, conditions))
            except KeyAbsent:
                return  # Removed by another program.
            except PreconditionFailed:
                self.counts.newer += 1
                return
        self.counts.removed += 1

    async def _bring(self, here: ValueInfo, there: ValueInfo | None) -> None:
        if there is not None and there.changed > here.changed:
            if there.size == here.size and await self._is_copy(here.key):
                self.counts.equal += 1
                return
            if not self.choices.overwrites:
                self.counts.newer += 1
                return
        size = here.size
        if not self.choices.changes_nothing:
            try:
                size = await self._copy(here.key, there)
            except KeyAbsent:
                return  # Removed by another program.
            except PreconditionFailed:
                self.counts.newer += 1
                return
        self.counts.copied += 1
        self.counts.bytes += size

    async def _is_copy(self, key: Key) -> bool:
        if not self.choices.compares_digests:
            return True
        _, here = await digest_in(self.source, key, self.clock)
        _, there = await digest_in(self.destination, key, self.clock)
        return here == there

    async def _copy(self, key: Key, there: ValueInfo | None) -> int:
        if self.choices.overwrites:
            conditions = UNCONDITIONAL
        else:
            conditions = ABSENT if there is None else exactly(there.etag)
        published, digest = await copy(
            self.source, self.destination, key, conditions, self.clock
        )
        if there is None:
            await self._follow_removal(key, published)
        if self.choices.verifies:
            await verify(self.destination, published, digest, self.clock)
        return published.info.size

    async def _follow_removal(self, key: Key, published: Published) -> None:
        """
        Remove a copy whose original was removed while it was copied. Otherwise it would
        be found after a removal that was acknowledged (`kvd.moving.fallback`).

        Raises:
            KeyAbsent: That was so.
        """
        try:
            await resolved(self.source.stat(key))
        except KeyAbsent:
            with suppress(KeyAbsent, PreconditionFailed):  # By another program.
                await resolved(
                    self.destination.remove(key, exactly(published.info.etag))
                )
            raise
