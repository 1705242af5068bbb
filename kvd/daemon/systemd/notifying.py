"""
Telling systemd how the daemon is (sd_notify(3)).

Each state is one datagram to the socket that ``NOTIFY_SOCKET`` names. Nobody is waited
for, and nothing depends on it: without systemd nothing is sent. Where systemd has no
room for a state at the moment, a thread waits for it.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping, Sequence
from typing import Any, Final

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from kvd.log.writer import Writer

SEND_SECONDS: Final = 1.0
"""
How long systemd may take to have room for a state. That it is busy must not cost it
the news that kvd serves; nor kvd its life.
"""

MOST_WAITING: Final = 8
"""
So many states wait for room; those that come then are left out.
"""


class Notifier:
    """
    Tells one service manager, or nobody.
    """

    _log = Logger()

    def __init__(self, place: str, watchdog_seconds: float | None = None) -> None:
        """
        Args:
            place: The path of its socket, or an abstract name that begins with
                ``@``. Empty: nobody is told.
            watchdog_seconds: It takes the daemon for hung if it hears nothing for so
                long; None: never.
        """
        self._place = place
        self._watchdog_seconds = watchdog_seconds
        self._watchdog: LoopingCall | None = None
        self._writer = Writer("systemd")
        # Kept: where clients take all descriptors that there are, the watchdog would
        # otherwise hear nothing, and end the daemon.
        self._socket: socket.socket | None = None
        if place:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def ready(self, status: str, reactor: Any) -> None:
        """
        kvd serves, for the first time or after it has read its settings again.

        Args:
            status: A short line for people.
            reactor: Whose turning proves that kvd is not hung.
        """
        self._tell("READY=1", f"STATUS={status}")
        if self._place and self._watchdog_seconds and self._watchdog is None:
            watchdog = self._watchdog = LoopingCall(self._alive)
            watchdog.clock = reactor
            # It ends with `close` only.
            watchdog.start(self._watchdog_seconds / 2)

    def reloading(self) -> None:
        """
        kvd reads its settings again. `ready` has to follow.
        """
        # CLOCK_MONOTONIC, by which systemd tells this reload from an earlier one.
        now = time.monotonic_ns() // 1000
        self._tell(
            "RELOADING=1", f"MONOTONIC_USEC={now}", "STATUS=reads its settings again"
        )

    def stopping(self) -> None:
        """
        kvd begins to end.
        """
        self._tell("STOPPING=1", "STATUS=ends when requests in flight have finished")

    def close(self) -> None:
        """
        Nobody watches from now on, and nothing more can be told. Further calls do
        nothing.
        """
        if self._watchdog is not None:
            self._watchdog.stop()
            self._watchdog = None
        sock, self._socket = self._socket, None
        if sock is None:
            return
        if self._writer.waiting:
            self._writer.call(sock.close)
            self._writer.end()
        else:
            sock.close()

    def _alive(self) -> None:
        # Behind what waits for room, it would say nothing new.
        if not self._writer.waiting:
            self._tell("WATCHDOG=1")

    def _tell(self, *state: str) -> None:
        sock = self._socket
        if sock is None:
            return
        waiting = self._writer.waiting
        if not waiting and self._send(sock, state, 0.0):
            return
        if waiting < MOST_WAITING:
            # In order, behind those that wait already.
            self._writer.call(lambda: self._send(sock, state, SEND_SECONDS))

    def _send(self, sock: socket.socket, state: Sequence[str], seconds: float) -> bool:
        """
        Send a state.

        Args:
            sock: Used by one thread at a time.
            state: Its lines.
            seconds: How long to wait for room.

        Returns:
            Whether it was sent, or never can be.
        """
        place = os.fsencode(self._place)
        if place.startswith(b"@"):
            place = b"\0" + place[1:]
        try:
            sock.settimeout(seconds)
            sock.sendto("\n".join(state).encode("utf-8", "replace"), place)
        except OSError as error:
            if isinstance(error, BlockingIOError):
                return False
            # It is told for its own good: kvd serves just as well.
            self._log.debug(
                "systemd could not be told {state}: {error}",
                state=state[0],
                error=str(error),
            )
        return True


def take_notifier(environ: MutableMapping[str, str]) -> Notifier:
    """
    Whom this process has to tell, for no child to do it in its stead.

    Args:
        environ: Of the process; the variables are removed.
    """
    place = environ.pop("NOTIFY_SOCKET", "")
    microseconds = environ.pop("WATCHDOG_USEC", "")
    watched = environ.pop("WATCHDOG_PID", "") in ("", str(os.getpid()))
    if not (watched and microseconds.isdecimal()):
        return Notifier(place)
    return Notifier(place, int(microseconds) / 1_000_000)
