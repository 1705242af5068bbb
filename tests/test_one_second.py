"""
Tests for `tests.one_second`.
"""

from __future__ import annotations

import unittest
from collections.abc import Callable, Iterator
from itertools import count, repeat
from unittest import mock

import pytest
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.one_second import ATTEMPTS, within_a_second

ONE_SECOND = repeat(1.5)


def other_seconds() -> Iterator[float]:
    """
    Each time that the clock is read, it is another second.
    """
    return count(1.5)


def run(test: Callable[[SynchronousTestCase], None], clock: Iterator[float]) -> bool:
    """
    Run a test; whether it passed.
    """

    class Case(SynchronousTestCase):
        @within_a_second
        def test_it(self) -> None:
            test(self)

    result = unittest.TestResult()
    with mock.patch("time.time", side_effect=clock):
        Case("test_it").run(result)
    return result.wasSuccessful()


@pytest.mark.parametrize("clock", [ONE_SECOND, other_seconds()])
def test_one_that_passes_runs_once(clock: Iterator[float]) -> None:
    """
    Whether the second changes or not.
    """
    cases: list[SynchronousTestCase] = []

    assert run(cases.append, clock)
    assert 1 == len(cases)


def test_one_that_fails_within_a_second_has_failed() -> None:
    """
    At once.
    """
    cases: list[SynchronousTestCase] = []

    def fail(case: SynchronousTestCase) -> None:
        cases.append(case)
        raise AssertionError

    assert not run(fail, ONE_SECOND)
    assert 1 == len(cases)


@pytest.mark.parametrize("failures", [1, 2, ATTEMPTS - 1])
@pytest.mark.parametrize("failure", [AssertionError, IndexError])
def test_one_that_fails_in_two_seconds_is_tried_again(
    failures: int, failure: type[Exception]
) -> None:
    """
    Each time with a new case, and whatever it has logged.
    """
    cases: list[SynchronousTestCase] = []

    def fail(case: SynchronousTestCase) -> None:
        cases.append(case)
        if len(cases) <= failures:
            Logger().failure("it failed", Failure(MemoryError()))
            raise failure

    assert run(fail, other_seconds())
    assert failures + 1 == len(set(map(id, cases)))


def test_one_that_always_fails_has_failed() -> None:
    """
    However often the second changes.
    """
    cases: list[SynchronousTestCase] = []

    def fail(case: SynchronousTestCase) -> None:
        cases.append(case)
        raise AssertionError

    assert not run(fail, other_seconds())
    assert ATTEMPTS == len(cases)
