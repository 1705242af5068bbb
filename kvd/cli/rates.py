"""
What workers did between two reads of the status.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from kvd.dispatch.balance import jain_index
from kvd.ipc.histogram import highest

COUNTED: Final = ("accepted", "requests", "bytes_in", "bytes_out", "busy_seconds")

BALANCE_SECONDS: Final = 10.0
"""
The time over which the balance of requests is taken. A single second shows only
chance: of eight requests to eight workers, some worker gets two.
"""


@dataclass(frozen=True, slots=True)
class WorkerRates:
    """
    Of one worker.
    """

    row: dict[str, Any]
    """As in the status."""
    per_second: dict[str, float]
    """Of each name in `COUNTED`; empty without a process, and ``busy_seconds`` may be
    missing."""
    loop_delay: float | None
    """An upper bound of the longest turn of its reactor, in seconds; None: no turn
    ended, or turns are not counted."""
    waiting: int | None
    """Connections at the sockets that only this worker accepts from; None: it has no
    such socket, or the number is unknown."""


class Rates:
    """
    Of all workers.
    """

    def __init__(
        self,
        before: dict[str, Any],
        status: dict[str, Any],
        seconds: float,
        long_before: dict[str, Any] | None = None,
    ) -> None:
        """
        Args:
            before: The status that was read before.
            status: The status now.
            seconds: Between both.
            long_before: The status `BALANCE_SECONDS` ago, if it was read.
        """
        self.status = status
        self._long_before = _by_worker(long_before or before)
        past = _by_worker(before)
        self.waiting = sum(
            sum(queue["waiting"]) for queue in status.get("accept_queues", ())
        )
        """How many connections no worker has accepted yet."""
        self.workers: Sequence[WorkerRates] = [
            WorkerRates(
                row,
                _per_second(past.get(row["worker"], {}), row, seconds),
                _longest_turn(past.get(row["worker"], {}), row),
                row.get("accept_queue"),
            )
            for row in status["workers"]
        ]

    def total(self, name: str) -> float:
        """
        Of all workers, per second.
        """
        return sum(each.per_second.get(name, 0.0) for each in self.workers)

    def sum_of(self, name: str) -> int:
        """
        Of all workers, now.
        """
        return sum(each.row.get(name, 0) for each in self.workers)

    @property
    def balance_of_requests(self) -> float:
        """
        In the last `BALANCE_SECONDS`. A new worker has not had its share yet, and does
        not count.
        """
        past = self._long_before
        return jain_index(
            [
                each.row["requests"] - past[each.row["worker"]]["requests"]
                for each in self.workers
                if each.row["state"] == "ready"
                and "requests" in past.get(each.row["worker"], {})
            ]
        )

    @property
    def balance_of_connections(self) -> float:
        """
        Of those that are open now.
        """
        return jain_index(
            [w.row["open"] for w in self.workers if w.row["state"] == "ready"]
        )


def _by_worker(status: dict[str, Any]) -> dict[int, dict[str, Any]]:
    return {row["worker"]: row for row in status["workers"]}


def _per_second(
    past: dict[str, Any], row: dict[str, Any], seconds: float
) -> dict[str, float]:
    # A worker without a process has no numbers, and those of its next process continue
    # the old ones: a number that was missing before says nothing about the time since.
    return {
        name: max(0.0, row[name] - past.get(name, row[name])) / seconds
        for name in COUNTED
        if name in row
    }


def _longest_turn(past: dict[str, Any], row: dict[str, Any]) -> float | None:
    if "loop_delay" not in row or "loop_delay" not in past:
        return None
    counted = zip(past["loop_delay"], row["loop_delay"], strict=True)
    return highest([now - then for then, now in counted])
