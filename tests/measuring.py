"""
Coverage of the process that runs tests.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Final

import pytest

_TESTS: Final = Path(__file__).parent

REACHED_ELSEWHERE: Final = frozenset(
    _TESTS / name
    for name in (
        "dispatch/test_dispatcher.py",
        "http/fast_path/test_conditions.py",
        "http/fast_path/test_gets.py",
        "http/fast_path/test_idle.py",
        "http/fast_path/test_puts.py",
        "http/fast_path/test_recent.py",
        "http/methods/test_listing.py",
        "http/test_authorization.py",
        "http/test_connection.py",
        "http/test_freed.py",
        "http/test_moving.py",
        "http/test_run_queue.py",
        "http/wire/test_fuzz.py",
        "lab/bench/test_ratios.py",
        "lab/simulate/test_balancing.py",
        "lab/simulate/test_load.py",
        "store/test_dates.py",
        "store/test_epochs.py",
        "store/test_file.py",
        "store/test_memory.py",
        "store/test_other_hands.py",
    )
)
"""
Tests that compute much and reach next to nothing of kvd that others do not reach: all
of them together 0.4 % of its lines and branches. While they run, nothing is measured:
that takes as long again in Python 3.11, whatever they run.
"""


def measured() -> Any:
    """
    What measures this process, if anything does.
    """
    coverage: Any = sys.modules.get("coverage")
    return coverage and coverage.Coverage.current()


def is_traced(item: pytest.Item) -> bool:
    """
    Whether coverage is measured while a test computes.
    """
    return (
        item.path not in REACHED_ELSEWHERE
        and item.get_closest_marker("untraced") is None
    )


def measure_this_process_alone() -> None:
    """
    Leave out the processes that it starts, unless they are measured too (`make
    coverage`): each of them would load all that measures, and write a file.
    """
    coverage = measured()
    if coverage and "fork" not in coverage.get_option("run:patch"):
        os.environ.pop("COVERAGE_PROCESS_CONFIG", None)
        os.register_at_fork(after_in_child=_measure_no_more)


def save() -> None:
    """
    Keep what was measured, in a file of this process.
    """
    coverage = measured()
    if coverage:
        coverage.stop()
        coverage.save()


def _measure_no_more() -> None:
    coverage = measured()
    if coverage:
        coverage.stop()
        # Nor when it is terminated.
        coverage._auto_save = False
