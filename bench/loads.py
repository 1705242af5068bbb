"""
The load of a server and its report; ``baselines/load.c`` sends it.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from bench.building import Programs
from kvd.lab.measuring.errors import BenchFailed

THREADS: Final = 2
"""Of a load; a connection belongs to one of them."""


@dataclass(frozen=True)
class Load:
    """
    A kind of request that clients send again and again.
    """

    method: str
    body_bytes: int
    connections: int
    keys: int
    new_connections: bool = False
    """A connection for each request, rather than one for each client."""
    piece_bytes: int = 1024 * 1024
    """What a client gives to one ``send``. Small pieces cost a server more wake-ups,
    and the load more calls."""
    prefix: str = "bench"
    """Keys of different prefixes differ."""


@dataclass(frozen=True)
class Report:
    """
    The results of a load.
    """

    requests: int
    seconds: float
    bytes: int
    """Of the bodies that were moved."""
    errors: int
    first_error: str | None
    connects: int
    p50_seconds: float
    p99_seconds: float
    max_seconds: float
    cpu_seconds: float
    """Of the load itself."""


def send(
    programs: Programs,
    port: int,
    load: Load,
    *,
    seconds: float | None = None,
    requests: int | None = None,
) -> Report:
    """
    Send a load for so long, or so many requests, and wait for its end.

    Raises:
        BenchFailed: It could not be sent at all. Requests that fail are counted.
    """
    command = _command(programs, port, load, seconds, requests)
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise BenchFailed(f"the load ended with {done.returncode}: {done.stderr}")
    values: dict[str, Any] = json.loads(done.stdout)
    return Report(**values)


@contextmanager
def sending(
    programs: Programs, port: int, load: Load, seconds: float
) -> Iterator[list[Report]]:
    """
    Send a load until the ``with`` is left, for so many seconds at most.

    Gives a list into which its report is put then.
    """
    command = _command(programs, port, load, seconds, None)
    reports: list[Report] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            yield reports
        finally:
            process.terminate()
            output, _ = process.communicate()
    reports.append(Report(**json.loads(output)))


def _command(
    programs: Programs,
    port: int,
    load: Load,
    seconds: float | None,
    requests: int | None,
) -> list[str]:
    command = [
        str(programs.load), f"--port={port}", f"--method={load.method}",
        f"--size={load.body_bytes}", f"--keys={load.keys}",
        f"--piece={load.piece_bytes}", f"--prefix={load.prefix}",
        f"--connections={load.connections}",
        f"--threads={min(THREADS, load.connections)}",
    ]  # fmt: skip
    if load.new_connections:
        command.append("--new")
    if requests is not None:
        command.append(f"--requests={requests}")
    else:
        command.append(f"--seconds={seconds}")
    return command
