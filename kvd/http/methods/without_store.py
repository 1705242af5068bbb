"""
Replies that do not need the store.
"""

from __future__ import annotations

from kvd.http.dialects.choice import Mount
from kvd.http.lifecycle import ConnectionLifecycle
from kvd.http.request import RequestHandler
from kvd.model.operations import FixedReply
from kvd.model.requests import Request


class FixedReplyHandler(RequestHandler):
    """
    Sends a reply that depends only on the head.
    """

    _operation: FixedReply

    def begin(self) -> None:
        self.proceed()

    def end(self) -> None:
        self.reply(self._operation.status, list(self._operation.fields))


class RefusalHandler(RequestHandler):
    """
    Refuses a request whose head was read, but asks for nothing that kvd does.
    """

    def __init__(
        self,
        connection: ConnectionLifecycle,
        request: Request,
        mount: Mount | None,
        error: Exception,
    ) -> None:
        super().__init__(connection, request, mount)
        self._error: Exception | None = error

    def begin(self) -> None:
        error, self._error = self._error, None
        assert error is not None
        self.fail(error)
