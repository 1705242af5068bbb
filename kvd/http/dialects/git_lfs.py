"""
The batch API of git-lfs, with the ``basic`` transfer.

``POST PATH/objects/batch`` asks where objects are; the answer names, for each, a URL of
this same dialect, ``PATH/objects/OID``. The name is the SHA-256 of the object, which
kvd verifies.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any, Final

from zope.interface import implementer

from kvd.errors import BadRequest, KeyAbsent
from kvd.http.dialects.json_replies import as_json, json_reply, read_object
from kvd.http.dialects.paths import check_method, key_of, segments_below
from kvd.http.wire.fields import conditions_of
from kvd.interfaces import IDialect
from kvd.model.digests import Digest
from kvd.model.exchanges import Values
from kvd.model.keys import Key, escape
from kvd.model.operations import Exchange, Get, Operation, Put
from kvd.model.replies import Reply
from kvd.model.requests import Request

KIND: Final = "application/vnd.git-lfs+json"

MAX_OBJECTS: Final = 1000
"""
How many objects one request may ask about; git-lfs asks about 100.
"""

_METHODS: Final = "GET, HEAD, PUT, POST"
_OID: Final = re.compile(r"[0-9a-f]{64}")
_STORED: Final = (201, 204)
_UNAUTHORIZED: Final = 401
_CHALLENGE: Final = ("LFS-Authenticate", 'Basic realm="kvd"')


@implementer(IDialect)
class GitLFS:
    """
    The dialect of git-lfs.
    """

    def understand(self, request: Request, prefix: bytes) -> Operation:
        check_method(request, _METHODS, "git-lfs")
        method = request.method
        segments = segments_below(request.target, prefix)
        is_object = segments[-2:-1] == [b"objects"]
        if is_object and segments[-1] == b"batch" and method == "POST":
            folder = key_of(prefix, segments[:-1])
            proto = request.fields.get(b"x-forwarded-proto", b"").decode("latin-1")
            host = (request.host or b"").decode("latin-1")
            answer = partial(_batch, folder=folder, host=host, proto=proto)
            return Exchange(answer)
        if segments[-1] == b"locks" or segments[-2:-1] == [b"locks"]:
            # Its client goes on without it then.
            raise KeyAbsent("kvd does not serve the API for locks of git-lfs.")
        oid = segments[-1].decode("latin-1")
        if not is_object or not _OID.fullmatch(oid) or method == "POST":
            raise BadRequest(
                "In this dialect a path ends with objects/batch, for POST, or with"
                " objects and the SHA-256 of an object."
            )
        key = key_of(prefix, segments)
        if method == "PUT":
            digest = Digest("", "sha256", bytes.fromhex(oid), is_key=True)
            return Put(key, digests=(digest,))
        return Get(key, conditions_of(request), body=method == "GET")

    def render(
        self,
        reply: Reply,
        request: Request,
        operation: Operation | None,
        writing: bool,
    ) -> Reply:
        if reply.error is not None:
            if reply.status == _UNAUTHORIZED:
                reply.fields = [*reply.fields, _CHALLENGE]
            return as_json(reply, {"message": reply.error.sentence}, KIND)
        if isinstance(operation, Put) and reply.status in _STORED:
            reply.status = 200
        return reply


async def _batch(
    values: Values, body: bytes, folder: Key, host: str, proto: str
) -> Reply:
    """
    Where objects can be had, or be put.
    """
    asked = read_object(body)
    operation, objects = asked.get("operation"), asked.get("objects")
    if operation not in ("upload", "download"):
        raise BadRequest("operation has to be upload or download.")
    if not isinstance(objects, list) or len(objects) > MAX_OBJECTS:
        raise BadRequest(f"objects has to be a list of at most {MAX_OBJECTS} objects.")
    if asked.get("hash_algo", "sha256") != "sha256":
        raise BadRequest("hash_algo has to be sha256.")
    transfers = asked.get("transfers") or ["basic"]
    if not isinstance(transfers, list) or "basic" not in transfers:
        raise BadRequest("kvd has the transfer basic, and no other.")
    scheme = proto if proto in ("http", "https") else values.scheme
    base = f"{scheme}://{host}/{escape(folder)}/"
    is_upload = operation == "upload"
    answers = [
        await _object(values, folder, base, each, is_upload=is_upload)
        for each in objects
    ]
    return json_reply(200, {"transfer": "basic", "objects": answers}, KIND)


async def _object(
    values: Values, folder: Key, base: str, asked: object, *, is_upload: bool
) -> dict[str, Any]:
    oid = asked.get("oid") if isinstance(asked, dict) else None
    size = asked.get("size") if isinstance(asked, dict) else None
    if not isinstance(oid, str) or not _OID.fullmatch(oid) or type(size) is not int:
        raise BadRequest("An object has an oid, which is a SHA-256, and a size.")
    info = await values.stat(Key(folder + b"/" + oid.encode("ascii")))
    answer: dict[str, Any] = {"oid": oid, "size": size}
    if is_upload:
        # What is there need not be sent again.
        if info is None or info.size != size:
            answer["actions"] = {"upload": {"href": base + oid}}
    elif info is None:
        answer["error"] = {"code": 404, "message": "kvd does not have this object."}
    else:
        answer["size"] = info.size
        answer["actions"] = {"download": {"href": base + oid}}
    return answer


dialect = GitLFS()
