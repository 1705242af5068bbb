"""
What the processes of the workers use: processor time, memory and descriptors, as the
kernel has it. So a worker that hangs is reported like any other.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")

# Of proc_pid_stat(5), counted from the state, the first field behind the name.
_USER_TICKS, _SYSTEM_TICKS, _RESIDENT_PAGES = 11, 12, 21


@dataclass(frozen=True, slots=True)
class ProcessUsage:
    """
    What the process of a worker uses now.
    """

    cpu_seconds: float
    resident_bytes: int
    """With the memory that it shares with the others."""
    descriptors: int


def usage_of(pid: int) -> ProcessUsage | None:
    """
    What a process uses; None if it is gone.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name may contain anything.
            fields = file.read().rpartition(b")")[2].split()
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return None
    return ProcessUsage(
        (int(fields[_USER_TICKS]) + int(fields[_SYSTEM_TICKS])) / _TICKS,
        int(fields[_RESIDENT_PAGES]) * _PAGE_BYTES,
        descriptors,
    )


class Processes:
    """
    Reads what the workers use. The processor time of a worker number covers all
    processes that have had it, as far as they were seen, and never decreases.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._ended: dict[int, float] = {}
        self._last: dict[int, tuple[int, float]] = {}

    def read(
        self, workers: Iterable[tuple[int, int]]
    ) -> tuple[Mapping[int, ProcessUsage], Mapping[int, float]]:
        """
        Read it, in any thread.

        Args:
            workers: The numbers of the workers and the ids of their processes.

        Returns:
            What each process uses, by the number of its worker; and the processor time
            of all worker numbers that there have been.
        """
        with self._lock:
            used = {}
            for worker, pid in workers:
                usage = usage_of(pid)
                if usage is None:
                    continue
                used[worker] = usage
                before, seconds = self._last.get(worker, (pid, 0.0))
                if before != pid:
                    self._ended[worker] = self._ended.get(worker, 0.0) + seconds
                self._last[worker] = pid, usage.cpu_seconds
            return used, {
                worker: self._ended.get(worker, 0.0) + seconds
                for worker, (_, seconds) in sorted(self._last.items())
            }
