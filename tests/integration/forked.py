"""
A daemon's process: forked by a process that has loaded what it needs.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from threading import Thread
from typing import IO

from tests.integration import forking


@cache
def fork_server(program: str) -> socket.socket:
    """
    Start what forks processes that run a program.

    Args:
        program: In Python; whatever it reads from the process it reads after the fork.

    Returns:
        Where processes are requested.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    text = Path(forking.__file__).read_text(encoding="utf-8")
    begin = f"fork_daemons(socket.socket(fileno={theirs.fileno()}))\n"
    with theirs:
        # In a folder without Python's files, where only what is installed is found.
        process = subprocess.Popen(
            [sys.executable, "-c", text + begin + program],
            cwd="/",
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


class DaemonProcess:
    """
    As `subprocess.Popen`, as far as tests use it.
    """

    def __init__(
        self,
        program: str,
        arguments: Sequence[str],
        folder: Path,
        output: int,
    ) -> None:
        """
        Args:
            program: As of `fork_server`.
            arguments: Of the program.
            folder: Where it is started.
            output: A descriptor for what it prints.
        """
        self.returncode: int | None = None
        self.stdout: IO[str] | None = None
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        umask = os.umask(0)
        os.umask(umask)
        request = json.dumps([arguments, str(folder), dict(os.environ), umask])
        with theirs:
            socket.send_fds(
                fork_server(program), [request.encode()], [output, theirs.fileno()]
            )
        self.pid = int(self._line.recv(100))

    def poll(self) -> int | None:
        """
        Its status, if it has ended.
        """
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """
        Wait until it has ended.
        """
        if self.returncode is None:
            self._line.settimeout(timeout)
            try:
                self.returncode = int(self._line.recv(100))
            except (BlockingIOError, TimeoutError):
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0) from None
            self._line.settimeout(None)
            with self._line:
                self._line.send(forking.DONE)
                self._line.recv(1)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """
        Read what it prints until it has ended.
        """
        assert self.stdout is not None
        texts: list[str] = []
        stdout = self.stdout
        reader = Thread(target=lambda: texts.append(stdout.read()), daemon=True)
        reader.start()
        reader.join(timeout)
        if not texts:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        self.wait(timeout)
        return texts[0], None

    def send_signal(self, number: int) -> None:
        """
        Send a signal, if it has not ended.
        """
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """
        End it at once.
        """
        self.send_signal(signal.SIGKILL)
