"""
What all tests have in common.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Generator
from typing import Any
from unittest import TestCase

import pytest


def pytest_collection_finish() -> None:
    """
    Leave what was imported out of every later garbage collection: it is most of what
    there is, and many tests look for garbage of their own.
    """
    gc.collect()
    gc.freeze()
    # What is collected in full only when it has grown by a quarter is counted from now.
    gc.collect()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """
    Let go what a test case holds. It was made before the freeze: in a circle, it would
    be kept for ever, with its reactor, descriptors and bodies.
    """
    case = getattr(item, "instance", None)
    try:
        return (yield)
    finally:
        if isinstance(case, TestCase):
            vars(case).clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """
    Measure no coverage in a test that is marked ``untraced``, nor in what prepares it.
    """
    measured = _coverage()
    if not measured or not item.get_closest_marker("untraced"):
        return (yield)
    measured.stop()
    try:
        return (yield)
    finally:
        measured.start()


def pytest_configure(config: pytest.Config) -> None:
    """
    Measure this process alone, unless those that it starts are to be measured, too
    (`make coverage`): each of them would load all that measures, and write a file.
    """
    measured = _coverage()
    if hasattr(config, "workerinput") and measured and not _forks_too(measured):
        os.environ.pop("COVERAGE_PROCESS_CONFIG", None)
        os.register_at_fork(after_in_child=_measure_no_more)


def _coverage() -> Any:
    coverage: Any = sys.modules.get("coverage")
    return coverage and coverage.Coverage.current()


def _forks_too(measured: Any) -> bool:
    return "fork" in measured.get_option("run:patch")


def _measure_no_more() -> None:
    measured = _coverage()
    if measured:
        measured.stop()
        # Nor when it is terminated.
        measured._auto_save = False
