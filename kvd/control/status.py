"""
What is known of a running daemon, as plain data.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from kvd import __version__
from kvd.accept_queue import accept_queue
from kvd.balance import jain_index
from kvd.listening import ListenerGroup
from kvd.scoreboard import Scoreboard
from kvd.settings import Settings

NO_POLLERS: Final[Mapping[tuple[int, int], Sequence[int]]] = {}


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
    pollers: Mapping[tuple[int, int], Sequence[int]] = NO_POLLERS,
) -> dict[str, Any]:
    """
    The status as it is sent. The numbers of a worker count from the start of
    its process; a place without one has none.

    Args:
        pollers: The workers that accept from a socket, by the number of its group
            and its own; from others the supervisor does.
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
        "sockets": _sockets(groups, pollers),
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


def _sockets(
    groups: Sequence[ListenerGroup],
    pollers: Mapping[tuple[int, int], Sequence[int]],
) -> list[dict[str, Any]]:
    sockets = []
    for number, group in enumerate(groups):
        for member, listener in enumerate(group.members):
            queue = accept_queue(listener)
            sockets.append(
                {
                    "address": str(group.address),
                    "workers": list(pollers.get((number, member), ())),
                    "waiting": queue and queue.waiting,
                    "limit": queue and queue.limit,
                }
            )
    return sockets


def _balance(rows: Sequence[dict[str, Any]], name: str) -> float:
    return round(jain_index([row[name] for row in rows]), 4)
