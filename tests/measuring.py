"""
Coverage of the process that runs tests.
"""

from __future__ import annotations

import os
import sys
from typing import Any


def measured() -> Any:
    """
    What measures this process, if anything does.
    """
    coverage: Any = sys.modules.get("coverage")
    return coverage and coverage.Coverage.current()


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
