"""
Processes that are forked by a process that has loaded what they need.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import IO, Any, AnyStr, Generic, Self

from tests.integration import forking


def fork_server(
    loaded: str,
    program: str,
    environment: Mapping[str, str] = os.environ,
    prepared: str = "",
) -> socket.socket:
    """
    Start what forks processes that run a program, unless it runs.

    Args:
        loaded: The modules that it imports before, with blanks between them.
        program: In Python; whatever it reads from the process it reads after the fork.
        environment: What Python and the dynamic linker read as they start.
        prepared: What it does before, in Python.

    Returns:
        Where processes are requested.
    """
    own = None if environment is os.environ else tuple(environment.items())
    return _fork_server(loaded, program, own, prepared)[0]


@cache
def _fork_server(
    loaded: str,
    program: str,
    environment: tuple[tuple[str, str], ...] | None,
    prepared: str,
) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    text = Path(forking.__file__).read_text(encoding="utf-8")
    control = f"socket.socket(fileno={theirs.fileno()})"
    begin = f"fork_processes({control}, {loaded.split()}, {prepared!r})\n"
    with theirs:
        # In a folder without Python's files, where only what is installed is found.
        process = subprocess.Popen(
            [sys.executable, "-c", f"{text}{begin}run({program!r})"],
            cwd="/",
            env=None if environment is None else dict(environment),
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    # A process that is forked has the socket, but not what is done at the end: there,
    # nobody warns that this one still runs.
    return ours, process


class ForkedProcess(Generic[AnyStr]):
    """
    As `subprocess.Popen`, as far as tests use it.
    """

    def __init__(
        self,
        server: socket.socket,
        arguments: Sequence[str | bytes],
        folder: Path,
        streams: Sequence[int],
        environment: Mapping[str, str] = os.environ,
        prelude: str = "",
    ) -> None:
        """
        Args:
            server: See `fork_server`.
            arguments: Of the program.
            folder: Where it is started.
            streams: What it has as its standard input, output and errors, and from
                descriptor 3 on; the caller closes them.
            environment: Of the process; what Python reads as it starts has no effect.
            prelude: What it does before its program, in Python.
        """
        self.returncode: int | None = None
        self.stdin: IO[AnyStr] | None = None
        self.stdout: IO[AnyStr] | None = None
        self.stderr: IO[AnyStr] | None = None
        self._texts: dict[IO[AnyStr] | None, AnyStr] = {}
        self._movers: list[Thread] = []
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        umask = os.umask(0)
        os.umask(umask)
        words = [os.fsdecode(argument) for argument in arguments]
        request = json.dumps([words, str(folder), dict(environment), umask, prelude])
        with theirs:
            descriptors = [*streams, theirs.fileno()]
            socket.send_fds(server, [request.encode()], descriptors)
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

    def communicate(
        self, given: AnyStr | None = None, timeout: float | None = None
    ) -> tuple[Any, Any]:
        """
        Give it its input, and read what it prints, until it has ended.
        """
        end = None if timeout is None else time.monotonic() + timeout
        if not self._movers:
            moves = [partial(self._give, given)]
            for stream in (self.stdout, self.stderr):
                if stream is not None:
                    moves.append(partial(self._read, stream))
            self._movers = [Thread(target=move, daemon=True) for move in moves]
            for mover in self._movers:
                mover.start()
        for mover in self._movers:
            mover.join(_until(end))
            if mover.is_alive():
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        self.wait(_until(end))
        return self._texts.get(self.stdout), self._texts.get(self.stderr)

    def _give(self, given: AnyStr | None) -> None:
        if self.stdin is None:
            return
        # It may end without reading all of it.
        with suppress(BrokenPipeError):
            if given is not None:
                self.stdin.write(given)
            self.stdin.flush()
        with suppress(BrokenPipeError):
            self.stdin.close()

    def _read(self, stream: IO[AnyStr]) -> None:
        with stream:
            self._texts[stream] = stream.read()

    def send_signal(self, number: int) -> None:
        """
        Send a signal, if it has not ended.
        """
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """
        Ask it to end.
        """
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """
        End it at once.
        """
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        self.wait()


def _until(end: float | None) -> float | None:
    return None if end is None else max(0.0, end - time.monotonic())
