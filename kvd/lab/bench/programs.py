"""
The programs that a measurement starts: a daemon, the load, a sink.

Each is ended when its ``with`` is left, whatever happened. Each has a process
group of its own, so that ^C ends the measurement, which then ends them.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from typing import BinaryIO, Final

from kvd.admin.control.asking import ControlSocket
from kvd.lab.bench.errors import BenchFailed
from kvd.lab.bench.load import Load, Report

START_SECONDS: Final = 60
STOP_SECONDS: Final = 20
_POLL_SECONDS: Final = 0.02
_TWISTD: Final = "from twisted.scripts.twistd import run; run()"
_SERVES: Final = b"kvd serves"


class Daemon:
    """
    A daemon that serves.
    """

    def __init__(self, port: int, control: ControlSocket) -> None:
        self.port = port
        self.control = control


@contextmanager
def daemon(
    policy: str, workers: int, folder: str, store: str = "null:"
) -> Iterator[Daemon]:
    """
    A daemon, from when all its workers are ready.

    Args:
        policy: Its dispatch policy.
        workers: How many.
        folder: An empty one; its log and its control socket are put there.
        store: Where it keeps values.

    Raises:
        BenchFailed: It ended before it served, or did not begin to; or the kernel
            does not let it have the policy.
    """
    port = unused_port()
    control = os.path.join(folder, "control")
    command = [
        sys.executable, "-c", _TWISTD, "-n", "--pidfile=", "kvd",
        f"--policy={policy}", f"--procs={workers}", f"--store={store}",
        f"--listen=tcp:{port}:interface=127.0.0.1", f"--control={control}",
    ]  # fmt: skip
    log = os.path.join(folder, "log")
    asking = ControlSocket(control)
    with (
        closing(asking),
        open(log, "wb") as output,
        _started(command, _stop, cwd=folder, stdout=output) as process,
    ):
        _wait_until(process, log, lambda: _SERVES in _read(log))
        _wait_until(process, log, lambda: _all_ready(asking))
        _check_policy(policy, asking)
        yield Daemon(port, asking)
        if process.poll() is not None:
            raise BenchFailed("the daemon ended while it was measured", _tail(log))


def short_folder() -> tempfile.TemporaryDirectory[str]:
    """
    A folder that is removed in the end.
    """
    # Not below TMPDIR if that is long: the path of a Unix socket has at most 107
    # bytes (unix(7)).
    place = tempfile.gettempdir()
    return tempfile.TemporaryDirectory(
        prefix="kvd-",
        dir="/tmp" if len(os.fsencode(place)) > 80 else place,  # noqa: S108
    )


def unused_port() -> int:
    """
    A port of this machine that was free a moment ago.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _all_ready(control: ControlSocket) -> bool:
    return all(row["state"] == "ready" for row in control.status()["workers"])


def _check_policy(policy: str, control: ControlSocket) -> None:
    for instead in control.status()["instead"]:
        raise BenchFailed(
            f"the policy {policy} cannot be measured here, where {instead['by']}"
            f" would be used instead, since {instead['reason']}"
        )


def _wait_until(
    process: subprocess.Popen[bytes], log: str, condition: Callable[[], bool]
) -> None:
    end = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        if condition():
            return
        time.sleep(_POLL_SECONDS)
    raise BenchFailed("the daemon did not begin to serve", _tail(log))


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def sink(clients: int) -> Iterator[int]:
    """
    A server that discards what so many clients send (`kvd.lab.bench.sink`); gives its
    port.
    """
    command = _program("sink", str(clients))
    pipe = subprocess.PIPE
    with _started(command, _kill_group, stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline() or 0)


def send(
    port: int, load: Load, folder: str, meanwhile: Callable[[], object] | None = None
) -> Report:
    """
    Send a load and wait for its end.

    Args:
        port: Of the server, on 127.0.0.1.
        load: What is sent.
        folder: Where the report is put meanwhile.
        meanwhile: Called again and again until the load has ended; decides how
            often by taking its time.

    Raises:
        BenchFailed: The load could not be sent at all.
    """
    report, errors = os.path.join(folder, "report"), os.path.join(folder, "errors")
    command = _program("load", str(port), json.dumps(asdict(load)))
    with (
        open(report, "wb") as output,
        open(errors, "wb") as complaints,
        _started(command, _kill_group, stdout=output, stderr=complaints) as process,
    ):
        while meanwhile is not None and process.poll() is None:
            meanwhile()
        status = process.wait()
    if status:
        raise BenchFailed("the load could not be sent", _tail(errors))
    return Report(**json.loads(_read(report)))


@contextmanager
def _started(
    command: Sequence[str],
    end: Callable[[subprocess.Popen[bytes]], object],
    cwd: str | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int | BinaryIO = subprocess.DEVNULL,
    stderr: int | BinaryIO = subprocess.STDOUT,
) -> Iterator[subprocess.Popen[bytes]]:
    """
    A process that ends with the ``with``, also when a signal that interrupts the
    measurement comes while it is being started.
    """
    process = None
    try:
        with _interrupted_later():
            process = subprocess.Popen(  # noqa: S603  # our own programs
                command,
                cwd=cwd,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                process_group=0,
            )
        yield process
    finally:
        if process is not None:
            with process:  # closes its pipes
                end(process)


@contextmanager
def _interrupted_later() -> Iterator[None]:
    """
    Let signals that have a handler in Python wait until the ``with`` is left.

    They are not blocked, since a process that is started inherits what is.
    """
    if threading.current_thread() is not threading.main_thread():
        # Handlers run in the main thread only.
        yield
        return
    came: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, frame: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if callable(signal.getsignal(number))
    }
    try:
        yield
    finally:
        for name, handler in handlers.items():
            signal.signal(name, handler)
        for number in came:
            signal.raise_signal(number)


def _program(name: str, *arguments: str) -> Sequence[str]:
    return [sys.executable, "-m", f"kvd.lab.bench.{name}", *arguments]


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        # All of it has ended.
        pass
    process.wait()


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _tail(path: str) -> str:
    lines = _read(path).decode("utf-8", "replace").splitlines()
    return "\n".join(lines[-20:])
