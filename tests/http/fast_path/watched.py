"""
FastPath that tell what they did.
"""

from __future__ import annotations

from kvd.http.fast_path import SERVED, FastPath, Report


class WatchedFastPath:
    """
    Counts what goes which way.
    """

    def __init__(self, shortcuts: FastPath) -> None:
        self._shortcuts = shortcuts
        self.served = 0
        self.left = 0
        """Reads, not requests."""

    def serve(self, socket: int) -> int | bytes:
        """
        See `FastPath`.
        """
        outcome = self._shortcuts.serve(socket)
        if isinstance(outcome, bytes):
            self.left += bool(outcome)
        else:
            self.served += outcome & SERVED
        return outcome

    def take_unsent(self) -> bytes:
        """
        See `FastPath`.
        """
        return self._shortcuts.take_unsent()

    def report(self) -> Report:
        """
        See `FastPath`.
        """
        return self._shortcuts.report()
