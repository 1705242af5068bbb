"""
Tests of what happens within one second of the wall clock.

A value that is published in a later second than it was sealed in is sealed and synced
again: such a test is about the other case. What is compiled reads the clock of the
machine, which no test can stop; so a test that fails is tried again if the second has
changed meanwhile. One that fails within a second has failed.
"""

from __future__ import annotations

import time
import unittest
from collections.abc import Callable
from functools import wraps
from typing import Final, TypeVar

from twisted.trial.unittest import SynchronousTestCase

C = TypeVar("C", bound=SynchronousTestCase)

ATTEMPTS: Final = 20
"""
How often in all. Where a test takes half a second, all fail for this reason once
in a million times.
"""

_attempts_left = ATTEMPTS


def within_a_second(test: Callable[[C], None]) -> Callable[[C], None]:
    """
    Try a test method again, with a new test case, whenever it fails and the second has
    changed since it began.
    """

    @wraps(test)
    def tried(case: C) -> None:
        global _attempts_left
        second = int(time.time())
        try:
            test(case)
        except Exception as failure:
            if second == int(time.time()) or _attempts_left == 1:
                raise
            # What it has logged is no failure either.
            case.flushLoggedErrors()
            _attempts_left -= 1
            try:
                result = unittest.TestResult()
                type(case)(test.__name__).run(result)
            finally:
                _attempts_left += 1
            # Of the last attempt, each in the place of the one before.
            for _, said in result.failures + result.errors:
                raise AssertionError(said) from failure

    return tried
