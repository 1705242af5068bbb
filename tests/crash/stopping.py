"""
Stopping a worker while clients come anew.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kvd.admin.control.asking import ControlSocket
from tests.integration.http import ask
from tests.integration.twistd import Twistd
from tests.processes import await_stop

WORKERS: Final = 4
CLIENTS: Final = 8
REQUESTS: Final = 160
"""
Each with a connection of its own; were a worker that is stopped to keep its share, it
would be 40 of them.
"""

WAIT_SECONDS: Final = 30

LIVES: Final = "responds again after"


@dataclass(frozen=True)
class Report:
    """
    What new clients saw while a worker was stopped.
    """

    statuses: set[int]
    longest_seconds: float
    stalls: int
    """How often the worker was found to be stopped."""
    lines: list[str]
    """What the daemon said, until the worker lived again."""


def stop_a_worker(policy: str, folder: Path, requests: int = REQUESTS) -> Report:
    """
    Let new clients come while one worker of some is stopped, and afterwards until that
    one has its share again.

    Args:
        policy: Under which they serve.
        folder: Empty.
        requests: How many come while it is stopped.
    """
    options = [
        *["--policy", policy, "--procs", str(WORKERS)],
        *["--store", f"file:{folder}/values", "--control", f"{folder}/control"],
    ]
    with (
        closing(ControlSocket(str(folder / "control"))) as asked,
        Twistd(options, folder) as daemon,
    ):
        assert 201 == ask(daemon.port, "PUT", "/k", b"value").status
        worker = asked.status()["workers"][1]
        with stopped(worker["pid"]):
            report = _come(daemon.port, requests)
            deadline = time.monotonic() + WAIT_SECONDS
            while not (stalls := asked.status()["workers"][1]["stalls"]):
                assert time.monotonic() < deadline, "nobody found that it is stopped"
                time.sleep(0.05)
        before = asked.status()["workers"][1]["accepted"]
        deadline = time.monotonic() + WAIT_SECONDS
        while asked.status()["workers"][1]["accepted"] == before:
            assert time.monotonic() < deadline, (
                "it has got nothing since it responds again"
            )
            _come(daemon.port, CLIENTS)
        said = list(_until_it_lives(daemon))
    statuses, longest = report
    return Report(statuses, longest, stalls, said)


def _until_it_lives(daemon: Twistd) -> Iterator[str]:
    assert daemon.process.stdout is not None
    for line in daemon.process.stdout:
        yield line
        # On a busy machine, others may seem to be stopped too.
        if LIVES in line and "worker 1 " in line:
            return


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """
    A process makes no step meanwhile.
    """
    pidfd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
        await_stop(pid)
        yield
    finally:
        signal.pidfd_send_signal(pidfd, signal.SIGCONT)
        os.close(pidfd)


def _come(port: int, requests: int) -> tuple[set[int], float]:
    def come(number: int) -> tuple[int, float]:
        began = time.monotonic()
        return ask(port, "GET", "/k").status, time.monotonic() - began

    with ThreadPoolExecutor(CLIENTS) as clients:
        seen = list(clients.map(come, range(requests)))
    return {status for status, _ in seen}, max(seconds for _, seconds in seen)
