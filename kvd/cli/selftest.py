"""
``kvd selftest``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any, Final, cast

import click
from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from kvd.cli.errors import FAILED, LocalError
from kvd.cli.running import run
from kvd.errors import (
    ConditionUnsupported,
    KeyAbsent,
    KvdError,
    OperatorError,
    PreconditionFailed,
)
from kvd.interfaces import Answer, IStore, IStoreMaker
from kvd.model.conditions import UNCONDITIONAL, Conditions, EntityTags
from kvd.model.keys import Key
from kvd.model.values import ValueInfo
from kvd.options.locations import read_store
from kvd.plugins import IStoreDeclaration, load
from kvd.store.waiting import resolved

LARGE_BYTES: Final = 1024 * 1024
CHUNK_BYTES: Final = 64 * 1024

_ABSENT: Final = Conditions(if_none_match=EntityTags(any=True))


@dataclass(frozen=True, slots=True)
class Finding:
    """
    What a test has found.
    """

    fine: bool
    said: str


class Stopped(Exception):
    """
    A test was ended before it has found anything.
    """


class SelfTest:
    """
    Tries a store as its clients use it.
    """

    def __init__(
        self,
        store: IStore,
        rounds: int,
        writers: int,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """
        Args:
            store: The store. Keys are made in it, and removed again.
            rounds: How often each race is run.
            writers: How many writers race.
            is_stopped: Whether no more values shall be written; then a test raises
                `Stopped`.
        """
        self._store = store
        self._rounds = rounds
        self._writers = writers
        self._is_stopped = is_stopped
        self._prefix = b"kvd-selftest-%s/" % os.urandom(8).hex().encode()

    def tests(self) -> dict[str, Callable[[], Coroutine[Any, Any, Finding]]]:
        """
        All tests, by what they are about.
        """
        known, unknown = True, False
        return {
            "values come back": self._values_come_back,
            "listing in order": self._listing_in_order,
            "If-None-Match on PUT": lambda: self._create(known),
            "If-Match on PUT": lambda: self._swap(known),
            "If-None-Match on PUT of unknown length": lambda: self._create(unknown),
            "If-Match on PUT of unknown length": lambda: self._swap(unknown),
            "If-Match on DELETE": self._remove_what_was_meant,
        }

    async def clean(self) -> None:
        """
        Remove all keys that were made.
        """
        for info in await self._list(None):
            await self._remove(info.key)

    # -- single clients -------------------------------------------------------

    async def _values_come_back(self) -> Finding:
        bodies = [b"", b"small", os.urandom(LARGE_BYTES)]
        for length_is_known in (True, False):
            for body in bodies:
                key = self._key("one")
                await self._put(key, body, UNCONDITIONAL, length_is_known)
                if body != await self._get(key):
                    return Finding(False, f"not the same, {len(body)} bytes")
                await self._remove(key)
                if await self._find(key) is not None:
                    return Finding(False, "a removed value is there")
        return Finding(True, "fine")

    async def _listing_in_order(self) -> Finding:
        names = ["a", "b-x", "b.x", "b/c", "b/d/e", "b0", "\u00fc"]
        keys = [self._key(name) for name in names]
        for key in keys:
            await self._put(key, b"")
        listed = [info.key for info in await self._list(len(keys))]
        await self.clean()
        return Finding(listed == keys, "fine" if listed == keys else "not in order")

    async def _remove_what_was_meant(self) -> Finding:
        key = self._key("removed")
        old = await self._put(key, b"old")
        new = await self._put(key, b"new")
        try:
            try:
                await resolved(self._store.remove(key, _holds(old)))
            except PreconditionFailed:
                pass
            if await self._find(key) is None:
                return Finding(False, "NOT KEPT: another value was removed")
            # A store that does not keep it may say so only where it would have to.
            await resolved(self._store.remove(key, _holds(new)))
        except ConditionUnsupported as error:
            return Finding(True, f"refused (501): {error.sentence}")
        return Finding(True, "kept")

    # -- races ----------------------------------------------------------------

    async def _create(self, length_is_known: bool) -> Finding:
        async def begin(key: Key) -> Conditions:
            return _ABSENT

        return await self._race(begin, length_is_known)

    async def _swap(self, length_is_known: bool) -> Finding:
        async def begin(key: Key) -> Conditions:
            return _holds(await self._put(key, b"old"))

        return await self._race(begin, length_is_known)

    async def _race(
        self,
        begin: Callable[[Key], Coroutine[Any, Any, Conditions]],
        length_is_known: bool,
    ) -> Finding:
        """
        Let writers race for a key, of which one has to win.
        """
        # So long that it is sent ahead, or in parts, where a store does that.
        bodies = [os.urandom(LARGE_BYTES // 2) for _ in range(self._writers)]
        for _ in range(self._rounds):
            key = self._key(f"race-{os.urandom(4).hex()}")
            conditions = await begin(key)
            outcomes = await _all(
                [self._put(key, body, conditions, length_is_known) for body in bodies]
            )
            won = [
                body
                for body, outcome in zip(bodies, outcomes, strict=True)
                if not isinstance(outcome, BaseException)
            ]
            for outcome in outcomes:
                if isinstance(outcome, ConditionUnsupported):
                    return Finding(True, f"refused (501): {outcome.sentence}")
            if len(won) != 1:
                return Finding(
                    False, f"NOT KEPT: {len(won)} of {self._writers} writers succeeded"
                )
            if await self._get(key) != won[0]:
                return Finding(False, "NOT KEPT: the value is not that of the winner")
        return Finding(True, "kept")

    # -- the store ------------------------------------------------------------

    def _key(self, name: str) -> Key:
        return Key(self._prefix + name.encode())

    async def _put(
        self,
        key: Key,
        body: bytes,
        conditions: Conditions = UNCONDITIONAL,
        length_is_known: bool = True,
    ) -> ValueInfo:
        if self._is_stopped():
            raise Stopped
        length = len(body) if length_is_known else None
        upload = await resolved(self._store.begin(key, length, conditions=conditions))
        try:
            for at in range(0, len(body), CHUNK_BYTES):
                await resolved(upload.write(body[at : at + CHUNK_BYTES]))
        except BaseException:
            upload.discard()
            raise
        return (await resolved(upload.commit(conditions))).info

    async def _get(self, key: Key) -> bytes:
        value = await resolved(self._store.open(key))
        body = b""
        while len(body) < value.info.size:
            piece: Answer[bytes] = value.read(len(body), CHUNK_BYTES)
            body += await piece if isinstance(piece, Deferred) else piece
        value.close()
        return body

    async def _find(self, key: Key) -> ValueInfo | None:
        try:
            return await resolved(self._store.stat(key))
        except KeyAbsent:
            return None

    async def _remove(self, key: Key) -> None:
        await resolved(self._store.remove(key, UNCONDITIONAL))

    async def _list(self, limit: int | None) -> list[ValueInfo]:
        listing = self._store.list(self._prefix, b"", limit)
        found: list[ValueInfo] = []
        while taken := await resolved(listing.next_slice()):
            found += taken
        listing.close()
        return found


def _holds(info: ValueInfo) -> Conditions:
    return Conditions(if_match=EntityTags(frozenset({info.etag})))


async def _all(
    works: Sequence[Coroutine[Any, Any, ValueInfo]],
) -> list[ValueInfo | BaseException]:
    """
    Do several things at once.

    Raises:
        KvdError: One failed otherwise than by its condition.
    """
    begun = [Deferred.fromCoroutine(work) for work in works]
    outcomes: list[ValueInfo | BaseException] = []
    for succeeded, result in await DeferredList(begun, consumeErrors=True):
        if succeeded:
            outcomes.append(result)
            continue
        failure = cast(Failure, result)
        if not failure.check(PreconditionFailed, ConditionUnsupported):
            failure.raiseException()
        assert failure.value is not None
        outcomes.append(failure.value)
    return outcomes


@click.command()
@click.option(
    "--store",
    metavar="LOCATION",
    required=True,
    help="As the daemon's --store; the store may be in use.",
)
@click.option(
    "--rounds",
    type=click.IntRange(1, 1000),
    default=3,
    show_default=True,
    help="How often each race is run.",
)
@click.option(
    "--writers",
    type=click.IntRange(2, 100),
    default=8,
    show_default=True,
    help="How many writers race.",
)
def selftest(store: str, rounds: int, writers: int) -> None:
    """
    Try a store: whether values come back, and whether conditions hold when several
    writers race for a key. A condition that the store refuses (501) is no failure. All
    keys begin with "kvd-selftest-", and are removed again.
    """

    stopped = Event()

    async def test() -> int:
        opened: IStore | None = None
        status = 0
        try:
            location = read_store(store)
            maker: IStoreMaker = load(IStoreDeclaration, location.scheme)
            maker.prepare(location.path)
            opened = maker.open_store(location.path, "process")
            trial = SelfTest(opened, rounds, writers, stopped.is_set)
            try:
                for name, find in trial.tests().items():
                    finding = await find()
                    click.echo(f"{name}: {finding.said}")
                    status = status if finding.fine else FAILED
            except Stopped:
                pass
            finally:
                await trial.clean()
        except OperatorError as error:
            raise LocalError(error.sentence) from error
        except KvdError as error:
            raise LocalError(f"the store {store} fails: {error.sentence}") from error
        finally:
            if opened is not None:
                await resolved(opened.close())
        return status

    run(test, stopped.set)
