"""
Stopping workers for good, and knowing for certain which connections they had.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from kvd.admin.control.asking import ControlSocket
from tests.crash.load import Cut
from tests.patience import PATIENCE_SECONDS
from tests.processes import peers_of_stopped, stop_all


@dataclass(frozen=True)
class Hung:
    """
    A worker that was stopped. Times are those of the monotonic clock.
    """

    began: float
    """Before it was stopped."""
    stopped: float
    """It stood still."""
    ports: frozenset[int] | None
    """Of the clients whose connections it had then, all of them; None if kvd had
    replaced it before they were known."""
    replaced: float
    """Another process was ready in its place, as the control socket tells."""

    def had(self, cut: Cut) -> bool:
        """
        Whether a connection was this worker's, for certain. When it ended says nothing:
        the kernel may close connections of a process that was killed when its
        replacement serves already.
        """
        return (
            self.ports is not None
            and cut.port in self.ports
            and cut.connected <= self.stopped <= cut.ended
        )


def hang(control: str, workers: Mapping[int, int]) -> list[Hung]:
    """
    Stop workers, and wait until others serve in their place.

    Args:
        control: The path of the daemon's control socket.
        workers: The process of each.
    """
    with closing(ControlSocket(control)) as asked:
        return hang_until(lambda: await_others(asked, workers), workers)


def hang_until(
    replaced_at: Callable[[], Mapping[int, float]], workers: Mapping[int, int]
) -> list[Hung]:
    """
    Stop workers, and wait.

    Args:
        replaced_at: Waits, and returns when another process was ready in the place of
            each of them.
        workers: The process of each.
    """
    began = time.monotonic()
    stop_all(workers.values())
    stopped = time.monotonic()
    ports = peers_of_stopped(workers.values())
    replaced = replaced_at()
    return [
        Hung(began, stopped, None if held is None else frozenset(held), replaced[each])
        for each, held in ((each, ports[pid]) for each, pid in workers.items())
    ]


def workers_of(status: dict[str, Any]) -> dict[int, int]:
    """
    The process of each worker.
    """
    return {row["worker"]: row["pid"] for row in status["workers"] if row["pid"]}


def await_others(asked: ControlSocket, before: Mapping[int, int]) -> dict[int, float]:
    """
    Wait until other processes than these serve, and all workers are ready.

    Returns:
        When it was known of each worker, by the monotonic clock.
    """
    replaced: dict[int, float] = {}
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        rows = asked.status()["workers"]
        now = time.monotonic()
        for row in rows:
            worker, pid = row["worker"], row["pid"]
            if row["state"] == "ready" and pid != before.get(worker):
                replaced.setdefault(worker, now)
        states = {row["state"] for row in rows}
        if states == {"ready"} and replaced.keys() >= before.keys():
            return replaced
        assert now < deadline, f"workers are {states}, {before} replaced"
        time.sleep(0.02)
