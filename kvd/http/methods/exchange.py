"""
Requests that ask the store for several things, and whose reply the dialect makes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from twisted.internet.defer import Deferred

from kvd.errors import ValueTooLarge
from kvd.http.request import RequestHandler
from kvd.http.source import Source
from kvd.model.operations import Exchange
from kvd.model.replies import Reply


class ExchangeHandler(RequestHandler):
    """
    Collects a short body, and sends what the dialect answers to it.
    """

    _operation: Exchange
    _body = b""

    def begin(self) -> None:
        self._check_size(self._request.length or 0)
        self.proceed()

    def chunk(self, data: bytes) -> None:
        # `received` counts what has come.
        self._check_size(self.received)
        self._body += data

    def _check_size(self, size: int) -> None:
        limit = self._operation.body_bytes
        if size > limit:
            raise ValueTooLarge(
                f"The body of this request may have at most {limit} bytes."
            )

    def end(self) -> None:
        values = self.values()
        body, self._body = self._body, b""
        answer = self._operation.answer(values, body)
        self.when(Deferred.fromCoroutine(answer), self._answered, undo=_close)

    def _answered(self, reply: Reply) -> None:
        if isinstance(reply.body, bytes):
            self.send(reply)
        else:
            self.stream(reply.status, [*reply.fields], None, Generated(reply.body))


def _close(reply: Reply) -> None:
    if not isinstance(reply.body, bytes):
        Generated(reply.body).close()


class Generated(Source):
    """
    What a generator gives.
    """

    def __init__(self, pieces: AsyncGenerator[bytes, None]) -> None:
        self._pieces = pieces
        self._is_running = self._is_closed = False

    def next_chunk(self) -> Deferred[bytes]:
        """
        See `Source`.
        """
        return Deferred.fromCoroutine(self._next_chunk())

    async def _next_chunk(self) -> bytes:
        self._is_running = True
        try:
            async for piece in self._pieces:
                if piece:
                    return piece
            return b""
        finally:
            self._is_running = False
            if self._is_closed:
                await self._pieces.aclose()

    def close(self) -> None:
        """
        See `Source`.
        """
        self._is_closed = True
        if not self._is_running:
            # It waits for nothing when it ends.
            Deferred.fromCoroutine(self._pieces.aclose())
