"""
What is known of a running daemon, as plain data.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kvd import __version__
from kvd.balance import jain_index
from kvd.listening import ListenerGroup
from kvd.scoreboard import Scoreboard
from kvd.settings import Settings


@dataclass(frozen=True, slots=True)
class WorkerState:
    """
    What the supervisor knows of one worker's place.
    """

    worker: int
    pid: int
    """0 while there is no process."""
    state: str
    handing_over: int
    """Connections on their way to it."""

    @property
    def counts(self) -> bool:
        """
        Whether the row on the scoreboard is a living process's.
        """
        return self.state in {"ready", "draining"}


def describe(
    settings: Settings,
    policy: str,
    groups: Sequence[ListenerGroup],
    workers: Sequence[WorkerState],
    scoreboard: Scoreboard,
    uptime_seconds: float,
) -> dict[str, Any]:
    """
    The status as it is sent. The numbers of a worker count from the start of
    its process; a place without one has none.
    """
    rows = [_row(worker, scoreboard) for worker in workers]
    if not settings.procs:
        # twistd's own reactor does not count its waiting.
        for row in rows:
            del row["busy_seconds"], row["silent_seconds"]
    counted = [row for row in rows if "requests" in row]
    return {
        "version": __version__,
        "pid": os.getpid(),
        "addresses": [str(group.address) for group in groups],
        "store": str(settings.store),
        "durability": settings.durability,
        "policy": policy,
        "uptime_seconds": round(uptime_seconds, 3),
        "workers": rows,
        "balance": {
            "connections": _balance(counted, "accepted"),
            "requests": _balance(counted, "requests"),
        },
    }


def _row(worker: WorkerState, scoreboard: Scoreboard) -> dict[str, Any]:
    row: dict[str, Any] = {
        "worker": worker.worker,
        "pid": worker.pid or None,
        "state": worker.state,
        "handing_over": worker.handing_over,
    }
    if worker.counts:
        row |= asdict(scoreboard.counts(worker.worker))
    return row


def _balance(rows: Sequence[dict[str, Any]], name: str) -> float:
    return round(jain_index([row[name] for row in rows]), 4)
