"""
A simulation: passwords are guessed from many addresses, at every process, all the time.
Nobody else is kept out by that. Or from one address, by a client that gives up each
guess that is not answered at once: it learns nothing by that.
"""

from __future__ import annotations

from base64 import b64encode
from bisect import insort
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from argon2 import PasswordHasher
from twisted.internet.base import DelayedCall
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kvd.access.authentication import Answer, Authentication
from kvd.access.counting import CountingMemory
from kvd.access.logins import Logins
from kvd.access.rights_file import parse_rights
from kvd.access.rules import Principal
from kvd.access.throttle import (
    FREE_FAILURES,
    MOST_ATTEMPTS,
    MOST_ATTEMPTS_IN_ALL,
    MOST_DELAY_SECONDS,
    REFUSAL_SECONDS,
    Throttle,
)
from kvd.errors import TooManyRequests, Unauthorized
from tests.access.asking import ask

HASHES = {
    name: PasswordHasher(1, 8, 1).hash(f"secret of {name}") for name in ("ann", "bob")
}
RIGHTS = "".join(
    f'[users.{name}]\npassword = "{known}"\n' for name, known in HASHES.items()
)

VERIFY_SECONDS = 0.03
STEP_SECONDS = 0.01
GUESSING = 2 * MOST_ATTEMPTS_IN_ALL
PROCESSES = 2

OFFICE = "192.0.2.1"
NEW = "198.51.100.1"
GUESSER = "203.0.113.1"


def basic(name: str, password: str) -> bytes:
    """
    A value of ``Authorization``.
    """
    return b"Basic " + b64encode(f"{name}:{password}".encode())


def secret_of(name: str) -> bytes:
    """
    With the right password.
    """
    return basic(name, f"secret of {name}")


class BusyClock(Clock):
    """
    Twisted's clock sorts all of its calls again for each one that is added: here there
    are hundreds, and most of the time went into that.
    """

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: Any, **kw: Any
    ) -> DelayedCall:
        """
        Put it where it belongs.
        """
        call = DelayedCall(
            self.seconds() + delay,
            callable,
            args,
            kw,
            self.calls.remove,
            lambda call: None,
            self.seconds,
        )
        insort(self.calls, call, key=DelayedCall.getTime)
        return call


