"""
Tests for `kvd.store.reading`, compiled and not.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvd.store.reading import is_stale, is_stale_in_python
from tests.exploring import exploring

SECONDS = st.integers(0, 1 << 33)


@pytest.mark.parametrize(
    "form", [is_stale, is_stale_in_python], ids=["compiled", "Python"]
)
def test_a_read_is_noted_when_the_last_one_is_older_than_the_resolution(
    form: Callable[[int, int, int], bool],
) -> None:
    """
    Not in the last second of that time, and never without a resolution.
    """
    assert not form(100, 60, 160)
    assert form(100, 60, 161)
    assert not form(100, 60, 99)
    assert not form(0, 0, 1 << 33)


@exploring()
@given(SECONDS, st.integers(0, 1 << 20), SECONDS)
def test_both_forms_find_the_same_reads_stale(
    accessed: int, resolution: int, present: int
) -> None:
    """
    Whatever the clock says.
    """
    assert is_stale is not is_stale_in_python
    stale = is_stale_in_python(accessed, resolution, present)

    assert stale is is_stale(accessed, resolution, present)
