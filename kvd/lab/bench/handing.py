"""
What it costs the supervisor to hand a connection over.

Counted is its own processor time, as the kernel's scheduler keeps it
(``/proc/PID/schedstat``, in nanoseconds), from the first event until it is still
again: accepting, choosing, sending, hearing that the worker has it, and closing its
own descriptor.

Whether connections come one by one or several wait makes the difference, for each
wake-up and message has its price. So that many wait, the supervisor is stopped
(SIGSTOP) while they connect. A connection asks for nothing: that would be the
workers' work, which runs at the same time.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Final

from kvd.lab.bench.errors import BenchFailed
from kvd.lab.bench.programs import Daemon

BATCH: Final = 512
"""
Connections that wait at once: fewer than a backlog, and than workers take unclaimed.
"""
BATCHES: Final = 15
ALONE: Final = 200

_STILL_SECONDS: Final = 0.08
_PATIENCE_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class HandOverCost:
    """
    The supervisor's processor time for a connection.
    """

    policy: str
    batches: Sequence[float]
    """Seconds for each connection, of every batch that was made."""
    alone_seconds: float
    """For a connection that comes alone."""

    @property
    def seconds(self) -> float:
        """
        For each of a batch.
        """
        return median(self.batches)

    @property
    def connections_per_second(self) -> float:
        """
        With which a processor of its own would be busy all of the time.
        """
        return 1 / self.seconds


def measure_hand_over(
    policy: str, served: Daemon, batch: int = BATCH, batches: int = BATCHES
) -> HandOverCost:
    """
    Connect again and again.

    Args:
        policy: The daemon's.
        served: A daemon with no other clients.
        batch: How many connections wait at once.
        batches: How often.

    Raises:
        BenchFailed: The connections did not come to workers.
    """
    supervisor = served.control.status()["pid"]
    # The first finds caches cold and modules not yet imported.
    costs = [_cost_of_batch(served, supervisor, batch) for _ in range(batches + 1)]
    return HandOverCost(policy, costs[1:], _cost_alone(served, supervisor))


def _cost_of_batch(served: Daemon, supervisor: int, batch: int) -> float:
    accepted = _accepted(served)
    with ExitStack() as connections:
        _wait_until_still(supervisor)
        before = cpu_seconds(supervisor)
        os.kill(supervisor, signal.SIGSTOP)
        try:
            for _ in range(batch):
                connections.enter_context(_connect(served.port))
        finally:
            os.kill(supervisor, signal.SIGCONT)
        spent = _wait_until_still(supervisor) - before
        _check(served, accepted + batch)
    return spent / batch


def _cost_alone(served: Daemon, supervisor: int) -> float:
    accepted = _accepted(served)
    with ExitStack() as connections:
        before = _wait_until_still(supervisor)
        for _ in range(ALONE):
            connections.enter_context(_connect(served.port))
            # Longer than it takes, so that no two come to one event.
            time.sleep(0.002)
        spent = _wait_until_still(supervisor) - before
        _check(served, accepted + ALONE)
    return spent / ALONE


def _connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), _PATIENCE_SECONDS)


def _accepted(served: Daemon) -> int:
    rows = served.control.status()["workers"]
    return sum(row.get("accepted", 0) for row in rows)


def _check(served: Daemon, wanted: int) -> None:
    accepted = _accepted(served)
    if accepted != wanted:
        raise BenchFailed(
            f"workers took {accepted} connections where {wanted} had come: what a"
            " hand-over costs cannot be told"
        )


def cpu_seconds(pid: int) -> float:
    """
    Processor time of a process's first thread.
    """
    with open(f"/proc/{pid}/schedstat", encoding="ascii") as file:
        return int(file.read().split()[0]) / 1e9


def _wait_until_still(pid: int) -> float:
    """
    Wait until a process waits.

    Returns:
        Its processor time then.
    """
    end = time.monotonic() + _PATIENCE_SECONDS
    spent = cpu_seconds(pid)
    while time.monotonic() < end:
        time.sleep(_STILL_SECONDS)
        before, spent = spent, cpu_seconds(pid)
        if spent == before:
            return spent
    raise BenchFailed("the supervisor does not come to rest")
