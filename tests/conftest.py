"""
What all tests have in common.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Generator
from typing import Any

import pytest


def pytest_collection_finish() -> None:
    """
    Leave what was imported out of every later garbage collection: it is most of what
    there is, and many tests look for garbage of their own.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """
    Measure no coverage in a test that is marked ``untraced``.
    """
    coverage: Any = sys.modules.get("coverage")
    measured = coverage and coverage.Coverage.current()
    if not measured or not item.get_closest_marker("untraced"):
        return (yield)
    measured.stop()
    try:
        return (yield)
    finally:
        measured.start()
