"""
A fast path that counts what it does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kvd.http.fast_path import (
    SERVED,
    FastPath,
    Joined,
    Remainder,
    Report,
)


class WatchedFastPath:
    """
    Counts what goes which way.
    """

    def __init__(self, fast_path: FastPath) -> None:
        self._fast_path = fast_path
        self.served = 0
        self.idle = 0
        """Of those served, in one call of `serve_idle`."""
        self.new = 0
        """Of those served, with their connections, in one call of `serve_new` or
        `accept`."""
        self.left = 0
        """Reads, not requests."""

    def serve(self, socket: int) -> int | bytes:
        """
        See `FastPath`.
        """
        outcome = self._fast_path.serve(socket)
        self._count(outcome)
        return outcome

    def serve_secure(self, socket: int, secure: object) -> int | bytes:
        """
        See `FastPath`.
        """
        outcome = self._fast_path.serve_secure(socket, secure)
        self._count(outcome)
        return outcome

    def _count(self, outcome: int | bytes) -> None:
        if isinstance(outcome, bytes):
            self.left += bool(outcome)
        elif isinstance(outcome, int):
            self.served += outcome & SERVED

    def join(self, socket: int) -> Joined:
        """
        See `FastPath`.
        """
        return self._fast_path.join(socket)

    def serve_idle(self, socket: int) -> bool:
        """
        See `FastPath`.
        """
        served = self._fast_path.serve_idle(socket)
        self.served += served
        self.idle += served
        return served

    def serve_new(self, sockets: Sequence[int]) -> int:
        """
        See `FastPath`.
        """
        served = self._fast_path.serve_new(sockets)
        self.served += served
        self.new += served
        return served

    def accept(self, listener: int, count: int) -> tuple[int, int]:
        """
        See `FastPath`.
        """
        accepted, stays = self._fast_path.accept(listener, count)
        served = accepted - (stays != -1)
        self.served += served
        self.new += served
        return accepted, stays

    def take_batches(
        self,
        channel: int,
        credits: int,
        word: int,
        plain: bytes,
        adopt: Callable[[int, int], object],
        came: Callable[[bytes, list[int], int], object],
    ) -> None:
        """
        See `FastPath`.
        """
        self._fast_path.take_batches(channel, credits, word, plain, adopt, came)

    def leave_batches(self) -> None:
        """
        See `FastPath`.
        """
        self._fast_path.leave_batches()

    def take_unsent(self) -> bytes:
        """
        See `FastPath`.
        """
        return self._fast_path.take_unsent()

    def take_remainder(self) -> Remainder:
        """
        See `FastPath`.
        """
        return self._fast_path.take_remainder()

    def report(self) -> Report:
        """
        See `FastPath`.
        """
        return self._fast_path.report()
