"""
What workers did between two looks at the status.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from kvd.balance import jain_index

COUNTED: Final = ("accepted", "requests", "bytes_in", "bytes_out", "busy_seconds")


@dataclass(frozen=True, slots=True)
class WorkerRates:
    """
    Of one worker.
    """

    row: dict[str, Any]
    """As in the status."""
    per_second: dict[str, float]
    """Of what is `COUNTED`, if there is a process; ``busy_seconds`` may be missing."""
    waiting: int | None
    """Connections at the sockets that it alone looks at; None: there are none, or
    nobody knows."""


class Rates:
    """
    Of all workers.
    """

    def __init__(
        self, before: dict[str, Any], told: dict[str, Any], seconds: float
    ) -> None:
        """
        Args:
            before: The status at the last look.
            told: The status now.
            seconds: Between both.
        """
        self.told = told
        past = {row["worker"]: row for row in before["workers"]}
        self.waiting = sum(
            sum(queue["waiting"]) for queue in told.get("accept_queues", ())
        )
        """How many connections nobody has accepted yet."""
        self.workers: Sequence[WorkerRates] = [
            WorkerRates(
                row,
                _per_second(past.get(row["worker"], {}), row, seconds),
                row.get("accept_queue"),
            )
            for row in told["workers"]
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
        Since the last look.
        """
        return jain_index(self._of_ready("requests"))

    @property
    def balance_of_connections(self) -> float:
        """
        Of those that are open now.
        """
        return jain_index(
            [w.row["open"] for w in self.workers if w.row["state"] == "ready"]
        )

    def _of_ready(self, name: str) -> list[float]:
        return [w.per_second[name] for w in self.workers if w.row["state"] == "ready"]


def _per_second(
    past: dict[str, Any], row: dict[str, Any], seconds: float
) -> dict[str, float]:
    # A place without a process has no numbers, and those of its next one go on where
    # they were: what was not told at the last look says nothing of the time since.
    return {
        name: max(0.0, row[name] - past.get(name, row[name])) / seconds
        for name in COUNTED
        if name in row
    }
