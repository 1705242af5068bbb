"""
Shortcuts that tell what they did.
"""

from __future__ import annotations

from kvd.http.fast_path import SERVED, Report, Shortcuts


class WatchedShortcuts:
    """
    Counts what goes which way.
    """

    def __init__(self, shortcuts: Shortcuts) -> None:
        self._shortcuts = shortcuts
        self.served = 0
        self.left = 0
        """Reads, not requests."""

    def serve(self, socket: int) -> int | bytes:
        """
        See `Shortcuts`.
        """
        outcome = self._shortcuts.serve(socket)
        if isinstance(outcome, bytes):
            self.left += bool(outcome)
        else:
            self.served += outcome & SERVED
        return outcome

    def take_unsent(self) -> bytes:
        """
        See `Shortcuts`.
        """
        return self._shortcuts.take_unsent()

    def report(self) -> Report:
        """
        See `Shortcuts`.
        """
        return self._shortcuts.report()
