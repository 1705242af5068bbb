"""
HTTP as in RFC 9110, with the choices that ``docs/wire.rst`` describes.
"""

from __future__ import annotations

from typing import Final

from zope.interface import implementer

from kvd.errors import BadRequest, MethodNotAllowed
from kvd.http.wire.digests import digests_of
from kvd.http.wire.fields import conditions_of, metadata_of
from kvd.http.wire.resumption import (
    PARTIAL_TYPE,
    append_of,
    identity_of,
    put_of,
)
from kvd.http.wire.targets import page_of, parse_target
from kvd.http.wire.unsupported import refuse_unsupported
from kvd.interfaces import IDialect
from kvd.model.operations import (
    CancelUpload,
    Delete,
    FixedReply,
    Get,
    List,
    LookAtUpload,
    Operation,
    Put,
)
from kvd.model.replies import Reply
from kvd.model.requests import Request

ALLOWED: Final = "GET, HEAD, PUT, DELETE, OPTIONS"

WEBDAV_METHODS: Final = frozenset(
    ("PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK")
)


@implementer(IDialect)
class Plain:
    """
    The default dialect.
    """

    def understand(self, request: Request, prefix: bytes) -> Operation:
        method = request.method
        resumes = method == "POST" and b"upload-complete" in request.fields
        if method not in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH") and (
            not resumes
        ):
            raise MethodNotAllowed(_not_allowed(method), ALLOWED)
        target = parse_target(request.target, method)
        if method == "OPTIONS":
            accepted = ("Accept-Patch", PARTIAL_TYPE)
            return FixedReply(204, (("Allow", ALLOWED), accepted))
        if target.key is None:
            if method in ("GET", "HEAD"):
                after, limit = page_of(target.query)
                assert target.prefix is not None
                return List(target.prefix, after, limit, body=method == "GET")
            raise BadRequest(
                f"{method} needs a key, and a key does not end with a slash: leave it"
                " out."
            )
        identity = identity_of(target.query)
        if method == "PATCH":
            if identity is None:
                raise MethodNotAllowed(
                    f"PATCH is for the URL of an upload; {ALLOWED} are for keys.",
                    ALLOWED,
                )
            return append_of(request, target.key, identity)
        if identity is not None and method == "HEAD":
            return LookAtUpload(target.key, identity)
        if identity is not None and method == "DELETE":
            return CancelUpload(target.key, identity)
        conditions = conditions_of(request)
        if method in ("PUT", "POST"):
            if b"content-range" in request.fields:
                # A part must not be taken for the whole (RFC 9110 section 14.4).
                raise BadRequest(
                    "PUT with Content-Range is not supported: send the whole value."
                )
            refuse_unsupported(request, target.query)
            metadata, digests = metadata_of(request), digests_of(request)
            put = Put(target.key, conditions, metadata, digests)
            return put_of(request, put)
        if method == "DELETE":
            return Delete(target.key, conditions)
        return Get(target.key, conditions, body=method == "GET")

    def render(
        self,
        reply: Reply,
        request: Request,
        operation: Operation | None,
        writing: bool,
    ) -> Reply:
        return reply


def _not_allowed(method: str) -> str:
    sentence = f"{method} is not allowed here; {ALLOWED} are."
    if method in WEBDAV_METHODS:
        sentence += (
            " It belongs to WebDAV, which kvd speaks below prefixes with the dialect"
            " webdav, such as --dialect /dav/=webdav."
        )
    return sentence


dialect = Plain()
