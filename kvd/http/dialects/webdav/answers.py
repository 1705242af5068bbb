"""
What WebDAV's own methods do.

A method on a collection is many steps of the store, each atomic by itself: others can
see some of them done. A step that fails is told with its path, and the rest goes on.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Final

from kvd.errors import (
    BadRequest,
    CodingUnsupported,
    Fault,
    Forbidden,
    ForeignDestination,
    KeyAbsent,
    MetadataTooLarge,
    MethodNotAllowed,
    PeerError,
    PreconditionFailed,
)
from kvd.http.dialects.webdav.documents import (
    DAV,
    HEAD,
    TAIL,
    XML_TYPE,
    Asked,
    Change,
    condition,
    failure,
    multistatus,
    names_of,
    read_propertyupdate,
    read_propfind,
    response,
    text_of,
)
from kvd.http.dialects.webdav.locking import Claim
from kvd.http.dialects.webdav.locks import Locks, discovery, forget, supported
from kvd.http.dialects.webdav.resources import (
    LIVE,
    LOCKING,
    Path,
    Resource,
    check_parent,
    dead_properties,
    find,
    find_collection,
    member,
    properties_of,
    with_dead,
)
from kvd.http.wire.fields import check_size, parse_http_date
from kvd.http.wire.kept import CLIENT_TIME
from kvd.http.wire.replies import NO_SNIFFING
from kvd.http.wire.targets import key_of_segments
from kvd.model.conditions import UNCONDITIONAL, Conditions, EntityTags
from kvd.model.exchanges import Values, first_slice
from kvd.model.keys import Key, escape
from kvd.model.replies import Reply
from kvd.model.reserved import COLLECTION, is_record
from kvd.model.values import Entry, Metadata

METHODS: Final = (
    "OPTIONS, GET, HEAD, PUT, DELETE, PROPFIND, PROPPATCH, MKCOL, COPY, MOVE, LOCK,"
    " UNLOCK"
)

_ABSENT: Final = Conditions(if_none_match=EntityTags(any=True))

_FIELDS: Final = (XML_TYPE, NO_SNIFFING)

_LAST_MODIFIED: Final = DAV + "lastmodified"
_WINDOWS_MODIFIED: Final = "{urn:schemas-microsoft-com:}Win32LastModifiedTime"

MAX_FAILURES: Final = 1000
"""
How many failures of one request are told.
"""

PIECE_BYTES: Final = 64 * 1024
"""
So much is said about members before it is sent.
"""


async def options(values: Values, body: bytes) -> Reply:
    """
    Say what is offered: locks only where the store can have any. Windows and davfs2
    look for these names.
    """
    classes = "1, 2" if await values.can_lock() else "1"
    return Reply(200, [("DAV", classes), ("MS-Author-Via", "DAV"), ("Allow", METHODS)])


# -- PROPFIND -----------------------------------------------------------------


async def propfind(
    values: Values, body: bytes, path: Path, claim: Claim, *, depth: bytes
) -> Reply:
    """
    Describe a resource, and the members of a collection if they are asked for; but not
    all that is below, however deep (RFC 4918 section 9.1).
    """
    asked = read_propfind(body)
    locks = await _locks_for(values, asked, claim)
    resource = await find(values, path)
    if resource is None:
        raise _absent(path)
    members: AsyncGenerator[Sequence[Entry], None] | None = None
    first: Sequence[Entry] = ()
    if resource.is_collection and depth == b"infinity":
        return Reply(403, _FIELDS, condition("propfind-finite-depth"))
    if resource.is_collection and depth == b"1":
        members = values.folder(path.prefix)
        first = await first_slice(members)
    described = _describe(values, asked, locks, resource, first, members)
    return Reply(207, _FIELDS, described)


async def _locks_for(values: Values, asked: Asked, claim: Claim) -> Locks | None:
    """
    The locks, if properties of them are asked for and the store can have any.
    """
    has_states = bool(claim.states.lists)
    of_locks = asked.names is None or not LOCKING.isdisjoint(asked.names)
    if not has_states and (not of_locks or not await values.can_lock()):
        return None
    return (await claim.held(values)).locks


async def _describe(
    values: Values,
    asked: Asked,
    locks: Locks | None,
    resource: Resource,
    first: Sequence[Entry],
    members: AsyncGenerator[Sequence[Entry], None] | None,
) -> AsyncGenerator[bytes, None]:
    yield HEAD + _response(resource, asked, locks)
    if members is not None:
        try:
            async for piece in _responses(values, asked, locks, first):
                yield piece
            async for entries in members:
                async for piece in _responses(values, asked, locks, entries):
                    yield piece
        finally:
            await members.aclose()
    yield TAIL


async def _responses(
    values: Values, asked: Asked, locks: Locks | None, entries: Sequence[Entry]
) -> AsyncGenerator[bytes, None]:
    """
    What is said about members, in pieces: each tells of all locks on a collection, of
    which there may be hundreds.
    """
    said, size = list[bytes](), 0
    for entry in entries:
        found = await member(values, entry)
        if found is None:
            continue
        said.append(_response(found, asked, locks))
        size += len(said[-1])
        if size > PIECE_BYTES:
            yield b"".join(said)
            said, size = [], 0
    yield b"".join(said)


def _response(resource: Resource, asked: Asked, locks: Locks | None) -> bytes:
    properties = properties_of(resource)
    if locks is not None:
        properties[DAV + "supportedlock"] = supported()
        found_locks = locks.covering(resource.path.key)
        properties[DAV + "lockdiscovery"] = discovery(found_locks)
    if asked.only_names:
        return response(resource.href, {200: names_of(properties)})
    if asked.names is None:
        return response(resource.href, {200: properties.values()})
    there = [properties[name] for name in asked.names if name in properties]
    missing = [name for name in asked.names if name not in properties]
    found = {200: there} if there or not missing else {}
    if missing:
        found[404] = [*names_of(missing)]
    return response(resource.href, found)


# -- PROPPATCH ----------------------------------------------------------------


async def proppatch(values: Values, body: bytes, path: Path, claim: Claim) -> Reply:
    """
    Set and remove properties: all of them or none. The value is published again with
    them, so its entity tag changes.
    """
    changes = read_propertyupdate(body)
    (await claim.held(values)).check(path)
    resource = await find(values, path)
    if resource is None:
        raise _absent(path)
    protected = [change.name for change in changes if change.name in LIVE]
    if protected:
        return _not_patched(resource, changes, 403, protected)
    try:
        metadata = _patched(resource.metadata, changes)
        await _keep(values, resource, metadata)
    except MetadataTooLarge:
        names = [change.name for change in changes]
        return _not_patched(resource, changes, 507, names)
    names = [*dict.fromkeys(change.name for change in changes)]
    done = response(resource.href, {200: names_of(names)})
    return Reply(207, _FIELDS, multistatus([done]))


def _patched(metadata: Metadata, changes: Sequence[Change]) -> Metadata:
    properties = dead_properties(metadata)
    changed = {**metadata}
    for name, element in changes:
        text = "" if element is None else (element.text or "").strip()
        if name == _LAST_MODIFIED:
            changed[CLIENT_TIME] = _seconds(text)
            continue
        if name == _WINDOWS_MODIFIED and element is not None:
            second = parse_http_date(text.encode("latin-1", "replace"))
            if second is not None:
                changed[CLIENT_TIME] = str(second)
        properties.pop(name, None)
        if element is not None:
            properties[name] = text_of(element)
    return with_dead(changed, properties)


def _seconds(text: str) -> str:
    second = parse_http_date(text.encode("latin-1", "replace"))
    if second is not None:
        return str(second)
    if text.isascii() and text.isdigit() and len(text) <= 11:
        return text
    raise BadRequest(
        f"{text[:80]!r} is not a time for lastmodified: give seconds since 1970, or an"
        " HTTP date."
    )


async def _keep(values: Values, resource: Resource, metadata: Metadata) -> None:
    check_size(metadata)
    info = resource.info
    if info is not None:
        same = Conditions(if_match=EntityTags(frozenset((info.etag,))))
        await values.copy(info.key, info.key, same, metadata)
    elif resource.path.is_root:
        raise Forbidden("The root collection keeps no properties.")
    else:
        await values.write(resource.path.marker, b"", _ABSENT, metadata)


def _not_patched(
    resource: Resource, changes: Sequence[Change], status: int, names: Sequence[str]
) -> Reply:
    others = {change.name for change in changes}.difference(names)
    found = {status: [*names_of(dict.fromkeys(names))]}
    if others:
        found[424] = [*names_of(sorted(others))]
    return Reply(207, _FIELDS, multistatus([response(resource.href, found)]))


# -- MKCOL --------------------------------------------------------------------


async def mkcol(values: Values, body: bytes, path: Path, claim: Claim) -> Reply:
    """
    Make a collection that lasts without values.
    """
    if body:
        raise CodingUnsupported(
            "MKCOL with a body is not supported: make the collection without one."
        )
    held = await claim.held(values)
    if path.is_root or await find(values, replace(path, is_collection=False)):
        raise MethodNotAllowed(
            f"/{escape(path.key)} is there already: MKCOL makes only what is not.",
            METHODS,
        )
    held.check(path, members=True)
    await check_parent(values, path)
    try:
        await values.write(path.marker, b"", _ABSENT)
    except PreconditionFailed as error:
        raise MethodNotAllowed(
            f"Somebody else has just made /{escape(path.key)}/.", METHODS
        ) from error
    return Reply(201)


# -- DELETE -------------------------------------------------------------------


async def delete(
    values: Values, body: bytes, path: Path, claim: Claim, conditions: Conditions
) -> Reply:
    """
    Remove a value, or a collection with all that is in it.
    """
    if path.is_root:
        raise Forbidden("The root collection cannot be removed.")
    held = await claim.held(values)
    held.check(path, deep=True, members=True)
    failures: list[bytes] = []
    try:
        if path.is_collection:
            raise _absent(path)
        await values.remove(Key(path.key), conditions)
    except KeyAbsent:
        if await find_collection(values, path) is None:
            raise
        failures = await _remove_all(values, path)
    if not failures:
        await forget(values, claim.prefix, held.locks.within(path))
    return _outcome(values, failures, 204)


async def _remove_all(values: Values, path: Path) -> list[bytes]:
    """
    Remove all values of a collection; what went wrong, told for each.
    """
    failures: list[bytes] = []
    walked = values.list(path.prefix)
    try:
        async for infos in walked:
            for info in infos:
                try:
                    await values.remove(info.key)
                except KeyAbsent:
                    continue
                except (PeerError, Fault) as error:
                    _note(failures, info.key, error)
    finally:
        await walked.aclose()
    return failures


# -- COPY and MOVE ------------------------------------------------------------


async def transfer(
    values: Values,
    body: bytes,
    source: Path,
    target: Path,
    claim: Claim,
    *,
    overwrite: bool,
    moves: bool,
    with_members: bool,
) -> Reply:
    """
    Copy or move a value, or a collection with all that is in it.

    Args:
        values: What the sender may use.
        body: Of the request; has no meaning.
        source: What is copied.
        target: Where to.
        claim: What the request says of locks.
        overwrite: Whether what is there already may be replaced.
        moves: Whether the source is removed.
        with_members: Whether a collection is copied with what is in it.
    """
    _check_apart(source, target)
    if values.is_elsewhere(target.prefix):
        raise ForeignDestination(
            f"/{escape(target.key)} belongs to another dialect, which is spoken below a"
            " prefix of its own (--dialect): store it there by a request for itself."
        )
    held = await claim.held(values)
    if moves:
        held.check(source, deep=True, members=True)
    found = await find(values, source)
    if found is None:
        raise _absent(source)
    there = await find(values, replace(target, is_collection=False))
    if there is not None and not overwrite:
        raise PreconditionFailed(
            f"/{escape(target.key)} is there already, and Overwrite is F."
        )
    held.check(target, deep=True, members=there is None)
    await check_parent(values, target)
    failures: list[bytes] = []
    if there is not None and there.is_collection:
        failures = await _remove_all(values, target)
    elif there is not None and found.is_collection:
        await values.remove(Key(target.key))
    if not failures and found.is_collection:
        failures = await _transfer_all(
            values, found, target, moves=moves, with_members=with_members
        )
    elif not failures:
        conditions = UNCONDITIONAL if overwrite else _ABSENT
        step = values.move if moves else values.copy
        await step(Key(source.key), Key(target.key), conditions)
    if not failures:
        # Locks stay where they are: on the target, and not on what is there no more.
        gone = held.locks.below(target)
        if moves:
            gone += held.locks.within(source)
        await forget(values, claim.prefix, gone)
    return _outcome(values, failures, 201 if there is None else 204)


def _check_apart(source: Path, target: Path) -> None:
    if source.is_root or target.is_root:
        raise Forbidden("The root collection can be neither copied nor replaced.")
    one, other = source.prefix, target.prefix
    if one.startswith(other) or other.startswith(one):
        raise Forbidden(
            f"/{escape(source.key)} and /{escape(target.key)} are one, or one is in the"
            " other."
        )


async def _transfer_all(
    values: Values,
    source: Resource,
    target: Path,
    *,
    moves: bool,
    with_members: bool,
) -> list[bytes]:
    """
    Copy or move a collection to where nothing is; what went wrong, told for each value.
    """
    await values.write(target.marker, b"", UNCONDITIONAL, source.metadata)
    failures: list[bytes] = []
    if not with_members:
        return failures
    prefix = source.path.prefix
    step = values.move if moves else values.copy
    walked = values.list(prefix)
    try:
        async for infos in walked:
            for info in infos:
                try:
                    if info.key == prefix + COLLECTION or is_record(info.key):
                        # The target has one already; and a record is of no use there.
                        if moves:
                            await values.remove(info.key)
                        continue
                    key = target.prefix + info.key[len(prefix) :]
                    await step(info.key, key_of_segments(key.split(b"/")))
                except KeyAbsent:
                    continue
                except (PeerError, Fault) as error:
                    _note(failures, info.key, error)
    finally:
        await walked.aclose()
    return failures


def _note(failures: list[bytes], key: bytes, error: PeerError | Fault) -> None:
    if len(failures) < MAX_FAILURES:
        failures.append(failure(f"/{escape(key)}", error.status, error.sentence))


def _outcome(values: Values, failures: Sequence[bytes], status: int) -> Reply:
    if failures:
        return Reply(207, _FIELDS, multistatus(failures))
    return _done(values, status)


def _done(values: Values, status: int) -> Reply:
    return Reply(status, [("Kvd-Durability", values.durability)])


def _absent(path: Path) -> KeyAbsent:
    return KeyAbsent(f"There is neither a value nor a collection /{escape(path.key)}.")
