"""
FastPath that tell what they did.
"""

from __future__ import annotations

from kvd.http.fast_path import SERVED, FastPath, Report


class WatchedFastPath:
    """
    Counts what goes which way.
    """

    def __init__(self, fast_path: FastPath) -> None:
        self._fast_path = fast_path
        self.served = 0
        self.left = 0
        """Reads, not requests."""

    def serve(self, socket: int) -> int | bytes:
        """
        See `FastPath`.
        """
        outcome = self._fast_path.serve(socket)
        if isinstance(outcome, bytes):
            self.left += bool(outcome)
        else:
            self.served += outcome & SERVED
        return outcome

    def take_unsent(self) -> bytes:
        """
        See `FastPath`.
        """
        return self._fast_path.take_unsent()

    def report(self) -> Report:
        """
        See `FastPath`.
        """
        return self._fast_path.report()
