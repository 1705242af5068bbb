"""
The true daemon, started as systemd starts it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.integration.twistd import RUN_TWISTD, STOP_SECONDS

LAUNCH = """
import fcntl, os, sys

count = int(sys.argv[1])
given = [int(number) for number in sys.argv[2:2 + count]]
# Out of the way first: one's place may be another's number.
above = [fcntl.fcntl(number, fcntl.F_DUPFD, 3 + count) for number in given]
for number in given:
    os.close(number)
for at, number in enumerate(above):
    os.dup2(number, 3 + at)
    os.close(number)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, *sys.argv[2 + count:]])
"""
"""
What systemd does between fork and exec.
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

    def receive(self) -> str:
        """
        The next state that a daemon reports.
        """
        return self._notify.recv(4096).decode()

    @contextmanager
    def start(self, options: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
        """
        A daemon that is ready; ended by a signal when it is over.
        """
        number = self._listener.fileno()
        twistd = ["-c", RUN_TWISTD, "-n", "--pidfile=", "kvd", *options]
        twistd += ["--listen=systemd:web", "--control=off"]
        process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, "1", str(number), *twistd],
            cwd=self._folder,
            env=os.environ
            | {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "web", "NOTIFY_SOCKET": self._place}
            | {"WATCHDOG_USEC": "3600000000"},
            pass_fds=[number],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            state = self.receive()
            assert state.startswith("READY=1\nSTATUS=serves http://127.0.0.1:"), state
            yield process
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=STOP_SECONDS)
        finally:
            process.kill()
            process.communicate()

    def close(self) -> None:
        """
        The machine goes down.
        """
        self._listener.close()
        self._notify.close()
