"""
LOCK and UNLOCK, and what other methods ask of locks.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from kvd.errors import (
    AccessRefused,
    BadRequest,
    Forbidden,
    KvdError,
    Locked,
    MethodNotAllowed,
    PreconditionFailed,
)
from kvd.http.dialects.webdav.documents import (
    XML_TYPE,
    condition,
    failure,
    href,
    multistatus,
    properties,
    read_lockinfo,
)
from kvd.http.dialects.webdav.locks import (
    MAX_SECONDS,
    Changing,
    Held,
    Lock,
    Locks,
    discovery,
    forget,
    locks_of,
    new_lock,
    new_token,
)
from kvd.http.dialects.webdav.resources import Path, check_parent, find
from kvd.http.dialects.webdav.states import NO_STATES, States, check_states
from kvd.http.wire.replies import NO_SNIFFING
from kvd.model.conditions import Conditions, EntityTags
from kvd.model.exchanges import Values
from kvd.model.keys import Key, escape
from kvd.model.replies import Reply

_FIELDS: Final = (XML_TYPE, NO_SNIFFING)
_ABSENT: Final = Conditions(if_none_match=EntityTags(any=True))
_SECONDS: Final = re.compile(r"Second-([0-9]{1,10})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Claim:
    """
    What a request says of locks and states.
    """

    prefix: bytes
    """That of the dialect."""
    states: States

    async def held(self, values: Values) -> Held:
        """
        The locks as they are now, and which of them the sender has.

        Raises:
            PreconditionFailed: A state does not hold.
        """
        return await self.among(values, await locks_of(values, self.prefix))

    async def among(self, values: Values, locks: Locks) -> Held:
        """
        Which of some locks the sender has; raises what `held` raises.
        """
        await check_states(values, self.states, locks)
        return Held(locks, self.states.tokens, values.user)


async def check_place(values: Values, path: Path) -> None:
    """
    Check that a value can be put at a path. Whoever may write and not read learns
    nothing here of what is there.

    Raises:
        KeyConflict: The collection that it would be in is not there.
    """
    with suppress(AccessRefused):
        await check_parent(values, path)


async def check_early(values: Values, path: Path, claim: Claim) -> None:
    """
    The same, and what `check_locks` checks.
    """
    await check_place(values, path)
    await check_locks(values, path, claim)


async def check_locks(values: Values, path: Path, claim: Claim) -> None:
    """
    Check that nothing that is locked keeps a value from being put at a path.

    Raises:
        Locked: Somebody else has a lock.
        PreconditionFailed: A state in ``If`` does not hold.
    """
    locks = await locks_of(values, claim.prefix)
    if not locks.all and claim.states is NO_STATES:
        return
    held = await claim.among(values, locks)
    held.check(path)
    if not held.locks.covering(path.parent.key):
        return
    try:
        is_new = await values.stat(Key(path.key)) is None
    except AccessRefused:
        is_new = True
    held.check(path, members=is_new)


def seconds_of(field: bytes | None) -> int:
    """
    How long a lock is granted for.

    Args:
        field: ``Timeout``: what the client would like, the first choice first.
    """
    for choice in (field or b"").decode("latin-1").split(","):
        asked = _SECONDS.fullmatch(choice.strip())
        if asked is not None:
            return min(max(int(asked[1]), 1), MAX_SECONDS)
    return MAX_SECONDS


async def lock(
    values: Values,
    body: bytes,
    path: Path,
    claim: Claim,
    *,
    infinite: bool,
    seconds: int,
) -> Reply:
    """
    Lock what is at a path, or refresh a lock on it.

    Args:
        values: What the sender may use.
        body: Of the request; a lock is refreshed without one.
        path: Where. A value without bytes is made if there is nothing.
        claim: What the request says of locks.
        infinite: Whether all that is below is locked too.
        seconds: How long.
    """
    if not body:
        return await _refresh(values, path, claim, seconds)
    asked = read_lockinfo(body)
    changing = Changing(values, claim.prefix)
    token = new_token()
    while True:
        read = await changing.read()
        # It is there already if it was kept and the engine's reply was lost.
        locks = read.without(each for each in read.all if each.token == token)
        held = await claim.among(values, locks)
        found = await find(values, path)
        if found is None:
            await _check_absent(values, path, held)
        added = new_lock(
            path,
            token,
            is_collection=found is not None and found.is_collection,
            exclusive=asked.exclusive,
            infinite=infinite,
            owner=asked.owner,
            user=values.user,
            network=values.network,
            seconds=seconds,
        )
        hindering = _hindering(locks, added, path)
        if hindering:
            return _hindered(hindering, added)
        if await changing.keep(locks.with_one_more(added, claim.prefix)):
            break
    if found is None:
        try:
            await values.write(Key(path.key), b"", _ABSENT)
        except PreconditionFailed:
            found = await find(values, path)
        except KvdError:
            await forget(values, claim.prefix, [added])
            raise
    fields = (*_FIELDS, ("Lock-Token", f"<{added.token}>"))
    status = 201 if found is None else 200
    now_there = [*locks.covering(path.key), added]
    return Reply(status, fields, properties(discovery(now_there)))


async def _check_absent(values: Values, path: Path, held: Held) -> None:
    """
    Check that a value can be made at a path where nothing is.
    """
    if path.is_collection:
        raise MethodNotAllowed(
            f"There is no collection /{escape(path.key)}/: MKCOL makes one. LOCK makes"
            " a value where there is nothing, if its path does not end with a slash.",
            "MKCOL",
        )
    held.check(path, members=True)
    await check_parent(values, path)


def _hindering(locks: Locks, added: Lock, path: Path) -> list[Lock]:
    """
    The locks beside which a new one cannot be.
    """
    near = locks.covering(path.key)
    if added.infinite:
        near += locks.below(path)
    return [each for each in near if added.exclusive or each.exclusive]


def _hindered(hindering: list[Lock], added: Lock) -> Reply:
    roots = [*dict.fromkeys(each.href for each in hindering)]
    others = [root for root in roots if root != added.href]
    if all(each.covers(added.path.key) for each in hindering):
        raise Locked(
            f"{', '.join(roots)} is locked already.",
            condition("no-conflicting-lock", "".join(map(href, roots))),
        )
    # RFC 4918 section 9.10.9: which part of the collection hinders it.
    said = [failure(root, 423, "This is locked already.") for root in others]
    said.append(failure(added.href, 424, "Something in it is locked already."))
    return Reply(207, _FIELDS, multistatus(said))


async def _refresh(values: Values, path: Path, claim: Claim, seconds: int) -> Reply:
    if not claim.states.tokens:
        raise BadRequest(
            "A LOCK without a body refreshes the lock whose token is in If, and there"
            " is none: for a new lock, send a lockinfo."
        )
    changing = Changing(values, claim.prefix)
    while True:
        held = await claim.among(values, await changing.read())
        mine = [each for each in held.locks.covering(path.key) if held.has(each)]
        if not mine:
            raise PreconditionFailed(
                f"No lock on /{escape(path.key)} has the token in If: it has ended, or"
                " is on something else, or another user has made it."
            )
        locks, again = held.locks.refreshed(mine[0], seconds)
        if await changing.keep(locks):
            return Reply(200, _FIELDS, properties(discovery([again])))


async def unlock(
    values: Values, body: bytes, path: Path, claim: Claim, token: str
) -> Reply:
    """
    Release a lock, named by any path that it covers.
    """
    changing = Changing(values, claim.prefix)
    was_there = False
    while True:
        held = await claim.among(values, await changing.read())
        named = [each for each in held.locks.covering(path.key) if each.token == token]
        if not named and was_there:
            return Reply(204)
        if not named:
            return Reply(409, _FIELDS, condition("lock-token-matches-request-uri"))
        if named[0].user != values.user:
            raise Forbidden("Only the user who has made this lock can release it.")
        was_there = True
        if await changing.keep(held.locks.without(named)):
            return Reply(204)


def token_of(field: bytes | None) -> str:
    """
    The token in ``Lock-Token``.

    Raises:
        BadRequest: There is none.
    """
    text = (field or b"").strip()
    if len(text) < 3 or text[:1] != b"<" or text[-1:] != b">":
        raise BadRequest("UNLOCK needs a Lock-Token: <TOKEN>, as LOCK has told it.")
    return text[1:-1].decode("latin-1")
