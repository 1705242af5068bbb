"""
The replies of the file server of 2017, whose load the article describes.

It is for comparisons. Statuses and paths are those of that server, while publication
stays atomic. That server knew no conditions, ranges or listings.

- Empty segments do not count: ``//k/`` is ``k``. Keys have one segment, behind the
  prefix that the dialect was chosen for.
- PUT: without a key, or with several segments, 204 and nothing is stored;
  without a length, or with length 0, 304 and the key holds an empty value;
  500 where the file cannot be opened, 507 where it cannot be written, else 200.
- GET: 200 or 404. DELETE: 200, 404 or 500. Any other method: 404.
"""

from __future__ import annotations

from zope.interface import implementer

from kvd.errors import KeyAbsent
from kvd.http.wire.targets import key_of_segments, path_segments
from kvd.interfaces import IDialect
from kvd.model.operations import Delete, FixedReply, Get, Operation, Put
from kvd.model.replies import Reply
from kvd.model.requests import Request


@implementer(IDialect)
class Classic:
    """
    The dialect of the article.
    """

    def understand(self, request: Request, prefix: bytes) -> Operation:
        method = request.method
        if method not in ("GET", "PUT", "DELETE"):
            raise KeyAbsent(f"This dialect has GET, PUT and DELETE, not {method}.")
        folders = prefix.split(b"/")[:-1]
        segments = path_segments(request.target)[len(folders) :]
        own = [segment for segment in segments if segment]
        if len(own) != 1:
            if method == "PUT":
                return FixedReply(204)
            raise KeyAbsent("In this dialect a key has exactly one segment.")
        key = key_of_segments([*folders, *own])
        if method == "PUT":
            return Put(key, empty=not request.length)
        if method == "DELETE":
            return Delete(key)
        return Get(key, ranges=False)

    def render(
        self,
        reply: Reply,
        request: Request,
        operation: Operation | None,
        writing: bool,
    ) -> Reply:
        reply.status = _status_of(reply.status, operation, writing)
        return reply


def _status_of(status: int, operation: Operation | None, writing: bool) -> int:
    if isinstance(operation, Put):
        if status in (201, 204):
            return 304 if operation.empty else 200
        if status >= 400:
            return 507 if writing else 500
    if isinstance(operation, Delete):
        return {204: 200, 404: 404}.get(status, 500)
    return status


dialect = Classic()
