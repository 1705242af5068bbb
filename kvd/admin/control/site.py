"""
The server of the control socket.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from kvd.admin.answering import Answering, BoundedRequest, QuietSite
from kvd.errors import ChangeImpossible, OperatorError

MAX_BODY_BYTES: Final = 4096

_log = Logger()


class StatusResource(Resource):
    """
    ``GET /status``.
    """

    isLeaf = True

    def __init__(self, status: Callable[[], dict[str, Any]]) -> None:
        super().__init__()
        self._status = status

    def render_GET(self, request: Request) -> bytes:
        return _json(request, self._status())


Change = Callable[[dict[str, Any]], Deferred[None]]
"""
Makes a change with the JSON object of a ``POST``.
"""


class ChangeResource(Resource):
    """
    ``POST`` of a JSON object with the arguments of a change. The reply is sent when the
    change is done: 200, or 409 with the reason why it cannot be made.
    """

    isLeaf = True

    def __init__(self, change: Change) -> None:
        super().__init__()
        self._change = change

    def render_POST(self, request: Request) -> bytes | int:
        gone: list[Failure] = []
        request.notifyFinish().addErrback(lambda failure: gone.append(failure))

        def done(result: Failure | None) -> None:
            answer = {}
            if isinstance(result, Failure):
                answer["error"] = _sentence_of(result)
                request.setResponseCode(409 if result.check(OperatorError) else 500)
            # The client may have disconnected; the change is made all the same.
            if not gone:
                request.write(_json(request, answer))
                request.finish()

        assert request.content is not None
        maybeDeferred(self._ask, request.content.read(MAX_BODY_BYTES)).addBoth(done)
        return NOT_DONE_YET

    def _ask(self, body: bytes) -> Deferred[None]:
        try:
            arguments = json.loads(body or b"{}")
        except (ValueError, RecursionError) as error:
            raise ChangeImpossible("the body is not JSON") from error
        if not isinstance(arguments, dict):
            raise ChangeImpossible("the body is not a JSON object")
        return self._change(arguments)


def _sentence_of(failure: Failure) -> str:
    if failure.check(OperatorError):
        assert isinstance(failure.value, OperatorError)
        return failure.value.sentence
    _log.failure("a change failed", failure=failure)
    return "kvd made a mistake, which its log describes"


def _json(request: Request, answer: dict[str, Any]) -> bytes:
    body = json.dumps(answer).encode("ascii") + b"\n"
    request.setHeader("Content-Type", "application/json")
    request.setHeader("Content-Length", str(len(body)))
    return body


class ControlSite:
    """
    Serves a control socket.
    """

    def __init__(
        self,
        listener: socket.socket,
        status: Callable[[], dict[str, Any]],
        changes: Mapping[str, Change],
        reactor: Any,
    ) -> None:
        """
        Args:
            listener: Listening and non-blocking; this object closes it.
            status: Returns the reply of ``/status``.
            changes: The changes by the names in their paths.
            reactor: Serves the socket.
        """
        root = Resource()
        root.putChild(b"status", StatusResource(status))
        for name, change in changes.items():
            root.putChild(name.encode("ascii"), ChangeResource(change))
        site = QuietSite(root, requestFactory=BoundedRequest, reactor=reactor)
        self.answering = Answering(listener, site, reactor)

    def close(self) -> None:
        """
        Accept no further connection.
        """
        self.answering.close()
