"""
The programs that ``kvd bench`` starts: a daemon with a policy, the load, a sink.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

from kvd.lab.bench.load import Load, Report
from kvd.lab.measuring.daemon import Daemon, daemon
from kvd.lab.measuring.errors import BenchFailed
from kvd.lab.measuring.processes import kill_group, started, tail


@contextmanager
def serving(policy: str, workers: int, store: str = "null:") -> Iterator[Daemon]:
    """
    A daemon with a dispatch policy, from the moment at which all its workers are ready.

    Raises:
        BenchFailed: It ended early, or did not begin to serve; or the kernel does not
            allow the policy.
    """
    options = (f"--policy={policy}", f"--procs={workers}", f"--store={store}")
    with daemon(*options) as served:
        for fallback in served.control.status()["fallbacks"]:
            raise BenchFailed(
                f"the policy {policy} cannot be measured here, where {fallback['by']}"
                f" would be used instead, since {fallback['reason']}"
            )
        yield served


@contextmanager
def sink(clients: int) -> Iterator[int]:
    """
    A server that discards what so many clients send (`kvd.lab.bench.sink`); gives its
    port.
    """
    command = _program("sink", str(clients))
    pipe = subprocess.PIPE
    with started(command, kill_group, stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline() or 0)


def send(
    port: int, load: Load, meanwhile: Callable[[], object] | None = None
) -> Report:
    """
    Send a load and wait for its end.

    Args:
        port: Of the server, on 127.0.0.1.
        load: What is sent.
        meanwhile: Called again and again until the load has ended.

    Raises:
        BenchFailed: The load could not be sent at all.
    """
    command = _program("load", str(port), json.dumps(asdict(load)))
    with tempfile.TemporaryDirectory(prefix="kvd-") as folder:
        report, errors = os.path.join(folder, "report"), os.path.join(folder, "errors")
        with (
            open(report, "wb") as output,
            open(errors, "wb") as complaints,
            started(command, kill_group, stdout=output, stderr=complaints) as process,
        ):
            while meanwhile is not None and process.poll() is None:
                meanwhile()
            status = process.wait()
        if status:
            raise BenchFailed("the load could not be sent", tail(errors))
        with open(report, "rb") as file:
            return Report(**json.load(file))


def measure_ceiling(load: Load) -> Report:
    """
    Send a load to a sink: the most that it could reach.
    """
    with sink(load.clients) as port:
        return send(port, load)


def _program(name: str, *arguments: str) -> Sequence[str]:
    return [sys.executable, "-m", f"kvd.lab.bench.{name}", *arguments]
