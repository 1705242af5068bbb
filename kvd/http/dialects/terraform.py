"""
The ``http`` backend of Terraform and OpenTofu: a state, and its lock.

The lock of ``NAME`` is the value ``NAME.kvd-lock`` with what its holder has sent. It is
made only where there is none, in one step of the store, so it holds between workers,
machines and restarts. Whoever finds a lock is told whose it is (423). One that was left
behind is removed by ``terraform force-unlock``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from zope.interface import implementer

from kvd.errors import (
    BadRequest,
    KeyAbsent,
    Locked,
    PreconditionFailed,
    StoreBusy,
)
from kvd.http.dialects.json_replies import read_object
from kvd.http.dialects.paths import check_method, key_of, query_of, segments_below
from kvd.http.wire.digests import digests_of
from kvd.http.wire.fields import conditions_of, metadata_of
from kvd.http.wire.replies import NO_SNIFFING
from kvd.interfaces import IDialect
from kvd.model.conditions import Conditions, EntityTags
from kvd.model.exchanges import Values
from kvd.model.keys import Key
from kvd.model.operations import Delete, Exchange, Get, Operation, Put
from kvd.model.replies import Reply
from kvd.model.requests import Request

LOCK: Final = b".kvd-lock"
"""
The end of the key of a lock.
"""

MAX_LOCK_BYTES: Final = 64 * 1024

_METHODS: Final = "GET, HEAD, POST, PUT, DELETE, LOCK, UNLOCK"
_ABSENT: Final = Conditions(if_none_match=EntityTags(any=True))
_JSON: Final = (("Content-Type", "application/json"), NO_SNIFFING)
_TRIES: Final = 3
_STORED: Final = (201, 204)


@implementer(IDialect)
class Terraform:
    """
    The dialect of Terraform's ``http`` backend.
    """

    def understand(self, request: Request, prefix: bytes) -> Operation:
        method = request.method
        check_method(request, _METHODS, "Terraform")
        key = key_of(prefix, segments_below(request.target, prefix))
        if key.endswith(LOCK):
            raise BadRequest(
                f"Names that end with {LOCK.decode()} are those of locks: choose"
                " another one for a state."
            )
        lock = key_of(b"", (key + LOCK).split(b"/"))
        if method in ("GET", "HEAD"):
            return Get(key, conditions_of(request), body=method == "GET")
        if method == "LOCK":
            answer = partial(_lock, lock=lock)
            return Exchange(answer, (Put(lock),), MAX_LOCK_BYTES)
        if method == "UNLOCK":
            answer = partial(_unlock, lock=lock)
            return Exchange(answer, (Delete(lock),), MAX_LOCK_BYTES)
        given = unquote_to_bytes(query_of(request.target).get("ID", b"")).decode(
            "utf-8", "replace"
        )
        if method == "DELETE":
            answer = partial(_delete, key=key, lock=lock, given=given)
            return Exchange(answer, (Delete(key),))
        check = partial(_check, lock=lock, given=given)
        return Put(
            key,
            conditions_of(request),
            metadata_of(request),
            digests_of(request),
            check=check,
            confirm=check,
        )

    def render(
        self,
        reply: Reply,
        request: Request,
        operation: Operation | None,
        writing: bool,
    ) -> Reply:
        if isinstance(reply.error, Locked):
            reply.fields, reply.body = _JSON, reply.error.holder
        elif reply.status in _STORED:
            reply.status = 200
        return reply


async def _lock(values: Values, body: bytes, lock: Key) -> Reply:
    """
    Take the lock, or tell who has it.
    """
    _id_of(read_object(body))
    for _ in range(_TRIES):
        try:
            await values.write(lock, body, _ABSENT)
        except PreconditionFailed:
            holder = await values.read(lock)
            if holder is not None:
                raise _locked(holder[1]) from None
            continue  # It was released in between.
        return Reply(200)
    raise StoreBusy("The lock is taken and released all the time: try again.")


async def _unlock(values: Values, body: bytes, lock: Key) -> Reply:
    """
    Release the lock. Terraform sends no body when it is forced to.
    """
    holder = await values.read(lock)
    if holder is None:
        return Reply(200)
    info, document = holder
    if body and _id_of(read_object(body)) != _id_in(document):
        raise _locked(document)
    try:
        same = Conditions(if_match=EntityTags(frozenset((info.etag,))))
        await values.remove(lock, same)
    except KeyAbsent:
        pass  # Another UNLOCK of it came first.
    except PreconditionFailed:
        held = await values.read(lock)
        raise _locked(b"{}" if held is None else held[1]) from None
    return Reply(200)


async def _delete(
    values: Values, body: bytes, key: Key, lock: Key, given: str
) -> Reply:
    """
    Remove a state.
    """
    await _check(values, lock, given)
    await values.remove(key)
    return Reply(200)


async def _check(values: Values, lock: Key, given: str) -> None:
    """
    Check that nobody else has the lock, and that who says to have it has it.

    Raises:
        Locked: Somebody else has it, or nobody.
    """
    holder = await values.read(lock)
    if holder is not None and _id_in(holder[1]) != given:
        raise _locked(holder[1])
    if holder is None and given:
        raise Locked(
            "The lock with this ID was released, perhaps by force: the state may have"
            " changed since.",
            b"{}",
        )


def _locked(holder: bytes) -> Locked:
    return Locked("The state is locked; the reply says by whom.", holder)


def _id_of(info: Mapping[str, Any]) -> str:
    found = info.get("ID")
    if not isinstance(found, str) or not found:
        raise BadRequest("The information about a lock has to have an ID.")
    return found


def _id_in(document: bytes) -> str:
    """
    The ID in a lock that is stored; empty if it has none, as of another program.
    """
    try:
        found = json.loads(document)
    except ValueError:
        return ""
    return str(found.get("ID", "")) if isinstance(found, dict) else ""


dialect = Terraform()
