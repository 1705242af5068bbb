"""
Tests for `tests.clients.suites`.
"""

from __future__ import annotations

import pytest

from tests.clients.rclone_go import outcomes_in
from tests.clients.suites import LEFT_OUT, judge, left_out


def test_what_is_left_out_may_fail() -> None:
    """
    And is counted.
    """
    outcomes = {"a": None, "b": "wrong", "c": None}

    assert "2 tests passed, 1 left out" == judge(outcomes, {"b": "It is not served."})


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        ({"a": None, "b": "wrong", "c": "bad"}, "c: bad"),
        ({"a": None, "b": None}, "b passes"),
        ({"a": None}, "b is left out, and there is no such test"),
        ({}, "no test"),
    ],
)
def test_everything_else_is_a_fault(outcomes: dict[str, str | None], said: str) -> None:
    """
    Also a list that is longer than it has to be.
    """
    with pytest.raises(AssertionError, match=said):
        judge(outcomes, {"b": "It is not served."})


def test_lists_can_be_read() -> None:
    """
    Each test is in a list once, and has a reason.
    """
    for path in LEFT_OUT.iterdir():
        assert left_out(path.stem)


def test_outcomes_of_go_are_of_the_innermost_tests() -> None:
    """
    And of those around them that fail by themselves.
    """
    said = """
=== RUN   T
=== RUN   T/a
    t.go:1: Not here
=== RUN   T/b
=== RUN   T/b/c
        \tTest:       \tT/b
=== RUN   T/d
--- FAIL: T (0.00s)
    --- SKIP: T/a (0.00s)
    --- FAIL: T/b (0.00s)
        --- PASS: T/b/c (0.00s)
    --- PASS: T/d (0.00s)
"""
    outcomes = outcomes_in(said)

    assert ["T/a", "T/b", "T/b/c", "T/d"] == sorted(outcomes)
    assert "Not here" in str(outcomes["T/a"])
    assert str(outcomes["T/b"]).startswith("FAIL")
    assert (None, None) == (outcomes["T/b/c"], outcomes["T/d"])
