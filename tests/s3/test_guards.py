"""
Tests for `kvd.s3.guards`: how a trial of an engine ends. What it finds out, the
contract of engines shows (`tests.s3.contract`).
"""

from __future__ import annotations

from typing import cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kvd.errors import EngineFailed
from kvd.s3.engine import Engine
from kvd.s3.guards import REMOVAL_SECONDS, try_conditions
from kvd.s3.requests import Ask, Reply


class SilentEngine:
    """
    Answers when it is told to.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.asked: list[str] = []
        self._waits: list[Deferred[Reply]] = []

    async def ask(self, ask: Ask) -> Reply:
        self.asked.append(ask.method)
        self._waits.append(Deferred())
        return await self._waits[-1]

    def fail(self, error: Exception) -> None:
        """
        Answer the oldest request with an error.
        """
        self._waits.pop(0).errback(error)


class TrialEndTests(SynchronousTestCase):
    """
    The object of a trial is removed, where there is somebody to wait for that.
    """

    def setUp(self) -> None:
        self.engine = SilentEngine()
        self.trial = try_conditions(cast(Engine, self.engine), "below/")

    def test_a_failure_is_told_when_the_object_is_gone(self) -> None:
        """
        The removal is asked for, and may fail too.
        """
        done = Deferred.fromCoroutine(self.trial)
        failure = EngineFailed("It is full.")
        self.engine.fail(failure)
        assert ["PUT", "DELETE"] == self.engine.asked
        self.assertNoResult(done)
        self.engine.fail(EngineFailed("It is still full."))
        assert failure is self.failureResultOf(done).value

    def test_a_trial_that_is_given_up(self) -> None:
        """
        The removal is asked for, and waited for only for a moment: the engine may be
        silent.
        """
        done = Deferred.fromCoroutine(self.trial)
        done.cancel()
        assert ["PUT", "DELETE"] == self.engine.asked
        self.assertNoResult(done)
        self.engine.clock.advance(REMOVAL_SECONDS)
        self.failureResultOf(done, CancelledError)

    def test_a_program_that_ends_waits_for_nothing(self) -> None:
        """
        A coroutine that is closed, or freed, asks for nothing more.
        """
        self.trial.send(None)
        self.trial.close()
        assert ["PUT"] == self.engine.asked
