"""
What the workers of a daemon did under a load.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kvd.lab.measuring.processes import cpu_seconds

PERIOD_SECONDS: Final = 0.02
SETTLE_SECONDS: Final = 2.0
"""
The longest wait until the workers have counted the requests that their clients already
have replies to.
"""

Status = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sample:
    """
    The state of all workers at one moment.
    """

    seconds: float
    """`time.monotonic`."""
    in_progress: tuple[int, ...]
    """Requests of each worker."""
    tasks: tuple[int, ...] = ()
    """Clients of each worker: the connections that it has open, those handed over to
    it that it has not taken yet, and those in the queue of a socket of its own.
    What waits at a shared socket belongs to no worker yet."""
    ended: tuple[int, ...] = ()
    """Requests that ended at each worker, since kvd started."""
    busy_seconds: tuple[float, ...] = ()
    """Time in which each worker did not wait for events, since kvd started."""


@dataclass(frozen=True, slots=True)
class Work:
    """
    What the workers did between two moments.
    """

    samples: Sequence[Sample]
    requests: Sequence[int]
    """How many ended at each worker."""
    worker_cpu_seconds: float
    supervisor_cpu_seconds: float
    """Answering the samples is a part of it."""
    connections: Sequence[int] = ()
    """How many each worker got."""


class Sampler:
    """
    Reads a daemon's status again and again.

    It leaves out what workers counted that died meanwhile.
    """

    def __init__(self, ask: Callable[[], Status]) -> None:
        """
        Start to count.

        Args:
            ask: Gives the daemon's status.
        """
        self._ask = ask
        self._samples: list[Sample] = []
        self._next = time.monotonic()
        self._before = ask()
        self._cpu_before = _cpu(self._before)

    def sample(self) -> None:
        """
        Wait until the next sample is due, and take it.
        """
        time.sleep(max(0.0, self._next - time.monotonic()))
        status = self._ask()
        now = time.monotonic()
        # Not a fixed grid: a late sample must not cause a burst.
        self._next = now + PERIOD_SECONDS
        rows = status["workers"]
        self._samples.append(
            Sample(
                now,
                in_progress=tuple(row.get("in_progress", 0) for row in rows),
                tasks=tuple(map(_tasks, rows)),
                ended=tuple(row.get("requests", 0) for row in rows),
                busy_seconds=tuple(row.get("busy_seconds", 0.0) for row in rows),
            )
        )

    def finish(self) -> Work:
        """
        Count the work since the beginning.
        """
        end = time.monotonic() + SETTLE_SECONDS
        while any(self._latest()) and time.monotonic() < end:
            self.sample()
        after = self._ask()
        cpu_after = _cpu(after)
        pairs = list(zip(self._before["workers"], after["workers"], strict=True))
        spent = {
            pid: seconds - self._cpu_before.get(pid, 0.0)
            for pid, seconds in cpu_after.items()
        }
        supervisor = spent.pop(after["pid"], 0.0)
        return Work(
            samples=self._samples,
            requests=[_since("requests", before, now) for before, now in pairs],
            connections=[_since("accepted", before, now) for before, now in pairs],
            worker_cpu_seconds=sum(spent.values()),
            supervisor_cpu_seconds=supervisor,
        )

    def _latest(self) -> tuple[int, ...]:
        self.sample()
        return self._samples[-1].in_progress


def _tasks(row: Status) -> int:
    # The two are not read at the same moment: there may be more requests than
    # connections.
    there = max(row.get("open", 0), row.get("in_progress", 0))
    return int(there + row.get("handing_over", 0) + row.get("accept_queue", 0))


def _since(name: str, before: Status, now: Status) -> int:
    if before["pid"] != now["pid"]:
        return int(now.get(name, 0))
    return int(now.get(name, 0)) - int(before.get(name, 0))


def _cpu(status: Status) -> dict[int, float]:
    """
    The CPU time of the daemon's processes.
    """
    pids = [status["pid"], *(row["pid"] for row in status["workers"])]
    return {pid: _cpu_seconds(pid) for pid in pids if pid}


def _cpu_seconds(pid: int) -> float:
    try:
        return cpu_seconds([pid])
    except (FileNotFoundError, ProcessLookupError):
        # It has ended.
        return 0.0
