"""
Shortcuts that tell what they did.
"""

from __future__ import annotations

from kvd.http.fast_path import SERVED, Joined, Report, Shortcuts


class WatchedShortcuts:
    """
    Counts what goes which way.
    """

    def __init__(self, shortcuts: Shortcuts) -> None:
        self._shortcuts = shortcuts
        self.served = 0
        self.idle = 0
        """Of those served, in one call of `serve_idle`."""
        self.new = 0
        """Of those served, with their connections, in one call of `serve_new`."""
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

    def join(self, socket: int) -> Joined:
        """
        See `Shortcuts`.
        """
        return self._shortcuts.join(socket)

    def serve_idle(self, socket: int) -> bool:
        """
        See `Shortcuts`.
        """
        served = self._shortcuts.serve_idle(socket)
        self.served += served
        self.idle += served
        return served

    def serve_new(self, socket: int, shared: bool) -> bool:
        """
        See `Shortcuts`.
        """
        served = self._shortcuts.serve_new(socket, shared)
        self.served += served
        self.new += served
        return served

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
