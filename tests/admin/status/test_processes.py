"""
What the processes of workers use.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from unittest import mock

from kvd.admin.status import processes
from kvd.admin.status.processes import Processes, ProcessUsage, usage_of


def test_the_kernel_says_what_a_process_uses() -> None:
    """
    Of any, whatever its name.
    """
    before = time.process_time()
    own = usage_of(os.getpid())
    with open(os.devnull):
        more = usage_of(os.getpid())

    assert own is not None
    assert more is not None
    # A tick of the clock is 10 ms, and this process has had children.
    assert own.cpu_seconds >= before - 0.1
    assert 1_000_000 < own.resident_bytes < 1 << 40
    assert own.descriptors + 1 == more.descriptors


def test_a_process_that_is_gone_uses_nothing() -> None:
    """
    Its id may be known for a moment longer.
    """
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass

    assert usage_of(process.pid) is None


def test_the_processor_time_of_a_worker_never_decreases() -> None:
    """
    A worker number covers all processes that were seen with it, also when it has none
    any more.
    """
    used = {10: 5.0, 11: 1.0, 12: 0.25}

    def usage(pid: int) -> ProcessUsage | None:
        return ProcessUsage(used[pid], 100, 3) if pid in used else None

    read = Processes().read
    with mock.patch.object(processes, "usage_of", usage):
        assert {0: 5.0, 1: 1.0} == read([(0, 10), (1, 11)])[1]
        assert {0: 5.25, 1: 1.0} == read([(0, 12), (1, 11)])[1]
        used[12] = 2.0
        now, total = read([(0, 12), (1, 99)])
        assert {0} == now.keys()
        assert {0: 7.0, 1: 1.0} == total
        assert {0: 7.0, 1: 1.0} == read([])[1]
