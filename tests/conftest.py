"""
What holds for all tests under pytest.
"""

from __future__ import annotations

from collections.abc import Generator

import pytest
from coverage import Coverage


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, bool, bool]:
    """
    Some tests compute so much that to trace each line takes longer than all others
    together.
    """
    measured = Coverage.current()
    if measured is None or not item.get_closest_marker("untraced"):
        return (yield)
    measured.stop()
    try:
        return (yield)
    finally:
        measured.start()
