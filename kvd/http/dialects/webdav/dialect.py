"""
Understands the requests of WebDAV.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Final

from zope.interface import implementer

from kvd.errors import (
    BadRequest,
    Forbidden,
    ForeignDestination,
    MethodNotAllowed,
    PreconditionFailed,
)
from kvd.http.dialects.webdav import answers
from kvd.http.dialects.webdav.answers import METHODS
from kvd.http.dialects.webdav.resources import Path, path_of
from kvd.http.wire.digests import digests_of
from kvd.http.wire.fields import conditions_of, metadata_of
from kvd.http.wire.kept import CLIENT_TIME, KeptFields
from kvd.http.wire.targets import authority_of
from kvd.http.wire.unsupported import refuse_unsupported
from kvd.interfaces import IDialect
from kvd.model.keys import Key
from kvd.model.operations import (
    Delete,
    Exchange,
    FixedReply,
    Get,
    List,
    Operation,
    Put,
)
from kvd.model.replies import Reply
from kvd.model.requests import Request

_CLIENT_TIME: Final = KeptFields((CLIENT_TIME,))

# The names of Windows' and davfs2's checks; no lock is ever offered.
_OFFERED: Final = (("DAV", "1"), ("MS-Author-Via", "DAV"), ("Allow", METHODS))

_DEFAULT_PORT: Final = re.compile(rb":(?:80|443)?$")

_NO_BODY: Final = 64 * 1024
"""
So much of a body without a meaning is read past.
"""


@implementer(IDialect)
class WebDAV:
    """
    The dialect of RFC 4918, class 1.
    """

    def understand(self, request: Request, prefix: bytes) -> Operation:
        method = request.method
        if method == "OPTIONS":
            return FixedReply(200, _OFFERED)
        if method not in METHODS.split(", "):
            raise MethodNotAllowed(
                f"{method} is not allowed here; {METHODS} are. kvd offers no locks"
                " (class 1).",
                METHODS,
            )
        if b"if" in request.fields:
            raise PreconditionFailed(
                "If names locks or states, and kvd has no locks: use If-Match and"
                " If-None-Match."
            )
        path = path_of(request.target, prefix)
        if method in ("GET", "HEAD"):
            return _get(request, path)
        if method == "PUT":
            return _put(request, path)
        if method == "DELETE":
            needs = (Delete(Key(path.key)),)
            conditions = conditions_of(request)
            answer = partial(answers.delete, path=path, conditions=conditions)
            return Exchange(answer, needs, _NO_BODY)
        if method == "PROPFIND":
            return _propfind(request, path)
        if method == "PROPPATCH":
            needs_put = (Put(Key(path.key)),)
            return Exchange(partial(answers.proppatch, path=path), needs_put)
        if method == "MKCOL":
            needs_put = (Put(Key(path.key)),)
            return Exchange(partial(answers.mkcol, path=path), needs_put)
        return _transfer(request, path, prefix, moves=method == "MOVE")

    def render(
        self,
        reply: Reply,
        request: Request,
        operation: Operation | None,
        writing: bool,
    ) -> Reply:
        return reply


def _get(request: Request, path: Path) -> Operation:
    with_body = request.method == "GET"
    if path.is_collection:
        return List(path.prefix, body=with_body)
    return Get(Key(path.key), conditions_of(request), body=with_body)


def _put(request: Request, path: Path) -> Put:
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
    put = Put(
        Key(path.key),
        conditions_of(request),
        metadata_of(request),
        digests_of(request),
        check=partial(answers.check_put, path=path),
    )
    return _CLIENT_TIME.add(put, request)


def _propfind(request: Request, path: Path) -> Exchange:
    depth = request.fields.get(b"depth", b"infinity").lower()
    needs: tuple[Get | List, ...] = (List(path.prefix),)
    if not path.is_collection:
        needs = (Get(Key(path.key)), *needs)
    if depth == b"infinity":
        return Exchange(answers.refuse_infinity, needs)
    if depth not in (b"0", b"1"):
        raise BadRequest("Depth has to be 0, 1 or infinity.")
    with_members = depth == b"1"
    answer = partial(answers.propfind, path=path, with_members=with_members)
    return Exchange(answer, needs)


def _transfer(
    request: Request, source: Path, prefix: bytes, *, moves: bool
) -> Exchange:
    fields = request.fields
    overwrite = fields.get(b"overwrite", b"T").upper()
    if overwrite not in (b"T", b"F"):
        raise BadRequest("Overwrite has to be T or F.")
    depth = fields.get(b"depth", b"infinity").lower()
    if depth not in (b"0", b"infinity") or (moves and depth == b"0"):
        raise BadRequest(
            "Depth has to be infinity for MOVE, and 0 or infinity for COPY."
        )
    target = _destination(request, prefix)
    if source.is_root or target.is_root:
        raise Forbidden("The root collection can be neither copied nor replaced.")
    needs: list[Get | Put | Delete] = [Get(Key(source.key)), Put(Key(target.key))]
    if moves:
        needs.append(Delete(Key(source.key)))
    answer = partial(
        answers.transfer,
        source=source,
        target=target,
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
