"""
The field ``If`` (RFC 4918 section 10.4): which states must hold, and which locks the
sender has.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from kvd.errors import BadRequest, PreconditionFailed
from kvd.http.dialects.webdav.locks import Locks
from kvd.http.dialects.webdav.resources import Path, path_of
from kvd.model.conditions import EntityTags
from kvd.model.exchanges import Values
from kvd.model.keys import Key

_PART: Final = re.compile(
    rb"[ \t]*(?:<(?P<uri>[^<>]*)>|(?P<open>\()|(?P<close>\))|(?P<not>not)\b"
    rb'|\[[ \t]*(?P<weak>W/)?"(?P<etag>[^"]*)"[ \t]*\])[ \t]*',
    re.IGNORECASE,
)


class State(NamedTuple):
    """
    One condition.
    """

    token: str | None
    """That what is locked has a lock with this token."""
    etag: str | None
    """That the value has this entity tag."""
    negated: bool


class StateList(NamedTuple):
    """
    Conditions that have to hold together.
    """

    path: Path | None
    """Of what they are about; None: of something that is not in this dialect."""
    states: tuple[State, ...]


@dataclass(frozen=True, slots=True)
class States:
    """
    Lists, of which one has to hold; without any, nothing has to.
    """

    lists: tuple[StateList, ...] = ()

    @property
    def tokens(self) -> frozenset[str]:
        """
        Of the locks that the sender says to have.
        """
        return frozenset(
            state.token
            for each in self.lists
            for state in each.states
            if state.token is not None
        )

    def expected(self, path: Path) -> EntityTags | None:
        """
        The entity tags of which the value at a path has to have one, for any list to
        hold; None if that is not known.
        """
        tags: set[str] = set()
        for each in self.lists:
            if each.path is None or each.path.key != path.key:
                return None
            own = {
                state.etag
                for state in each.states
                if state.etag is not None and not state.negated
            }
            if not own:
                return None
            tags |= own
        return EntityTags(frozenset(tags)) if tags else None


NO_STATES: Final = States()


def states_of(field: bytes | None, path: Path, prefix: bytes) -> States:
    """
    Parse the field.

    Args:
        field: Its value; None: there is none.
        path: Of the request.
        prefix: That of the dialect.

    Raises:
        BadRequest: It is malformed.
    """
    if field is None:
        return NO_STATES
    lists: list[StateList] = []
    about: Path | None = path
    is_tagged = False
    inner: list[State] | None = None
    is_negated = False
    at = 0
    while at < len(field):
        part = _PART.match(field, at)
        if part is None:
            raise _malformed(field)
        at = part.end()
        kind = part.lastgroup
        if inner is None:
            if kind == "open":
                inner = []
            elif kind == "uri" and (is_tagged or not lists):
                is_tagged, about = True, _about(part["uri"], prefix)
            else:
                raise _malformed(field)
        elif kind == "close" and inner and not is_negated:
            lists.append(StateList(about, tuple(inner)))
            inner = None
        elif kind == "not" and not is_negated:
            is_negated = True
        elif kind in ("uri", "etag"):
            inner.append(_state(part, is_negated))
            is_negated = False
        else:
            raise _malformed(field)
    if inner is not None or not lists:
        raise _malformed(field)
    return States(tuple(lists))


def _state(part: re.Match[bytes], is_negated: bool) -> State:
    uri, etag = part["uri"], part["etag"]
    if uri is not None:
        return State(uri.decode("latin-1"), None, is_negated)
    # kvd makes no weak tags.
    text = "" if part["weak"] else etag.decode("latin-1")
    return State(None, text, is_negated)


def _about(uri: bytes, prefix: bytes) -> Path | None:
    try:
        return path_of(uri, prefix)
    except BadRequest:
        return None


def _malformed(field: bytes) -> BadRequest:
    return BadRequest(
        f"If is {field[:80].decode('latin-1')!r}, but has to have lists such as"
        ' (<TOKEN> ["ENTITY TAG"]), each perhaps behind the <URL> that it is about.'
    )


async def check_states(values: Values, states: States, locks: Locks) -> None:
    """
    Check that one of the lists holds.

    Raises:
        PreconditionFailed: None does.
    """
    if not states.lists:
        return
    facts = _Facts(values, locks)
    for each in states.lists:
        if await _holds(facts, each):
            return
    raise PreconditionFailed(
        "None of the lists in If holds: a lock has ended, or is on something else, or"
        " the value has another entity tag."
    )


class _Facts:
    """
    What is so at paths. Each is looked up once, however often a field names it.
    """

    def __init__(self, values: Values, locks: Locks) -> None:
        self._values = values
        self._locks = locks
        self._tokens: dict[bytes, frozenset[str]] = {}
        self._etags: dict[bytes, str | None] = {}

    def tokens(self, path: Path) -> frozenset[str]:
        """
        Those of the locks on what is there.
        """
        key = path.key
        if key not in self._tokens:
            found = self._locks.covering(key)
            self._tokens[key] = frozenset(lock.token for lock in found)
        return self._tokens[key]

    async def etag(self, path: Path) -> str | None:
        """
        The entity tag of the value there; None if there is none.
        """
        key = path.key
        if key not in self._etags:
            info = None if path.is_root else await self._values.stat(Key(key))
            self._etags[key] = None if info is None else info.etag
        return self._etags[key]


async def _holds(facts: _Facts, asked: StateList) -> bool:
    path = asked.path
    for state in asked.states:
        if path is None:
            found = False
        elif state.token is not None:
            found = state.token in facts.tokens(path)
        else:
            found = await facts.etag(path) == state.etag
        if found == state.negated:
            return False
    return True
