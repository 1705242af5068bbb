"""
The remote cache of Turborepo (Vercel's Remote Cache API, version 8).

An artifact of a team is a value of its own: ``/v8/artifacts/HASH?slug=TEAM`` is the key
``v8/artifacts/TEAM/HASH``, for which the rights file can give rights. Without a team it
is ``v8/artifacts/HASH``, as it was stored without this dialect. ``x-artifact-duration``
and ``x-artifact-tag`` are kept and given back.
"""

from __future__ import annotations

from functools import partial
from typing import Final
from urllib.parse import unquote_to_bytes

from zope.interface import implementer

from kvd.errors import BadRequest
from kvd.http.dialects.json_replies import as_json, json_reply, read_object
from kvd.http.dialects.paths import check_method, key_of, query_of, segments_below
from kvd.http.wire.fields import conditions_of, metadata_of
from kvd.http.wire.kept import KeptFields
from kvd.interfaces import IDialect
from kvd.model.exchanges import Values
from kvd.model.operations import Exchange, Get, Operation, Put
from kvd.model.replies import Reply
from kvd.model.requests import Request

DURATION: Final = "x-artifact-duration"
TAG: Final = "x-artifact-tag"

MAX_HASHES: Final = 1000
"""
How many artifacts one request may ask about.
"""

_METHODS: Final = "GET, HEAD, PUT, POST"
_FOLDER: Final = [b"v8", b"artifacts"]
_KEPT: Final = KeptFields((DURATION, TAG))
_CODES: Final = {401: "unauthorized", 403: "forbidden", 404: "not_found"}
_STORED: Final = (201, 204)


@implementer(IDialect)
class Turborepo:
    """
    The dialect of Turborepo.
    """

    def understand(self, request: Request, prefix: bytes) -> Operation:
        method = request.method
        check_method(request, _METHODS, "Turborepo")
        segments = segments_below(request.target, prefix)
        if segments[:2] != _FOLDER or len(segments) not in (2, 3) or not segments[-1]:
            raise BadRequest(
                "In this dialect a path has the form /v8/artifacts/HASH,"
                " /v8/artifacts/status or /v8/artifacts/events."
            )
        team = _team(request.target)
        if method == "POST":
            if segments[2:] == [b"events"]:
                return Exchange(_done)
            if len(segments) == 2:
                return Exchange(partial(_describe, prefix=prefix, team=team))
        if segments[2:] == [b"status"] and method in ("GET", "HEAD"):
            return Exchange(_enabled)
        if len(segments) == 2 or method == "POST":
            raise BadRequest("An artifact has a hash, and PUT stores it.")
        key = key_of(prefix, [*_FOLDER, *team, segments[2]])
        conditions = conditions_of(request)
        if method == "PUT":
            return _KEPT.add(Put(key, conditions, metadata_of(request)), request)
        return Get(key, conditions, body=method == "GET")

    def render(
        self,
        reply: Reply,
        request: Request,
        operation: Operation | None,
        writing: bool,
    ) -> Reply:
        if reply.error is not None:
            code = _CODES.get(reply.status, "bad_request")
            told = {"code": code, "message": reply.error.sentence}
            return as_json(reply, {"error": told})
        if isinstance(operation, Put) and reply.status in _STORED:
            url = request.target.partition(b"?")[0].decode("ascii")
            stored = json_reply(202, {"urls": [url]})
            stored.fields = [*reply.fields, *stored.fields]
            return stored
        return reply


def _team(target: bytes) -> list[bytes]:
    query = query_of(target)
    team = query.get("slug") or query.get("teamId") or b""
    return [unquote_to_bytes(team)] if team else []


async def _enabled(values: Values, body: bytes) -> Reply:
    """
    Whether there is a cache.
    """
    return json_reply(200, {"status": "enabled"})


async def _done(values: Values, body: bytes) -> Reply:
    """
    What was hit and what missed; kvd has figures of its own.
    """
    return json_reply(200, {})


async def _describe(
    values: Values, body: bytes, prefix: bytes, team: list[bytes]
) -> Reply:
    """
    Describe several artifacts.
    """
    hashes = read_object(body).get("hashes")
    if not isinstance(hashes, list) or len(hashes) > MAX_HASHES:
        raise BadRequest(f"hashes has to be a list of at most {MAX_HASHES} hashes.")
    found: dict[str, object] = {}
    for name in hashes:
        if not isinstance(name, str):
            raise BadRequest("A hash has to be a string.")
        info = await values.stat(key_of(prefix, [*_FOLDER, *team, name.encode()]))
        found[name] = None
        if info is not None:
            duration = info.metadata.get(DURATION, "0")
            described: dict[str, object] = {
                "size": info.size,
                "taskDurationMs": int(duration) if duration.isdecimal() else 0,
            }
            if TAG in info.metadata:
                described["tag"] = info.metadata[TAG]
            found[name] = described
    return json_reply(200, found)


dialect = Turborepo()
