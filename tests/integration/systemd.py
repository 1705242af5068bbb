"""
The true daemon, started as systemd starts it.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from tests.integration.forked import ForkedProcess
from tests.integration.twistd import EXEC, STOP_SECONDS, fork_twistd

LAUNCH: Final = "os.environ['LISTEN_PID'] = str(os.getpid())\n"
"""
What systemd does between fork and exec, in Python.
"""


_CREDENTIALS: Final = struct.Struct("iII")
"""
A process, its user and its group (``SCM_CREDENTIALS``, unix(7)).
"""


class Systemd:
    """
    Has a socket that listens on 127.0.0.1, and starts daemons with it.
    """

    def __init__(self, folder: Path, shared: bool) -> None:
        """
        Args:
            folder: Where daemons are started.
            shared: Whether the socket has ``ReusePort=yes``.
        """
        self._folder = folder
        self._listener = socket.socket()
        if shared:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self.port: int = self._listener.getsockname()[1]
        self._place = str(folder / "notify")
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(self._place)
        self._notify.settimeout(STOP_SECONDS)
        self._notify.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._main = 0

    def receive(self) -> str:
        """
        The next state that the service's main process reports: systemd, too, ignores
        what others say (``NotifyAccess=main``).
        """
        while True:
            room = socket.CMSG_SPACE(_CREDENTIALS.size)
            state, [(_, _, sender)], _, _ = self._notify.recvmsg(4096, room)
            if _CREDENTIALS.unpack(sender)[0] == self._main:
                break
        if named := re.search(rb"^MAINPID=(\d+)$", state, re.MULTILINE):
            self._main = int(named[1])
        return state.decode()

    def receive_but(self, state: str) -> str:
        """
        The next state that is another one.
        """
        while (received := self.receive()) == state:
            pass
        return received

    @contextmanager
    def start(
        self, options: Sequence[str], execs: bool = False
    ) -> Iterator[ForkedProcess[str]]:
        """
        A daemon that is ready. When it is over, the main process is ended by a signal.

        Args:
            options: Behind ``twistd -n kvd``.
            execs: Whether it is another program than what forked it, with an
                environment that the kernel knows.
        """
        given = {
            "LISTEN_FDS": "1",
            "LISTEN_FDNAMES": "web",
            "NOTIFY_SOCKET": self._place,
            "WATCHDOG_USEC": "3600000000",
        }
        arguments = ["-n", "--pidfile=", "kvd", *options]
        arguments += ["--listen=systemd:web"]
        if not any(option.startswith("--control") for option in options):
            arguments += ["--control=off"]
        with open(os.devnull, "r+b") as nothing:
            process = fork_twistd(
                arguments,
                self._folder,
                [*[nothing.fileno()] * 3, self._listener.fileno()],
                os.environ | given,
                prelude=LAUNCH + EXEC * execs,
            )
        self._main = process.pid
        try:
            state = self.receive()
            assert state.startswith("READY=1\nSTATUS=serves http://127.0.0.1:"), state
            yield process
            if self._main == process.pid:
                # It may have ended.
                process.send_signal(signal.SIGTERM)
            else:
                os.kill(self._main, signal.SIGTERM)
            process.wait(STOP_SECONDS)
        finally:
            process.kill()
            process.wait()
            if self._main != process.pid:
                with suppress(ProcessLookupError):
                    os.kill(self._main, signal.SIGTERM)

    def close(self) -> None:
        """
        The machine goes down.
        """
        self._listener.close()
        self._notify.close()
