"""
The REST backend of restic, versions 1 and 2.

A repository is all keys below its path: ``config`` and the folders ``data``, ``index``,
``keys``, ``locks`` and ``snapshots``, whose names are the SHA-256 of what they hold.
kvd verifies that before it stores a file, and replaces none by another.

Where only appending is allowed, nothing but locks is removed: whoever has the
credentials of a backup cannot destroy older ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from typing import Final

from zope.interface import implementer

from kvd.errors import BadRequest, Forbidden, MethodNotAllowed
from kvd.http.dialects.paths import check_method, key_of, query_of, segments_below
from kvd.http.wire.fields import conditions_of
from kvd.http.wire.replies import NO_SNIFFING
from kvd.interfaces import IDialect
from kvd.model.digests import Digest
from kvd.model.exchanges import Values, first_slice
from kvd.model.operations import Delete, Exchange, Get, List, Operation, Put
from kvd.model.replies import Reply
from kvd.model.requests import Request
from kvd.model.values import ValueInfo

FOLDERS: Final = frozenset((b"data", b"index", b"keys", b"locks", b"snapshots"))

VERSION_2: Final = "application/vnd.x.restic.rest.v2"
VERSION_1: Final = "application/vnd.x.restic.rest.v1"

_METHODS: Final = "GET, HEAD, POST, DELETE"
_NAME: Final = re.compile(rb"[0-9a-f]{64}")
_STORED: Final = (201, 204)


@implementer(IDialect)
class Restic:
    """
    The dialect of restic.
    """

    def __init__(self, *, appends_only: bool) -> None:
        """
        Args:
            appends_only: Whether nothing but locks can be removed.
        """
        self._appends_only = appends_only

    def understand(self, request: Request, prefix: bytes) -> Operation:
        method = request.method
        check_method(request, _METHODS, "restic")
        segments = segments_below(request.target, prefix)
        inner = segments[-2] if len(segments) > 1 else b""
        last = segments[-1]
        if not last and inner in FOLDERS:
            if method != "GET":
                raise MethodNotAllowed("A folder can only be listed, by GET.", "GET")
            return _list(request, key_of(prefix, segments[:-1]) + b"/")
        if inner in FOLDERS:
            if not _NAME.fullmatch(last):
                raise BadRequest(
                    "The name of a file has to be the SHA-256 of what it holds: 64"
                    " hexadecimal digits in lower case."
                )
            digests: tuple[Digest, ...] = (
                Digest("", "sha256", bytes.fromhex(last.decode()), is_key=True),
            )
        elif last == b"config":
            digests = ()
        elif method == "POST" and query_of(request.target).get("create") == b"true":
            # The folders of a repository need not be made.
            repository = [segment for segment in segments if segment]
            config = key_of(prefix, [*repository, b"config"])
            return Exchange(_created, (Put(config),))
        else:
            raise BadRequest(
                "In this dialect a path ends with config, or with data, index, keys,"
                " locks or snapshots, and the name of a file."
            )
        key = key_of(prefix, segments)
        if method == "POST":
            return Put(key, digests=digests, once=True)
        if method == "DELETE":
            if self._appends_only and inner != b"locks":
                raise Forbidden(
                    "This repository is only appended to: nothing but locks can be"
                    " removed here."
                )
            return Delete(key)
        return Get(key, conditions_of(request), body=method == "GET")

    def render(
        self,
        reply: Reply,
        request: Request,
        operation: Operation | None,
        writing: bool,
    ) -> Reply:
        if reply.status in _STORED:
            reply.status = 200
        return reply


async def _created(values: Values, body: bytes) -> Reply:
    """
    A repository was made.
    """
    return Reply(200)


def _list(request: Request, prefix: bytes) -> Exchange:
    with_sizes = VERSION_2.encode() in request.fields.get(b"accept", b"")
    answer = partial(_names, prefix=prefix, with_sizes=with_sizes)
    return Exchange(answer, (List(prefix),))


async def _names(
    values: Values, body: bytes, prefix: bytes, *, with_sizes: bool
) -> Reply:
    """
    The names in a folder; in version 2, with their sizes.
    """
    listed = values.list(prefix)
    first = await first_slice(listed)
    kind = VERSION_2 if with_sizes else VERSION_1
    pieces = _array(prefix, first, listed, with_sizes=with_sizes)
    return Reply(200, [("Content-Type", kind), NO_SNIFFING], pieces)


async def _array(
    prefix: bytes,
    first: Sequence[ValueInfo],
    rest: AsyncGenerator[Sequence[ValueInfo], None],
    *,
    with_sizes: bool,
) -> AsyncGenerator[bytes, None]:
    def written(infos: Sequence[ValueInfo]) -> str:
        found: list[object] = []
        for info in infos:
            name = info.key[len(prefix) :]
            if _NAME.fullmatch(name):
                text = name.decode("ascii")
                found.append({"name": text, "size": info.size} if with_sizes else text)
        return ",".join(map(json.dumps, found))

    try:
        begun = written(first)
        yield b"[" + begun.encode("ascii")
        async for infos in rest:
            more = written(infos)
            if more:
                yield ("," * bool(begun) + more).encode("ascii")
                begun = more
        yield b"]\n"
    finally:
        await rest.aclose()


dialect = Restic(appends_only=False)
append_only = Restic(appends_only=True)
