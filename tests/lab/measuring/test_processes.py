"""
Tests for `kvd.lab.measuring.processes`.
"""

from __future__ import annotations

import os
import subprocess
import sys

from kvd.lab.measuring.processes import (
    are_asleep,
    cpu_seconds,
    started,
    stop,
    tree,
    wait_for,
)

SLEEPS = [sys.executable, "-c", "input()"]
SPINS = [sys.executable, "-c", "while True: pass"]


def test_a_process_that_waits_is_asleep() -> None:
    """
    One that computes is not, whether it has a processor just now or waits for one.
    """
    with (
        started(SLEEPS, stop, stdin=subprocess.PIPE) as sleeps,
        started(SPINS, stop) as spins,
    ):
        assert wait_for(lambda: are_asleep([sleeps.pid]), 60)
        assert wait_for(lambda: cpu_seconds([spins.pid]) > 0.1, 60)
        assert not are_asleep([sleeps.pid, spins.pid])


def test_a_tree_is_a_process_and_its_descendants() -> None:
    """
    All that it started.
    """
    with started(SLEEPS, stop, stdin=subprocess.PIPE) as process:
        pids = tree(os.getpid())

    assert os.getpid() == pids[0]
    assert process.pid in pids


def test_a_condition_that_does_not_hold_in_time_is_not_awaited_longer() -> None:
    """
    One that holds at once is not waited for.
    """
    assert wait_for(lambda: True, 0)
    assert not wait_for(lambda: False, 0.01)
