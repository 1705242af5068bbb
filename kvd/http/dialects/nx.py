"""
The remote cache of Nx (its "self-hosted remote cache" API, version 1).

``PUT /v1/cache/HASH`` replies 200, or 409 where the key has a value: a cached result is
never replaced. ``GET`` replies 200 or 404. Refusals are plain text, which Nx prints.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from zope.interface import implementer

from kvd.http.dialects.paths import check_method, key_below
from kvd.http.wire.fields import conditions_of, metadata_of
from kvd.interfaces import IDialect
from kvd.model.conditions import EntityTags
from kvd.model.operations import Get, Operation, Put
from kvd.model.replies import Reply
from kvd.model.requests import Request

_METHODS: Final = "GET, HEAD, PUT"
_CREATED: Final = 201
_PRECONDITION_FAILED: Final = 412


@implementer(IDialect)
class Nx:
    """
    The dialect of Nx.
    """

    def understand(self, request: Request, prefix: bytes) -> Operation:
        method = request.method
        check_method(request, _METHODS, "Nx")
        key = key_below(request.target, prefix, (b"v1", b"cache"), "/v1/cache/HASH")
        conditions = conditions_of(request)
        if method == "PUT":
            absent = replace(conditions, if_none_match=EntityTags(any=True))
            return Put(key, absent, metadata_of(request))
        return Get(key, conditions, body=method == "GET")

    def render(
        self,
        reply: Reply,
        request: Request,
        operation: Operation | None,
        writing: bool,
    ) -> Reply:
        if reply.error is not None:
            sentence = reply.error.sentence
            if reply.status == _PRECONDITION_FAILED and isinstance(operation, Put):
                reply.status = 409
                sentence = "The cache has a result of this hash: it is not replaced."
            others = [each for each in reply.fields if each[0] != "Content-Type"]
            plain = ("Content-Type", "text/plain; charset=utf-8")
            reply.fields = [plain, *others]
            reply.body = f"{sentence}\n".encode()
        elif reply.status == _CREATED:
            reply.status = 200
        return reply


dialect = Nx()