@pytest.mark.untraced
class GuessingTests(SynchronousTestCase):
    """
    Each of many addresses guesses again as soon as it is answered.
    """

    def setUp(self) -> None:
        self.clock = BusyClock()
        self.memory = CountingMemory()
        self.processes = [self.start() for _ in range(PROCESSES)]
        self.numbers = count()
        self.refused = self.wrong = 0

    def start(self) -> Authentication:
        """
        One more process.
        """
        return Authentication(
            parse_rights(RIGHTS, "file"),
            Throttle(self.clock, self.memory),
            Logins(self.memory),
            self.verify,
            lambda known, given: known in HASHES.values() and "secret" in given,
        )

    def verify(self, function: Callable[[], None]) -> Deferred[None]:
        """
        Takes its time.
        """
        return deferLater(self.clock, VERIFY_SECONDS, function)

    def ask(self, process: Authentication, value: bytes, network: str) -> Answer:
        """
        Who sends this to a process.
        """
        return ask(self.clock, process, value, network)

    def count(self, answer: Failure) -> None:
        """
        A guess was answered.
        """
        if answer.check(TooManyRequests):
            self.refused += 1
        else:
            answer.trap(Unauthorized)
            self.wrong += 1

    def guess(self, process: Authentication, network: str) -> None:
        """
        For ever.
        """

        def again(answer: Failure) -> None:
            self.count(answer)
            # A client asks no sooner than it has read the reply.
            self.clock.callLater(STEP_SECONDS, self.guess, process, network)

        given = basic("ann", f"guess {next(self.numbers)}")
        answer = self.ask(process, given, network)
        assert isinstance(answer, Deferred)
        answer.addErrback(again)

    def be_guessed_at(self) -> None:
        """
        From now on.
        """
        for number in range(GUESSING):
            for process in self.processes:
                self.guess(process, f"203.0.{number // 256}.{number % 256}")

    def pass_seconds(self, seconds: float) -> None:
        """
        Let time pass.
        """
        for _ in range(round(seconds / STEP_SECONDS)):
            self.clock.advance(STEP_SECONDS)

    def seconds_of(self, process: Authentication, value: bytes, network: str) -> float:
        """
        How long a login takes.
        """
        began = self.clock.seconds()
        answer = self.ask(process, value, network)
        if isinstance(answer, Principal):
            return 0.0
        found: list[Principal] = []
        answer.addCallback(found.append)
        while not answer.called:
            self.pass_seconds(STEP_SECONDS)
        assert found, f"{value!r} from {network}: {answer.result}"
        return self.clock.seconds() - began

    def log_in(self) -> None:
        """
        Ann, at the office, at one process.
        """
        assert 0 < self.seconds_of(self.processes[0], secret_of("ann"), OFFICE) < 0.1

    def test_who_has_logged_in_does_not_wait(self) -> None:
        """
        At whichever process, also at one that starts later, and from the first moment
        on; nor whoever has the same password at an address that is not slowed down.
        """
        self.log_in()
        self.be_guessed_at()
        for _ in range(5):
            for process in (*self.processes, self.start()):
                for network in (OFFICE, NEW, "203.0.0.1"):
                    assert 0.0 == self.seconds_of(process, secret_of("ann"), network)
            self.pass_seconds(1)
        assert self.refused > GUESSING
        assert self.wrong

    def test_an_address_from_which_somebody_has_logged_in_comes_first(self) -> None:
        """
        Whoever comes from there, from the first moment on.
        """
        self.log_in()
        self.be_guessed_at()
        for process in self.processes:
            # It waits for the one that is being verified, and is verified itself.
            assert self.seconds_of(process, secret_of("bob"), OFFICE) < 0.1
        assert self.refused == 0
        self.pass_seconds(2)
        assert self.refused

    def test_another_address_comes_before_those_that_have_failed_more(self) -> None:
        """
        Also if its user mistypes the password a few times.
        """
        self.be_guessed_at()
        # Each has failed by then.
        while self.wrong < 8 * GUESSING:
            self.pass_seconds(1)
        for number, process in enumerate(self.processes):
            network = f"{NEW}{number}"
            assert self.seconds_of(process, secret_of("bob"), network) < 0.1
            for typed in ("secrte", "Secret"):
                asked = self.ask(process, basic("bob", typed), f"{NEW}9{number}")
                assert isinstance(asked, Deferred)
                self.pass_seconds(0.2)
                self.failureResultOf(asked, Unauthorized)
            other = self.start() if number else process
            right = basic("bob", "secret, spelled in another way")
            assert self.seconds_of(other, right, f"{NEW}9{number}") < 0.1

    # -- one address, which gives up each guess that is not answered at once ---

    def is_answered_at_once(self, process: Authentication, value: bytes) -> bool:
        """
        Whether the client that gives up learns that this is right.
        """
        answer = self.ask(process, value, GUESSER)
        if isinstance(answer, Principal):
            return True
        # Nobody reads it; what it fails with is no fault.
        answer.addBoth(lambda _: None)
        return answer.called

    def give_up_guesses(self, number: int, seconds_between: float) -> None:
        """
        At all processes in turn.
        """
        for guess in range(number):
            process = self.processes[guess % PROCESSES]
            value = basic("ann", f"guess {next(self.numbers)}")
            assert not self.is_answered_at_once(process, value)
            self.clock.advance(seconds_between)

    def test_a_right_guess_is_answered_no_sooner_than_a_wrong_one(self) -> None:
        """
        However many were given up before, at whatever rate, at any process: also where
        the same came from elsewhere before. (At each process, those before it has
        answered the first ones are free too.)
        """
        for seconds_between in (0.0, 0.001, 0.01, 0.1):
            for number in (PROCESSES * FREE_FAILURES, 64, 1001):
                self.setUp()
                self.log_in()
                for process in self.processes:
                    assert 0.0 == self.seconds_of(process, secret_of("ann"), NEW)
                self.give_up_guesses(number, seconds_between)

                for process in self.processes:
                    about = f"{number} guesses, {seconds_between} seconds apart"
                    right = secret_of("ann")
                    assert not self.is_answered_at_once(process, right), about

    def test_guesses_at_once_gain_nothing(self) -> None:
        """
        Of a new address: five are free, and one for each further process. All that wait
        are delayed by each that fails.
        """
        for number in range(PROCESSES * (MOST_ATTEMPTS - 2)):
            process = self.processes[number % PROCESSES]
            answer = self.ask(process, basic("ann", f"guess {number}"), GUESSER)
            assert isinstance(answer, Deferred)
            answer.addErrback(self.count)
        found = []
        for seconds in (0.05, 0.5, 5.0, 20.0):
            self.pass_seconds(seconds)
            found.append(self.wrong)
        free = FREE_FAILURES + PROCESSES - 1
        assert found[0] <= free
        # After another 0.1, 0.2, 0.4, 0.8, 1.6, 3.2 seconds, and then each 5.
        assert found[1] <= free + 2
        assert found[2] <= free + 5
        assert free + 6 <= found[3] <= free + 9
        assert PROCESSES * (MOST_ATTEMPTS - 2) == self.wrong + self.refused

    def test_what_is_given_up_delays_what_comes_next(self) -> None:
        """
        A right guess has its turn behind those that were given up.
        """
        self.log_in()
        for _ in range(2 * FREE_FAILURES + 2):
            self.give_up_guesses(1, 0.0)
            self.pass_seconds(2 * MOST_DELAY_SECONDS)
        self.give_up_guesses(3, 0.0)

        seconds = self.seconds_of(self.processes[0], secret_of("ann"), GUESSER)
        assert 3 * MOST_DELAY_SECONDS <= seconds < 4 * MOST_DELAY_SECONDS
        # It has logged in now.
        for process in self.processes:
            assert 0.0 == self.seconds_of(process, secret_of("ann"), GUESSER)

    def test_refusals_tell_nothing(self) -> None:
        """
        Where too many attempts wait, a right guess is refused like all others.
        """
        self.log_in()
        process = self.processes[1]
        for number in range(MOST_ATTEMPTS):
            self.is_answered_at_once(process, basic("ann", f"guess {number}"))
        answers = [
            self.ask(process, value, GUESSER)
            for value in (basic("ann", "one more"), secret_of("ann"))
        ]
        self.clock.advance(2 * REFUSAL_SECONDS)
        for answer in answers:
            assert isinstance(answer, Deferred)
            self.failureResultOf(answer, TooManyRequests)

    def test_others_do_not_wait_for_it(self) -> None:
        """
        Neither at another address, nor where somebody has logged in, even if the
        guesses come from there too.
        """
        self.log_in()
        self.give_up_guesses(1000, 0.01)
        for process in (*self.processes, self.start()):
            for number in range(20):
                network = f"{NEW}{number}"
                assert 0.0 == self.seconds_of(process, secret_of("ann"), network)
        for number in range(1000):
            process = self.processes[number % PROCESSES]
            asked = self.ask(process, basic("ann", f"other {number}"), OFFICE)
            assert isinstance(asked, Deferred)
            asked.addErrback(lambda _: None)
            self.clock.advance(0.01)
            assert 0.0 == self.seconds_of(process, secret_of("ann"), OFFICE)
