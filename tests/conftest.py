"""
What all tests have in common.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, nullcontext, suppress
from unittest import TestCase

import pytest

from tests.measuring import is_traced, tracing

_window: Callable[[], AbstractContextManager[None]] = nullcontext
"""
What is entered while code of kvd may run.
"""


def pytest_collection_finish() -> None:
    """
    Leave what was imported out of every later garbage collection: it is most of what
    there is, and many tests look for garbage of their own.
    """
    gc.enable()
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
        with _window():
            return (yield)
    finally:
        if isinstance(case, TestCase):
            vars(case).clear()


def pytest_sessionstart() -> None:
    """
    Measure no coverage of what pytest does: see `tests.measuring.Tracing`. What is
    imported stays, so that no garbage is looked for meanwhile.
    """
    gc.disable()
    tracing.pause()


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """
    Measure coverage while a file of tests imports what it tests.
    """
    if isinstance(collector, pytest.Module):
        # Whatever ends that, pytest reports when it tries again.
        ended = pytest.Collector.CollectError, pytest.skip.Exception
        with tracing.resumed(), suppress(*ended):
            assert collector.obj is not None
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> None:
    """
    Measure no coverage in a test that need not be traced, nor in what prepares it.
    """
    global _window
    _window = tracing.resumed if is_traced(item) else nullcontext


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_fixture_setup() -> Generator[None, object, object]:
    """
    Measure coverage while a fixture is made.
    """
    with _window():
        return (yield)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    """
    Measure coverage while a test runs.
    """
    with _window():
        return (yield)
