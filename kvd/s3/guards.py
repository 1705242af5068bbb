"""
Conditions that the engine decides: which ones it keeps, and how they are written.

Not every engine keeps what it is asked for: OpenStack Swift lets several writers create
one object, and loses one that comes while another is removed on a condition; Ceph takes
an entity tag only without its quotes, and does not look at it before it removes. So an
engine is tried before it is believed, by writers that race.

At the end of an upload in parts, Ceph ignores conditions, and SeaweedFS lets several
writers win. So kvd never asks for that.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Final

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.logger import Logger
from twisted.python.failure import Failure

from kvd.errors import ConditionUnsupported, KvdError
from kvd.s3.engine import Engine
from kvd.s3.requests import Ask, Reply
from kvd.s3.together import together

CHANGED: Final = frozenset({404, 409, 412})
"""
The engine found another object than the expected one, or another client that changes
it.
"""

_ABSENT: Final = 404
_REFUSED: Final = CHANGED | {400, 501}

RACERS: Final = 4
ROUNDS: Final = 2
"""
How many writers race, and how often. SeaweedFS takes tenths of a second for each that
loses, and half a second or more where it has its metadata in etcd.
"""

REMOVAL_SECONDS: Final = 1.0
"""
How long a trial that is given up waits until its object is removed. A process that ends
has at least two seconds after its last connection.
"""

CAREFUL_ROUNDS: Final = 8
"""
How often writers race to create an object where the engine compares no entity tags: in
some rounds only one wins in Swift too.
"""


class Change(Enum):
    """
    What may have a condition.
    """

    PUT = "PUT"
    REMOVE = "DELETE"


@dataclass(frozen=True, slots=True)
class Kept:
    """
    What an engine keeps.
    """

    create: frozenset[Change]
    """Changes that can be made only if there is no object."""
    quoted: frozenset[Change]
    """Changes that can be made only if the object has an entity tag."""
    bare: frozenset[Change]
    """The same, with the tag written without quotes."""


class Guards:
    """
    Knows what the engine keeps. It is tried when it is first asked for.
    """

    _log = Logger()

    def __init__(self, try_engine: Callable[[], Deferred[Kept]]) -> None:
        self._try = try_engine
        self._kept: Kept | None = None
        self._trial: Deferred[Kept] | None = None
        self._trying: list[Deferred[Kept]] = []

    async def kept(self) -> Kept:
        """
        What the engine keeps.

        Raises:
            KvdError: It could not be tried.
        """
        if self._kept is not None:
            return self._kept
        waiting: Deferred[Kept] = Deferred()
        self._trying.append(waiting)
        if len(self._trying) == 1:
            self._trial = self._try()
            self._trial.addBoth(self._tried)
        return await waiting

    def _tried(self, result: Kept | Failure) -> None:
        if isinstance(result, Kept):
            self._kept = result
        trying, self._trying = self._trying, []
        for waiting in trying:
            if not waiting.called:
                waiting.callback(result)

    def start(self) -> None:
        """
        Try the engine before anybody asks. If that fails, it is tried again when
        somebody does.
        """
        Deferred.fromCoroutine(self.kept()).addErrback(self._not_tried)

    def _not_tried(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        self._log.warn(
            "which conditions the engine keeps is not known yet: {error}",
            error=failure.value,
        )

    def stop(self) -> None:
        """
        Nobody is going to ask any more: give up a trial that is underway.
        """
        if self._trial is not None:
            self._trial.cancel()

    async def field(self, change: Change, tag: str | None) -> dict[str, str]:
        """
        The field by which the engine makes a change only over what was found.

        Args:
            change: What is asked for.
            tag: The engine's entity tag of what was found; None: there was nothing.

        Raises:
            ConditionUnsupported: The engine does not keep that.
        """
        kept = await self.kept()
        if tag is None and change in kept.create:
            return {"if-none-match": "*"}
        if tag is not None and change in kept.quoted:
            return {"if-match": tag}
        if tag is not None and change in kept.bare:
            return {"if-match": tag.strip('"')}
        field = "If-None-Match" if tag is None else "If-Match"
        raise ConditionUnsupported(
            f"The engine behind this store does not keep {field} for a"
            f" {change.value}: of several clients, more than one could succeed."
        )


async def try_conditions(engine: Engine, prefix: str) -> Kept:
    """
    Find out what an engine keeps, by changing an object of its own.

    Args:
        engine: The engine.
        prefix: Begins the names of objects.
    """
    # No key has such a name.
    name = f"{prefix}~try-{os.urandom(8).hex()}"
    return await _Trial(engine, name).run()


class _Trial:
    """
    One trial of an engine.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._name = name
        self._count = 0

    async def run(self) -> Kept:
        """
        Try everything.
        """
        try:
            kept = await self._find()
        except CancelledError:
            removal = Deferred.fromCoroutine(self._remove_object())
            with suppress(KvdError, TimeoutError):
                await removal.addTimeout(REMOVAL_SECONDS, self._engine.clock)
            raise
        # Not where the program ends, and nothing is waited for any more.
        except Exception:
            with suppress(KvdError):
                await self._remove_object()
            raise
        await self._remove_object()
        return kept

    async def _find(self) -> Kept:
        create, quoted, bare = set[Change](), set[Change](), set[Change]()
        for form, found in (('"{}"', quoted), ("{}", bare)):
            if await self._swaps(form):
                found.add(Change.PUT)
        rounds = ROUNDS if quoted or bare else CAREFUL_ROUNDS
        if await self._creates(rounds):
            create.add(Change.PUT)
        for form, found in (('"{}"', quoted), ("{}", bare)):
            # Swift compares before it removes, but not in one step.
            if found and await self._removes(form):
                found.add(Change.REMOVE)
        return Kept(frozenset(create), frozenset(quoted), frozenset(bare))

    async def _remove_object(self) -> None:
        await self._ask(Ask("DELETE", self._name))

    async def _ask(self, ask: Ask) -> Reply:
        reply = await self._engine.ask(ask)
        self._engine.dismiss(reply)
        return reply

    async def _put(self, fields: dict[str, str]) -> tuple[bytes, bool]:
        """
        Store a value.

        Returns:
            The value, and whether the engine says that it has stored it.
        """
        self._count += 1
        body = b"%d" % self._count
        reply = await self._ask(
            Ask("PUT", self._name, fields=fields, body=body, expected=_REFUSED)
        )
        return body, reply.status < 300

    async def _value(self) -> bytes:
        reply = await self._engine.ask(
            Ask("GET", self._name, expected=frozenset({_ABSENT}))
        )
        body = await self._engine.body(reply)
        return b"" if reply.status == _ABSENT else body

    async def _tag(self) -> str:
        return (await self._ask(Ask("HEAD", self._name))).field("ETag").strip('"')

    async def _wins_once(self, fields: dict[str, str]) -> bool:
        """
        Whether exactly one of several writers wins.
        """
        outcomes = await together(
            [Deferred.fromCoroutine(self._put(fields)) for _ in range(RACERS)]
        )
        stored = await self._value()
        won = [body for body, said in outcomes if said]
        # The winner hears that another one came before, if its first reply was lost.
        return won == [stored] or (not won and stored in dict(outcomes))

    async def _creates(self, rounds: int) -> bool:
        for _ in range(rounds):
            await self._remove_object()
            if not await self._wins_once({"if-none-match": "*"}):
                return False
        return True

    async def _swaps(self, form: str) -> bool:
        for _ in range(ROUNDS):
            await self._put({})
            if not await self._wins_once({"if-match": form.format(await self._tag())}):
                return False
        return True

    async def _removes(self, form: str) -> bool:
        await self._put({})
        old = await self._tag()
        await self._put({})

        def removal(tag: str) -> Ask:
            fields = {"if-match": form.format(tag)}
            return Ask("DELETE", self._name, fields=fields, expected=_REFUSED)

        await self._ask(removal(old))
        there = Ask("HEAD", self._name, expected=frozenset({404}))
        if (await self._ask(there)).status == 404:
            return False
        await self._ask(removal(await self._tag()))
        return (await self._ask(there)).status == 404
