"""
The daemon's end of the control socket.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

from twisted.web.http import Request
from twisted.web.resource import Resource

from kvd.control.answering import Answering, QuietSite


class StatusResource(Resource):
    """
    ``GET /status``.
    """

    isLeaf = True

    def __init__(self, status: Callable[[], dict[str, Any]]) -> None:
        super().__init__()
        self._status = status

    def render_GET(self, request: Request) -> bytes:
        request.setHeader("Content-Type", "application/json")
        return json.dumps(self._status()).encode("ascii") + b"\n"


class ControlSite:
    """
    Answers on a control socket.
    """

    def __init__(
        self,
        listener: socket.socket,
        status: Callable[[], dict[str, Any]],
        reactor: Any,
    ) -> None:
        """
        Args:
            listener: Listening and non-blocking; owned by this.
            status: What ``/status`` answers.
            reactor: Watches the socket.
        """
        root = Resource()
        root.putChild(b"status", StatusResource(status))
        site = QuietSite(root, reactor=reactor)
        self._answering = Answering(listener, site, reactor)

    def close(self) -> None:
        """
        Answer nobody new.
        """
        self._answering.close()
