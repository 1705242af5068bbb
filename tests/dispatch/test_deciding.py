"""
Tests for `kvd.dispatch.deciding`.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from twisted.logger import LogEvent, capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from kvd.dispatch.deciding import Decider, TimerInPython, make_timer
from kvd.interfaces import IDispatchPolicy
from kvd.model.view import View
from kvd.testing import view


@implementer(IDispatchPolicy)
class Odd:
    """
    Chooses as the test says.
    """

    kernel_chooses = False

    def __init__(self, choose: Callable[[View], Any]) -> None:
        self._choose = choose
        self.asked = 0

    def group_size(self, workers: int) -> int:
        return 1

    def members_of(self, worker: int, workers: int) -> Sequence[int]:
        return ()

    def choose(self, view: View) -> int:
        self.asked += 1
        answer: int = self._choose(view)
        return answer


def say(answer: object, view: View) -> object:
    """
    Always the same.
    """
    return answer


def fail(view: View) -> int:
    """
    As a mistake in a policy does.
    """
    raise KeyError("missing")


def never(view: View) -> int:
    """
    Decides nothing, and takes every exception for its own.
    """
    while True:
        try:
            while True:
                pass
        except Exception:
            continue


def fail_with(error: BaseException, view: View) -> int:
    """
    As somebody else's mistake does.
    """
    raise error


def catch(view: View) -> int:
    """
    Gives the first answer after all, when it is interrupted.
    """
    try:
        while True:
            pass
    except BaseException:
        return view.ready[0]


def stall(view: View) -> int:
    """
    The timer rings before it has done anything.
    """
    signal.raise_signal(signal.SIGALRM)
    return view.ready[-1]


def wait(view: View) -> int:
    """
    For what never comes.
    """
    threading.Event().wait()
    raise AssertionError("it came")


class Unshowable(Exception):
    """
    Its words fail, and not with an Exception.
    """

    def __str__(self) -> str:
        raise SystemExit

    __repr__ = __str__


class Unspeakable(Exception):
    """
    Its words do not end.
    """

    def __str__(self) -> str:
        while True:
            pass


class TimerTests(SynchronousTestCase):
    """
    Either timer rings from its start on until it is stopped.
    """

    def test_it_rings(self) -> None:
        """
        Again and again; and it knows what the thread had used before.
        """
        for make in (TimerInPython, make_timer):
            timer = make(500.0)
            timer.rings = 3
            before = time.thread_time()
            timer.start()
            try:
                left, interval = signal.getitimer(signal.ITIMER_REAL)
            finally:
                timer.stop()
            assert before <= timer.began <= time.thread_time()
            assert 0 == timer.rings
            assert 500.0 == interval
            assert 0 < left <= 500.1
            assert (0.0, 0.0) == signal.getitimer(signal.ITIMER_REAL)
        assert make_timer is not TimerInPython


class DeciderTests(SynchronousTestCase):
    """
    `Decider` gets a ready worker out of any policy.
    """

    def decide(
        self, policy: Odd, times: int = 3
    ) -> tuple[list[int | None], list[LogEvent]]:
        """
        A batch of decisions, and what was logged meanwhile.
        """
        before = signal.getsignal(signal.SIGALRM)
        self.addCleanup(signal.signal, signal.SIGALRM, before)
        decider = Decider("odd", policy)
        with capturedLogs() as events:
            decider.begin()
            try:
                chosen = [
                    decider.ask(view(8, ready=[1, 5, 6], turn=2)) for _ in range(times)
                ]
            finally:
                decider.end()
        return chosen, list(events)

    def test_a_good_answer_is_taken(self) -> None:
        """
        Nothing is logged.
        """
        assert ([6, 6, 6], []) == self.decide(Odd(lambda view: view.ready[-1]))

    def test_a_worker_that_is_not_ready_is_not_taken(self) -> None:
        """
        Nor anything else; whose turn it is gets the connection. Said once.
        """
        for answer in (0, 99, -1, None, "5", 5.0, True):
            chosen, events = self.decide(Odd(partial(say, answer)))

            assert [None, None, None] == chosen
            (event,) = events
            assert "odd" == event["policy"]
            assert repr(answer) in event["what"]

    def test_an_exception_is_reported_once_in_words(self) -> None:
        """
        And the policy is asked again: others of its answers may be good.
        """
        policy = Odd(fail)
        chosen, events = self.decide(policy)

        assert [None, None, None] == chosen
        assert 3 == policy.asked
        (event,) = events
        assert "KeyError: 'missing'" in event["what"]

    def test_a_policy_that_never_decides_is_cut_short(self) -> None:
        """
        And not asked again: every connection would wait for it.
        """
        policy = Odd(never)
        chosen, events = self.decide(policy)

        assert [None, None, None] == chosen
        assert 1 == policy.asked
        (event,) = events
        assert "did not decide" in event["log_format"]

    def test_no_exception_of_a_policy_gets_out(self) -> None:
        """
        Not even one that is meant to end a process.
        """
        for wrong in (SystemExit(3), KeyboardInterrupt(), GeneratorExit()):
            chosen, events = self.decide(Odd(partial(fail_with, wrong)))

            assert [None, None, None] == chosen
            (event,) = events
            assert type(wrong).__name__ in event["what"]

    def test_what_cannot_be_shown_is_named_by_its_type(self) -> None:
        """
        An answer or an exception whose own words fail.
        """
        for choose in (partial(fail_with, Unshowable()), partial(say, Unshowable())):
            chosen, events = self.decide(Odd(choose))

            assert [None, None, None] == chosen
            (event,) = events
            assert "a Unshowable that cannot be shown" in event["what"]

    def test_words_that_take_for_ever_are_cut_short(self) -> None:
        """
        As the decision itself.
        """
        policy = Odd(partial(fail_with, Unspeakable()))
        chosen, events = self.decide(policy)

        assert [None, None, None] == chosen
        assert 1 == policy.asked
        (event,) = events
        assert "did not decide" in event["log_format"]

    def test_a_policy_that_catches_everything_is_left_too(self) -> None:
        """
        Also what it was interrupted with.
        """
        policy = Odd(catch)
        chosen, events = self.decide(policy)

        assert [None, None, None] == chosen
        assert 1 == policy.asked
        (event,) = events
        assert "did not decide" in event["log_format"]

    def test_a_stall_that_is_not_the_policys_is_none_of_its_faults(self) -> None:
        """
        The timer rings, but the policy has hardly run: the machine slept.
        """
        policy = Odd(stall)
        chosen, events = self.decide(policy)

        assert [6, 6, 6] == chosen
        assert [] == events

    def test_a_policy_that_waits_is_cut_short(self) -> None:
        """
        It uses no processor, but holds everybody up.
        """
        policy = Odd(wait)
        chosen, events = self.decide(policy)

        assert [None, None, None] == chosen
        assert 1 == policy.asked
        (event,) = events
        assert "did not decide" in event["log_format"]

    def test_the_timer_ends_with_the_batch(self) -> None:
        """
        It would interrupt somebody else.
        """
        self.decide(Odd(lambda view: view.ready[0]))

        assert (0.0, 0.0) == signal.getitimer(signal.ITIMER_REAL)
