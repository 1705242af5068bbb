"""
What a hand-over costs the supervisor.

The cost is the supervisor's own processor time as the kernel's scheduler counts it
(``schedstat``, in nanoseconds), from the first event until it is idle again. In that
time it accepts the connection, chooses a worker, sends the descriptor, finds it
acknowledged on the scoreboard and closes its own descriptor.

Each wake-up and each message has its price, so a connection costs less where many wait.
To let many wait, the supervisor is stopped (SIGSTOP) while they connect. The
connections send no requests: those would cost the workers, which run at the same time.
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

from kvd.dispatch.dispatcher import CREDIT_SECONDS
from kvd.lab.measuring.daemon import Daemon
from kvd.lab.measuring.errors import BenchFailed
from kvd.lab.measuring.processes import are_asleep, cpu_seconds, tree

BATCH: Final = 512
"""
Connections that wait at once: fewer than a backlog holds.
"""
BATCHES: Final = 15
SINGLES: Final = 200

_IDLE_SECONDS: Final = 0.08
_TIMEOUT_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class HandOverCost:
    """
    The supervisor's processor time for a connection.
    """

    policy: str
    batches: Sequence[float]
    """Seconds for each connection, of every batch that was made."""
    single_seconds: float
    """For a connection that comes by itself."""

    @property
    def seconds(self) -> float:
        """
        For each connection of a batch.
        """
        return median(self.batches)

    @property
    def connections_per_second(self) -> float:
        """
        The rate at which the supervisor would use all of a processor.
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
    # The first finds caches cold and modules not yet imported.
    costs = [_cost_of_batch(served, batch) for _ in range(batches + 1)]
    return HandOverCost(policy, costs[1:], _cost_of_single(served))


def _cost_of_batch(served: Daemon, batch: int) -> float:
    accepted = _accepted(served)
    with ExitStack() as connections:
        before = _wait_until_idle(served.pid)
        os.kill(served.pid, signal.SIGSTOP)
        try:
            for _ in range(batch):
                connections.enter_context(_connect(served.port))
        finally:
            os.kill(served.pid, signal.SIGCONT)
        spent = _wait_until_closed(served.pid) - before
        _check(served, accepted + batch)
    return spent / batch


def _cost_of_single(served: Daemon) -> float:
    accepted = _accepted(served)
    with ExitStack() as connections:
        before = _wait_until_idle(served.pid)
        for _ in range(SINGLES):
            connections.enter_context(_connect(served.port))
            # Longer than it takes, so that no two come to one event.
            time.sleep(0.002)
        spent = _wait_until_closed(served.pid) - before
        _check(served, accepted + SINGLES)
    return spent / SINGLES


def _connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), _TIMEOUT_SECONDS)


def _accepted(served: Daemon) -> int:
    rows = served.control.status()["workers"]
    return sum(row.get("accepted", 0) for row in rows)


def _check(served: Daemon, expected: int) -> None:
    accepted = _accepted(served)
    if accepted != expected:
        raise BenchFailed(
            f"the workers took {accepted} connections, but {expected} were made: the"
            " cost of a hand-over cannot be measured"
        )


def _wait_until_closed(pid: int) -> float:
    """
    As `_wait_until_idle`, also for the end of the last descriptors: with nothing else
    to do, the supervisor only later looks which of them it can close.
    """
    time.sleep(CREDIT_SECONDS)
    return _wait_until_idle(pid)


def _wait_until_idle(pid: int) -> float:
    """
    Wait until the supervisor has nothing left to do, nor have its workers: on a busy
    machine they may wait for a processor, and acknowledge connections later.

    Returns:
        The processor time that the supervisor has used by then.
    """
    end = time.monotonic() + _TIMEOUT_SECONDS
    spent = cpu_seconds([pid])
    while time.monotonic() < end:
        time.sleep(_IDLE_SECONDS)
        before, spent = spent, cpu_seconds([pid])
        if spent == before and are_asleep(tree(pid)):
            return spent
    raise BenchFailed("the supervisor does not become idle")
