"""
The processes of a measurement: how they are started and ended, and what the kernel
knows of them.

Each program has a process group of its own, so that ^C ends the measurement, which then
ends them.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

STOP_SECONDS: Final = 20
_POLL_SECONDS: Final = 0.005


@contextmanager
def started(
    command: Sequence[str],
    end: Callable[[subprocess.Popen[bytes]], object],
    cwd: str | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int | BinaryIO = subprocess.DEVNULL,
    stderr: int | BinaryIO = subprocess.STDOUT,
    env: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """
    A process that ends with the ``with``, also when a signal interrupts the
    measurement while the process is being started.

    Args:
        end: Ends it: `stop` or `kill_group`.
    """
    process = None
    try:
        with _interrupted_later():
            process = subprocess.Popen(  # noqa: S603  # our own programs, and nginx
                command,
                cwd=cwd,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env=env,
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
    Hold back signals that have a handler in Python until the ``with`` is left.

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


def stop(process: subprocess.Popen[bytes]) -> None:
    """
    Ask a process to end, and kill it if it does not.
    """
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """
    Kill a process and its children.
    """
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        # All of it has ended.
        pass
    process.wait()


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """
    Let SIGTERM and SIGHUP end what this process started before they end it.
    """

    def interrupted(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupted) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def unused_port() -> int:
    """
    A port of this machine that was free a moment ago.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def answers(port: int) -> bool:
    """
    Whether somebody listens.
    """
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> bool:
    """
    Poll until a condition holds.

    Returns:
        Whether it did within so many seconds.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def tail(path: str) -> str:
    """
    The last lines of a log.
    """
    lines = Path(path).read_text("utf-8", "replace").splitlines()
    return "\n".join(lines[-20:])


def tree(pid: int) -> list[int]:
    """
    A process and all its descendants.
    """
    # Each thread has its own list of children.
    children = [
        child
        for thread in os.listdir(f"/proc/{pid}/task")
        for child in Path(f"/proc/{pid}/task/{thread}/children").read_text().split()
    ]
    return [pid, *(below for child in children for below in tree(int(child)))]


def are_asleep(pids: Iterable[int]) -> bool:
    """
    Whether all threads of processes wait for something other than a processor.
    """
    # See proc_pid_stat(5): the state is the first field behind the name in brackets.
    return all(
        Path(f"/proc/{p}/task/{t}/stat").read_text().rpartition(")")[2].split()[0]
        == "S"
        for p in pids
        for t in os.listdir(f"/proc/{p}/task")
    )


def cpu_seconds(pids: Iterable[int]) -> float:
    """
    CPU time of processes as the scheduler counts it, to the nanosecond.

    Raises:
        FileNotFoundError: One of them has ended.
        ProcessLookupError: So it has.
    """
    return (
        sum(
            int(Path(f"/proc/{p}/task/{t}/schedstat").read_text().split()[0])
            for p in pids
            for t in os.listdir(f"/proc/{p}/task")
        )
        / 1e9
    )
