"""
A fast path that counts what it does.
"""

from __future__ import annotations

import os
import socket as sockets
import stat
from collections.abc import Callable, Sequence
from typing import Any

from kvd.http.fast_path import (
    COMMITS,
    NOTHING,
    SERVED,
    Commit,
    FastPath,
    Gated,
    Joined,
    Remainder,
    Report,
    SharedPort,
)
from kvd.store.sync import Found


class WatchedFastPath:
    """
    Counts what goes which way.
    """

    def __init__(self, fast_path: FastPath) -> None:
        self._fast_path = fast_path
        self.served = 0
        self.idle = 0
        """Of those served, in one call of `serve_idle`; a body that comes in pieces has
        several."""
        self.new = 0
        """Of those served, with their connections, in one call of `serve_new` or
        `accept`."""
        self.behind = 0
        """Reads that began within a body whose head had come before."""
        self.left = 0
        """Reads, not requests."""

    def serve(self, socket: int) -> int | bytes:
        """
        See `FastPath`.
        """
        begins = _begins_with_a_head(socket)
        outcome = self._fast_path.serve(socket)
        self._count(outcome)
        self.behind += not begins and outcome in (NOTHING, SERVED)
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
            self.served += bool(outcome & (SERVED | COMMITS))

    def join(self, socket: int) -> Joined:
        """
        See `FastPath`.
        """
        return self._fast_path.join(socket)

    def serve_idle(self, socket: int) -> bool:
        """
        See `FastPath`.
        """
        begins = _begins_with_a_head(socket)
        served = self._fast_path.serve_idle(socket)
        self.behind += not begins and served
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

    def accept(
        self, listener: int, count: int, stays: int
    ) -> tuple[int, int, int, Any]:
        """
        See `FastPath`.
        """
        accepted, stay, left, peer = self._fast_path.accept(listener, count, stays)
        served = accepted - stay
        self.served += served
        self.new += served
        return accepted, stay, left, peer

    def share(self, listener: int, port: SharedPort, server: Gated) -> None:
        """
        See `FastPath`.
        """
        self._fast_path.share(listener, port, server)

    def unshare(self, listener: int) -> None:
        """
        See `FastPath`.
        """
        self._fast_path.unshare(listener)

    def hold(
        self, poller: int, most_open: int, adopt: Callable[[int, float, Any], object]
    ) -> None:
        """
        See `FastPath`.
        """
        self._fast_path.hold(poller, most_open, adopt)

    def forget_templates(self) -> None:
        """
        See `FastPath`.
        """
        self._fast_path.forget_templates()

    def adopt_held(self, before: float) -> None:
        """
        See `FastPath`.
        """
        self._fast_path.adopt_held(before)

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

    def send_at_most(self, size: int) -> None:
        """
        See `FastPath`.
        """
        self._fast_path.send_at_most(size)

    def sync_event(self) -> int:
        """
        See `FastPath`.
        """
        return self._fast_path.sync_event()

    def take_commit(self, connection: Any) -> Commit:
        """
        See `FastPath`.
        """
        return self._fast_path.take_commit(connection)

    def reply_all(self, commits: list[Commit]) -> list[Commit]:
        """
        See `FastPath`.
        """
        return self._fast_path.reply_all(commits)

    def hand_over(self) -> None:
        """
        See `FastPath`.
        """
        self._fast_path.hand_over()

    def publish_synced(
        self,
    ) -> tuple[
        dict[bytes, list[Commit]],
        list[Commit],
        list[tuple[Callable[[Found], None], Found]],
    ]:
        """
        See `FastPath`.
        """
        return self._fast_path.publish_synced()

    def sync_folders_later(
        self, path: bytes, first: int, done: Callable[[Found], None]
    ) -> bool:
        """
        See `FastPath`.
        """
        return self._fast_path.sync_folders_later(path, first, done)

    def reply_to(self, commit: Commit, socket: int) -> int:
        """
        See `FastPath`.
        """
        return self._fast_path.reply_to(commit, socket)

    def report_to(
        self, requests: bool, connections: bool, come: Callable[[bool], object]
    ) -> None:
        """
        See `FastPath`.
        """
        self._fast_path.report_to(requests, connections, come)

    def take_reports(self) -> tuple[list[Report], list[tuple[Any, ...]]]:
        """
        See `FastPath`.
        """
        return self._fast_path.take_reports()


def _begins_with_a_head(socket: int) -> bool:
    """
    Whether the next bytes look like a request, or there are none.
    """
    if not stat.S_ISSOCK(os.fstat(socket).st_mode):
        return True  # Such as the event of syncs.
    try:
        with sockets.socket(fileno=os.dup(socket)) as duplicate:
            data = duplicate.recv(5, sockets.MSG_PEEK | sockets.MSG_DONTWAIT)
    except OSError:
        return True
    return not data or data.startswith((b"GET /", b"PUT /", b"HEAD "))
