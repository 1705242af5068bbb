"""
Locks of WebDAV (RFC 4918 sections 6 and 7), and the record of them.

All locks below the prefix of the dialect are in one value, ``.kvd-locks``, which no
client of a dialect reads. A lock is added, refreshed or removed by replacing the
record, on the condition that it is the one that was read. So of two locks that exclude
each other only one is granted, whichever workers and machines are asked, also if one is
on a collection and the other on something in it; and a lock outlives the workers.

Whoever changes a value reads the record before, and again before the value is
published. The record is not read in the same step as the change is made: a change that
is being published while a lock is granted can appear just after.

One client cannot take all the locks there can be: a lock is granted only if its holder
then has no more than are still free, in number and in bytes. So the first holder gets a
half at most, the next one a quarter, and whoever comes later finds some. A holder is a
user, or a network from which nobody with a name asks. The record tells, so this holds
between workers too.

A lock ends by its timeout, by the clock of the machine that looks. What has ended is
left out when the record is read, and is gone with its next change.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final
from uuid import uuid4

from kvd.errors import (
    Locked,
    OperationUnsupported,
    PreconditionFailed,
    StoreBusy,
    StoreFault,
    TooManyLocks,
)
from kvd.http.dialects.webdav.documents import DAV, condition, href, property_of
from kvd.http.dialects.webdav.resources import Path
from kvd.model.exchanges import SMALL_BYTES, Values
from kvd.model.keys import escape
from kvd.model.values import ValueInfo

MOST_LOCKS: Final = 1000
"""
Below the prefix of one dialect.
"""

MOST_BYTES: Final = SMALL_BYTES
"""
Of the record of them.
"""

MAX_SECONDS: Final = 3600
"""
How long a lock lasts at most without being refreshed.
"""

_TRIES: Final = 10
"""
How often a change of the record is tried that others come before.
"""


@dataclass(frozen=True, slots=True)
class Lock:
    """
    A lock on a value, or on a collection.
    """

    token: str
    """A URI that nobody guesses; but whoever may read properties sees it."""
    key: str
    """As `Path.key`, each byte as a character."""
    is_collection: bool
    exclusive: bool
    """Otherwise it is shared: it stands beside other shared ones."""
    infinite: bool
    """Whether all below a collection is locked. Otherwise only which members the
    collection has, and its properties, are."""
    owner: str
    """What its client has said of whom it is, as XML; may be empty."""
    user: str | None
    """Who has made it; nobody else can use it."""
    network: str
    """Where it came from, if nobody with a name has made it; else empty."""
    seconds: int
    """How long it was granted for, each time."""
    expires: float
    """In seconds since the epoch."""

    @property
    def path(self) -> Path:
        """
        What is locked.
        """
        return Path(self.key.encode("latin-1"), False, self.is_collection)

    @property
    def holder(self) -> str:
        """
        Among whose locks it is counted, as the subject of a sentence.
        """
        if self.user is None:
            return f"Clients without a name from {self.network} have"
        return f"The user {self.user} has"

    @property
    def href(self) -> str:
        """
        The percent-encoded path of what is locked.
        """
        path = self.path
        slash = "/" if self.is_collection and path.key else ""
        return f"/{escape(path.key)}{slash}"

    def covers(self, key: bytes) -> bool:
        """
        Whether what is at a key is locked by it.
        """
        path = self.path
        return key == path.key or (self.infinite and key.startswith(path.prefix))


def new_token() -> str:
    """
    The token of a new lock.
    """
    # Older clients know no other ones.
    return f"opaquelocktoken:{uuid4()}"


def new_lock(
    path: Path,
    token: str,
    *,
    is_collection: bool,
    exclusive: bool,
    infinite: bool,
    owner: str,
    user: str | None,
    network: str,
    seconds: int,
) -> Lock:
    """
    A lock that begins now.
    """
    return Lock(
        token,
        path.key.decode("latin-1"),
        is_collection,
        exclusive,
        infinite,
        owner,
        user,
        network if user is None else "",
        seconds,
        now() + seconds,
    )


def now() -> float:
    """
    The time, in seconds since the epoch.
    """
    return time.time()


class Locks:
    """
    The locks below the prefix of a dialect, as they were at one moment.
    """

    def __init__(self, locks: Iterable[Lock]) -> None:
        at = now()
        self.all: Final = [lock for lock in locks if lock.expires > at]
        # A listing asks for each of its members, and ``If`` may name many paths.
        self._by_key: Final[dict[bytes, list[Lock]]] = {}
        for lock in self.all:
            self._by_key.setdefault(lock.path.key, []).append(lock)

    def covering(self, key: bytes) -> list[Lock]:
        """
        Those by which what is at a key is locked.
        """
        found = [*self._by_key.get(key, ())]
        while key and self._by_key:
            key = key.rpartition(b"/")[0]
            found += [lock for lock in self._by_key.get(key, ()) if lock.infinite]
        return found

    def within(self, path: Path) -> list[Lock]:
        """
        Those on something itself, and on what is in it.
        """
        return [*self._by_key.get(path.key, ()), *self.below(path)]

    def below(self, path: Path) -> list[Lock]:
        """
        Those on what is in a collection, to any depth.
        """
        return [lock for lock in self.all if lock.path.key.startswith(path.prefix)]

    def without(self, gone: Iterable[Lock]) -> Locks:
        """
        All but some.
        """
        tokens = {lock.token for lock in gone}
        return Locks(lock for lock in self.all if lock.token not in tokens)

    def with_one_more(self, added: Lock, prefix: bytes) -> Locks:
        """
        The same, and one that is added.

        Args:
            added: The new one.
            prefix: That of the dialect.

        Raises:
            StoreBusy: No room is left for its holder, who has no others.
            TooManyLocks: Its holder would have more than would still be free.
        """
        together = Locks([*self.all, added])
        own = [lock for lock in together.all if lock.holder == added.holder]
        own_bytes = len(_encoded(own))
        if len(own) <= MOST_LOCKS - len(together.all) and own_bytes <= MOST_BYTES - len(
            _encoded(together.all)
        ):
            return together
        if len(own) == 1:
            raise _full(prefix)
        raise TooManyLocks(
            f"{added.holder} {len(own) - 1} of the {MOST_LOCKS} locks that there can be"
            f" below /{escape(prefix)}, and with this one there would be {own_bytes} of"
            f" the {MOST_BYTES} bytes for what is known of locks: as much as one has"
            " must be free for others. Release some, or wait until they end."
        )

    def refreshed(self, lock: Lock, seconds: int) -> tuple[Locks, Lock]:
        """
        The same, with one that lasts from now on again; and that one.
        """
        again = replace(lock, seconds=seconds, expires=now() + seconds)
        others = self.without([lock]).all
        return Locks([*others, again]), again


@dataclass(frozen=True, slots=True)
class Held:
    """
    The locks, and which of them the sender of a request has.
    """

    locks: Locks
    tokens: frozenset[str]
    """Those that the sender says to have."""
    user: str | None
    """The sender."""

    def check(self, path: Path, *, deep: bool = False, members: bool = False) -> None:
        """
        Check that the sender may change what is at a path.

        Args:
            path: Where.
            deep: Whether all that is below is changed too.
            members: Whether it is made or removed, which changes the collection that it
                is in.

        Raises:
            Locked: It has a lock that the sender does not have, or does not name.
        """
        changed = {path.key}
        if deep:
            changed.update(lock.path.key for lock in self.locks.below(path))
        if members and not path.is_root:
            changed.add(path.parent.key)
        for key in sorted(changed):
            locks = self.locks.covering(key)
            if locks and not any(map(self.has, locks)):
                raise submit(locks)

    def has(self, lock: Lock) -> bool:
        """
        Whether the sender has a lock, and says so.
        """
        return lock.token in self.tokens and lock.user == self.user


def submit(locks: Sequence[Lock]) -> Locked:
    """
    The refusal of what needs a token of one of these locks.
    """
    paths = ", ".join(dict.fromkeys(lock.href for lock in locks))
    roots = "".join(href(lock.href) for lock in locks)
    body = condition("lock-token-submitted", roots)
    return Locked(
        f"{paths} is locked: send the token of the lock in If, as the user who has made"
        " it.",
        body,
    )


# -- the record ---------------------------------------------------------------


async def locks_of(values: Values, prefix: bytes) -> Locks:
    """
    The locks below the prefix of a dialect.
    """
    return (await _record(values, prefix))[0]


async def _record(values: Values, prefix: bytes) -> tuple[Locks, ValueInfo | None]:
    known, data = await values.locks(prefix)
    return _locks_in(data), known


def _locks_in(data: bytes) -> Locks:
    if not data:
        return Locks([])
    try:
        found: Mapping[str, Any] = json.loads(data)
        return Locks([Lock(**each) for each in found["locks"]])
    except (ValueError, LookupError, TypeError) as problem:
        # Nobody is let through because a record is damaged.
        raise StoreFault(
            "The record of the locks cannot be read: another program has changed the"
            " value .kvd-locks. Remove it at the machine; then nothing is locked."
        ) from problem


def _encoded(locks: Sequence[Lock]) -> bytes:
    if not locks:
        return b""
    return json.dumps({"locks": [asdict(lock) for lock in locks]}).encode()


def _full(prefix: bytes) -> StoreBusy:
    return StoreBusy(
        f"There is no room for this below /{escape(prefix)}: there can be {MOST_LOCKS}"
        f" locks, and {MOST_BYTES} bytes of what is known of them. Others have to"
        " release some, or to wait until they end."
    )


class Changing:
    """
    Changes the record of the locks.
    """

    def __init__(self, values: Values, prefix: bytes) -> None:
        """
        Args:
            values: What the sender may use.
            prefix: That of the dialect.
        """
        self._values = values
        self._prefix = prefix
        self._known: ValueInfo | None = None
        self._tries = 0

    async def read(self) -> Locks:
        """
        The locks as they are now.

        Raises:
            OperationUnsupported: The store can have none.
            StoreBusy: Others change them all the time.
        """
        if not await self._values.can_lock():
            raise OperationUnsupported(
                "This store, or the engine behind it, does not keep the conditions by"
                " which locks hold between workers: kvd offers none (WebDAV class 1)."
            )
        self._tries += 1
        if self._tries > _TRIES:
            raise StoreBusy("Others change the locks all the time: try again.")
        locks, self._known = await _record(self._values, self._prefix)
        return locks

    async def keep(self, locks: Locks) -> bool:
        """
        Replace the locks; returns False if they are others now than those that were
        read. These may be the new ones: an engine whose reply was lost is asked again,
        and says that somebody came before.

        Raises:
            StoreBusy: The record would be too long to be read again.
        """
        data = _encoded(locks.all)
        if len(data) > MOST_BYTES:
            raise _full(self._prefix)
        try:
            await self._values.keep_locks(self._prefix, data, self._known)
        except PreconditionFailed:
            return False
        return True


async def forget(values: Values, prefix: bytes, gone: Sequence[Lock]) -> None:
    """
    Remove the locks on what was removed.

    Args:
        values: What the sender may use.
        prefix: That of the dialect.
        gone: Those that were there before. Somebody else may have made the same again
            since, and have locked it.
    """
    if not gone:
        return
    changing = Changing(values, prefix)
    while not await changing.keep((await changing.read()).without(gone)):
        pass


# -- as XML -------------------------------------------------------------------


def supported() -> str:
    """
    The property ``supportedlock``.
    """
    entries = (
        f"<D:lockentry><D:lockscope><D:{scope}/></D:lockscope>"
        "<D:locktype><D:write/></D:locktype></D:lockentry>"
        for scope in ("exclusive", "shared")
    )
    return property_of(DAV + "supportedlock", "".join(entries))


def discovery(locks: Sequence[Lock]) -> str:
    """
    The property ``lockdiscovery``.
    """
    return property_of(DAV + "lockdiscovery", "".join(map(_active, locks)))


def _active(lock: Lock) -> str:
    scope = "exclusive" if lock.exclusive else "shared"
    depth = "infinity" if lock.infinite else "0"
    left = max(math.ceil(lock.expires - now()), 1)
    return (
        f"<D:activelock><D:locktype><D:write/></D:locktype>"
        f"<D:lockscope><D:{scope}/></D:lockscope><D:depth>{depth}</D:depth>"
        f"{lock.owner}<D:timeout>Second-{left}</D:timeout>"
        f"<D:locktoken>{href(lock.token)}</D:locktoken>"
        f"<D:lockroot>{href(lock.href)}</D:lockroot></D:activelock>"
    )
