"""
Understands the requests of WebDAV.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import Final

from zope.interface import implementer

from kvd.errors import (
    BadRequest,
    Forbidden,
    ForeignDestination,
    Locked,
    MethodNotAllowed,
)
from kvd.http.dialects.paths import check_method
from kvd.http.dialects.webdav import answers
from kvd.http.dialects.webdav.answers import METHODS
from kvd.http.dialects.webdav.documents import XML_TYPE
from kvd.http.dialects.webdav.locking import (
    Claim,
    check_early,
    check_locks,
    check_place,
    lock,
    seconds_of,
    token_of,
    unlock,
)
from kvd.http.dialects.webdav.resources import Path, path_of
from kvd.http.dialects.webdav.states import states_of
from kvd.http.wire.digests import digests_of
from kvd.http.wire.fields import conditions_of, metadata_of
from kvd.http.wire.kept import CLIENT_TIME, KeptFields
from kvd.http.wire.replies import NO_SNIFFING
from kvd.http.wire.targets import authority_of
from kvd.http.wire.unsupported import refuse_unsupported
from kvd.interfaces import ICollectionDialect
from kvd.model.conditions import Conditions
from kvd.model.keys import Key
from kvd.model.operations import (
    Delete,
    Exchange,
    Get,
    List,
    Operation,
    Put,
    WriteBelow,
)
from kvd.model.replies import Reply
from kvd.model.requests import Request
from kvd.model.reserved import COLLECTION

_CLIENT_TIME: Final = KeptFields((CLIENT_TIME,))

_DEFAULT_PORT: Final = re.compile(rb":(?:80|443)?$")

_SHORT: Final = 16 * 1024
"""
The longest body before which the locks are not looked at.
"""

_NO_BODY: Final = 64 * 1024
"""
So much of a body without a meaning is read past.
"""


@implementer(ICollectionDialect)
class WebDAV:
    """
    The dialect of RFC 4918.
    """

    # Windows names a collection without its slash.
    root_methods = frozenset(METHODS.split(", ")) - {"GET", "HEAD", "PUT", "DELETE"}

    def understand(self, request: Request, prefix: bytes) -> Operation:
        method = request.method
        if method == "OPTIONS":
            return Exchange(answers.options, (), _NO_BODY)
        check_method(request, METHODS, "WebDAV")
        path = path_of(request.target, prefix)
        if method in ("GET", "HEAD"):
            return _get(request, path)
        claim = Claim(prefix, states_of(request.fields.get(b"if"), path, prefix))
        if method == "PUT":
            return _put(request, path, claim)
        if method == "DELETE":
            needs = (Delete(Key(path.key)),)
            conditions = _conditions(request, path, claim)
            answer = partial(
                answers.delete, path=path, claim=claim, conditions=conditions
            )
            return Exchange(answer, needs, _NO_BODY)
        if method == "PROPFIND":
            return _propfind(request, path, claim)
        if method in ("LOCK", "UNLOCK"):
            return _locking(request, path, claim)
        if method in ("PROPPATCH", "MKCOL"):
            step = answers.mkcol if method == "MKCOL" else answers.proppatch
            answer = partial(step, path=path, claim=claim)
            return Exchange(answer, (Put(Key(path.key)),))
        return _transfer(request, path, claim, moves=method == "MOVE")

    def render(
        self,
        reply: Reply,
        request: Request,
        operation: Operation | None,
        writing: bool,
    ) -> Reply:
        if isinstance(reply.error, Locked):
            reply.fields, reply.body = (XML_TYPE, NO_SNIFFING), reply.error.holder
        return reply


def _get(request: Request, path: Path) -> Operation:
    with_body = request.method == "GET"
    if path.is_collection:
        return List(path.prefix, body=with_body)
    return Get(Key(path.key), conditions_of(request), body=with_body)


def _put(request: Request, path: Path, claim: Claim) -> Put:
    if path.is_collection:
        raise MethodNotAllowed(
            "PUT makes a value, and its path does not end with a slash; MKCOL makes a"
            " collection.",
            METHODS,
        )
    if b"content-range" in request.fields:
        raise BadRequest(
            "PUT with Content-Range is not supported: send the whole value."
        )
    refuse_unsupported(request, {})
    # A short body has come with its head, and need not be refused early.
    is_short = request.length is not None and request.length <= _SHORT
    check = partial(check_early, claim=claim) if not is_short else check_place
    put = Put(
        Key(path.key),
        _conditions(request, path, claim),
        metadata_of(request),
        digests_of(request),
        check=partial(check, path=path),
        confirm=partial(check_locks, path=path, claim=claim),
    )
    return _CLIENT_TIME.add(put, request)


def _conditions(request: Request, path: Path, claim: Claim) -> Conditions:
    """
    The conditions of a change, with those in ``If`` that the store can check in the
    same step as it makes the change.
    """
    conditions = conditions_of(request)
    expected = claim.states.expected(path)
    if expected is None or conditions.if_match or conditions.if_unmodified_since:
        return conditions
    return replace(conditions, if_match=expected)


def _locking(request: Request, path: Path, claim: Claim) -> Exchange:
    fields = request.fields
    # That of what is locked: a collection is locked by whoever may write in it.
    needs: tuple[Put | List, ...] = (
        Put(Key(path.prefix + COLLECTION if path.is_collection else path.key)),
    )
    if request.method == "UNLOCK":
        token = token_of(fields.get(b"lock-token"))
        answer = partial(unlock, path=path, claim=claim, token=token)
        return Exchange(answer, needs, _NO_BODY)
    depth = fields.get(b"depth", b"infinity").lower()
    if depth not in (b"0", b"infinity"):
        raise BadRequest("Depth has to be 0 or infinity for LOCK.")
    if depth == b"infinity":
        # Nobody locks others out of what he may not write himself.
        needs = (*needs, WriteBelow(path.prefix))
    answer = partial(
        lock,
        path=path,
        claim=claim,
        infinite=depth == b"infinity",
        seconds=seconds_of(fields.get(b"timeout")),
    )
    return Exchange(answer, needs, _NO_BODY)


def _propfind(request: Request, path: Path, claim: Claim) -> Exchange:
    depth = request.fields.get(b"depth", b"infinity").lower()
    needs: tuple[Get | List, ...] = (List(path.prefix),)
    if not path.is_collection:
        needs = (Get(Key(path.key)), *needs)
    if depth not in (b"0", b"1", b"infinity"):
        raise BadRequest("Depth has to be 0, 1 or infinity.")
    answer = partial(answers.propfind, path=path, claim=claim, depth=depth)
    return Exchange(answer, needs)


def _transfer(request: Request, source: Path, claim: Claim, *, moves: bool) -> Exchange:
    fields = request.fields
    overwrite = fields.get(b"overwrite", b"T").upper()
    if overwrite not in (b"T", b"F"):
        raise BadRequest("Overwrite has to be T or F.")
    depth = fields.get(b"depth", b"infinity").lower()
    if depth not in (b"0", b"infinity") or (moves and depth == b"0"):
        raise BadRequest(
            "Depth has to be infinity for MOVE, and 0 or infinity for COPY."
        )
    target = _destination(request, claim.prefix)
    if source.is_root or target.is_root:
        raise Forbidden("The root collection can be neither copied nor replaced.")
    needs: list[Get | Put | Delete] = [Get(Key(source.key)), Put(Key(target.key))]
    if moves:
        needs.append(Delete(Key(source.key)))
    answer = partial(
        answers.transfer,
        source=source,
        target=target,
        claim=claim,
        overwrite=overwrite == b"T",
        moves=moves,
        with_members=depth == b"infinity",
    )
    return Exchange(answer, tuple(needs), _NO_BODY)


def _destination(request: Request, prefix: bytes) -> Path:
    destination = request.fields.get(b"destination")
    if not destination:
        raise BadRequest(
            f"{request.method} needs a Destination: the URL of what is made."
        )
    if b"#" in destination or b"?" in destination:
        raise BadRequest("The Destination has to be a URL without a query or fragment.")
    authority = authority_of(destination)
    host = request.host or b""
    if authority is not None and _plain_host(authority) != _plain_host(host):
        raise ForeignDestination(
            f"The Destination is at {authority.decode('latin-1')!r}, and this request"
            f" came to {host.decode('latin-1')!r}: kvd copies only within itself. A"
            " proxy in between has to pass on the Host of the client."
        )
    return path_of(destination, prefix)


def _plain_host(authority: bytes) -> bytes:
    return _DEFAULT_PORT.sub(b"", authority.lower())


dialect = WebDAV()
