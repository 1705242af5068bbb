"""
The status of a running daemon, as plain data.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kvd import __version__
from kvd.dispatch.balance import jain_index
from kvd.dispatch.reuseport_programs import Fallback
from kvd.ipc.counts import Sums
from kvd.ipc.histogram import BOUNDS_SECONDS
from kvd.ipc.row import STATUSES
from kvd.ipc.scoreboard import Scoreboard
from kvd.net.credentials import expiries_of
from kvd.net.listening import ListenerGroup
from kvd.settings import Settings
from kvd.workers.heartbeat import ProcessState
from kvd.workers.loading import promise_of


@dataclass(frozen=True, slots=True)
class WorkerState:
    """
    What the supervisor knows of a worker.
    """

    worker: int
    pid: int
    """0 while the worker has no process."""
    state: str
    handing_over: int
    """The number of connections on their way to the worker."""

    @property
    def counts(self) -> bool:
        """
        Whether the worker's row on the scoreboard belongs to a living process.
        """
        return self.state in {"ready", "stalled", "draining"}


def describe(
    settings: Settings,
    groups: Sequence[ListenerGroup],
    workers: Sequence[WorkerState],
    scoreboard: Scoreboard,
    uptime_seconds: float,
    draining: bool = False,
    members: Sequence[Collection[int]] = (),
    shadow: Callable[[Sequence[int]], dict[str, Any] | None] = lambda workers: None,
    fallbacks: Sequence[Fallback] = (),
    usage: Sequence[dict[str, Any]] = (),
    hangs: int = 0,
    processes: Sequence[ProcessState] = (),
) -> dict[str, Any]:
    """
    Return the status as it is sent.

    The counts of a worker include all processes that it has had; a worker without a
    process has none. The totals include all workers that the daemon has ever had, and
    never fall.

    Args:
        settings: The current settings.
        groups: The addresses that clients connect to.
        workers: All workers.
        scoreboard: The scoreboard of these workers.
        uptime_seconds: The uptime of the daemon.
        draining: Whether the daemon is ending.
        members: For each worker, the sockets of each group that it accepts from; empty
            if the supervisor accepts.
        shadow: Returns what the shadow would have done with these workers, or None if
            there is no shadow.
        fallbacks: The addresses where the policy's own program is not in force.
        usage: What the values of each quota take; the first one is that of the whole
            store, or of the near cache. Empty if there are no limits.
        hangs: How many workers were killed because they hung.
        processes: The processes beside the workers.
    """
    sums = scoreboard.sums()
    totals = _totals(sums)
    rows = [_row(worker, scoreboard, sums[worker.worker]) for worker in workers]
    if not settings.procs:
        # twistd's own reactor does not count its waiting.
        for row in rows:
            for name in ("busy_seconds", "silent_seconds", "loop_delay"):
                row.pop(name, None)
        del totals["busy_seconds"]
    counted = [row for row in rows if "requests" in row]
    queues = [queue for queue in map(_queue, groups) if queue["waiting"]]
    for row, own in zip(rows, _exclusive_members(members, len(rows)), strict=True):
        if own and queues:
            row["accept_queue"] = sum(
                queue["waiting"][member]
                for queue in queues
                for member in own
                if member < len(queue["waiting"])
            )
    return {
        "version": __version__,
        "pid": os.getpid(),
        "addresses": [str(group.address) for group in groups],
        "store": str(settings.store),
        "durability": promise_of(settings),
        # The limits of a store with a near cache are those of the cache.
        "usage": [] if settings.near else list(usage),
        "near": usage[0] if settings.near and usage else None,
        "policy": settings.policy,
        "fallbacks": [asdict(each) for each in fallbacks],
        "shadow": shadow([row["worker"] for row in counted]),
        "procs": settings.procs,
        "uptime_seconds": round(uptime_seconds, 3),
        "draining": draining,
        "hangs": hangs,
        "expiries": [asdict(each) for each in expiries_of(settings.credentials)],
        "totals": totals,
        "workers": rows,
        "processes": [asdict(process) for process in processes],
        "bucket_seconds": BOUNDS_SECONDS,
        "accept_queues": queues,
        "balance": {
            "connections": _balance(counted, "accepted"),
            "requests": _balance(counted, "requests"),
        },
    }


def _row(worker: WorkerState, scoreboard: Scoreboard, sums: Sums) -> dict[str, Any]:
    row: dict[str, Any] = {
        "worker": worker.worker,
        "pid": worker.pid or None,
        "state": worker.state,
        "handing_over": worker.handing_over,
        "stalls": sums.stalls,
    }
    if worker.counts:
        row |= asdict(scoreboard.counts(worker.worker))
        row |= {"latency": sums.total.latency, "loop_delay": sums.loop_delay}
    return row


def _totals(sums: Sequence[Sums]) -> dict[str, Any]:
    statuses = zip(*(of.total.statuses for of in sums), strict=True)
    totals: dict[str, Any] = {
        name: sum(getattr(of, name) for of in sums)
        for name in (
            *("starts", "stalls", "accepted", "requests"),
            *("bytes_in", "bytes_out", "busy_seconds"),
        )
    }
    return totals | {"statuses": dict(zip(STATUSES, map(sum, statuses), strict=True))}


def _exclusive_members(
    members: Sequence[Collection[int]], workers: int
) -> list[Collection[int]]:
    """
    For each worker, the sockets from which no other worker accepts.
    """
    takers = Counter(member for of in members for member in of)
    exclusive: list[Collection[int]] = [
        [member for member in of if takers[member] == 1] for of in members[:workers]
    ]
    return exclusive + [()] * (workers - len(exclusive))


def _queue(group: ListenerGroup) -> dict[str, Any]:
    return {
        "address": str(group.address),
        "waiting": group.waiting(),
        "limit": group.queue_limit(),
    }


def _balance(rows: Sequence[dict[str, Any]], name: str) -> float:
    return round(jain_index([row[name] for row in rows]), 4)
