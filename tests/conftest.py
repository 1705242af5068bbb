"""
What all tests have in common.
"""

from __future__ import annotations

import gc
from collections.abc import Generator
from unittest import TestCase

import pytest

from tests.measuring import is_traced, measured


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
    Measure no coverage in a test that need not be traced, nor in what prepares it.
    """
    coverage = measured()
    if not coverage or is_traced(item):
        return (yield)
    coverage.stop()
    try:
        return (yield)
    finally:
        coverage.start()
