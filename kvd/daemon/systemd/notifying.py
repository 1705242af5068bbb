"""
Notifications of the daemon's state to systemd (sd_notify(3)).

Each state is one datagram to the socket that ``NOTIFY_SOCKET`` names. The daemon does
not wait for systemd, and without systemd it sends nothing. If systemd has no room for a
state at the moment, a thread waits for it.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping, Sequence
from contextlib import suppress
from typing import Any, Final

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from kvd.errors import NoThread
from kvd.log.writer import Writer

SEND_SECONDS: Final = 1.0
"""
How long to wait until systemd has room for a state. If systemd is busy, it must still
learn that kvd serves, and must not end kvd.
"""

MOST_WAITING: Final = 8
"""
The most states that wait for room; further ones are dropped.
"""


class Notifier:
    """
    Notifies one service manager, or none.
    """

    _log = Logger()

    def __init__(self, address: str, watchdog_seconds: float | None = None) -> None:
        """
        Args:
            address: The path of its socket, or an abstract name that begins with ``@``;
                empty for none.
            watchdog_seconds: The service manager restarts a daemon that sends nothing
                for this time; None: never.
        """
        self._address = address
        self._watchdog_seconds = watchdog_seconds
        self._watchdog: LoopingCall | None = None
        self._writer = Writer("systemd")
        # Kept open: if clients use up all descriptors, the watchdog would otherwise get
        # no notification, and systemd would end the daemon.
        self._socket: socket.socket | None = None
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def ready(self, status: str, reactor: Any) -> None:
        """
        kvd serves, for the first time or after it has read its settings again.

        Args:
            status: A short line for people.
            reactor: The reactor; while it calls, kvd does not hang.
        """
        self._notify("READY=1", f"STATUS={status}")
        if self._address and self._watchdog_seconds and self._watchdog is None:
            watchdog = self._watchdog = LoopingCall(self._alive)
            watchdog.clock = reactor
            # It ends with `close` only.
            watchdog.start(self._watchdog_seconds / 2)

    def reloading(self) -> None:
        """
        kvd reads its settings again. `ready` has to follow.
        """
        # CLOCK_MONOTONIC, so that systemd does not take it for an earlier reload.
        now = time.monotonic_ns() // 1000
        self._notify(
            "RELOADING=1", f"MONOTONIC_USEC={now}", "STATUS=reads its settings again"
        )

    def stopping(self) -> None:
        """
        kvd begins to end.
        """
        self._notify("STOPPING=1", "STATUS=ends when requests in flight have finished")

    @property
    def environment(self) -> dict[str, str]:
        """
        The variables by which another process notifies the same service manager; empty
        if there is none.
        """
        if not self._address:
            return {}
        variables = {"NOTIFY_SOCKET": self._address}
        if self._watchdog_seconds:
            microseconds = int(self._watchdog_seconds * 1_000_000)
            variables["WATCHDOG_USEC"] = str(microseconds)
        return variables

    def hand_on(self, pid: int) -> None:
        """
        Another process is the service's main process from now on, and this one notifies
        no more.

        Args:
            pid: Of the other process.
        """
        self._notify(f"MAINPID={pid}")
        self.close()

    def close(self) -> None:
        """
        Stop the watchdog and close the socket. Further calls do nothing.
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
        # While states wait for room, another one would say nothing new.
        if not self._writer.waiting:
            self._notify("WATCHDOG=1")

    def _notify(self, *state: str) -> None:
        sock = self._socket
        if sock is None:
            return
        waiting = self._writer.waiting
        if not waiting and self._send(sock, state, 0.0):
            return
        if waiting < MOST_WAITING:
            # In order, after those that wait already. Without a thread it is dropped,
            # and the watchdog's next one tries again.
            with suppress(NoThread):
                self._writer.call(lambda: self._send(sock, state, SEND_SECONDS))

    def _send(self, sock: socket.socket, state: Sequence[str], seconds: float) -> bool:
        """
        Send a state.

        Args:
            sock: Used by one thread at a time.
            state: Its lines.
            seconds: The time to wait for room.

        Returns:
            Whether it was sent, or never can be.
        """
        address = os.fsencode(self._address)
        if address.startswith(b"@"):
            address = b"\0" + address[1:]
        try:
            sock.settimeout(seconds)
            sock.sendto("\n".join(state).encode("utf-8", "replace"), address)
        except OSError as error:
            if isinstance(error, BlockingIOError):
                return False
            # kvd serves just as well without it.
            self._log.debug(
                "systemd could not be notified of {state}: {error}",
                state=state[0],
                error=str(error),
            )
        return True


def take_notifier(environ: MutableMapping[str, str]) -> Notifier:
    """
    The service manager of this process.

    Args:
        environ: The environment of the process; the variables are removed, so that no
            child notifies the service manager.
    """
    address = environ.pop("NOTIFY_SOCKET", "")
    microseconds = environ.pop("WATCHDOG_USEC", "")
    watched = environ.pop("WATCHDOG_PID", "") in ("", str(os.getpid()))
    if not (watched and microseconds.isdecimal()):
        return Notifier(address)
    return Notifier(address, int(microseconds) / 1_000_000)
