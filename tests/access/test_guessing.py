"""
A simulation: passwords are guessed from many addresses, at every process, all the time.
Nobody else is kept out by that.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from itertools import count
from typing import Any

from argon2 import PasswordHasher
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase

from kvd.access.authentication import Authentication
from kvd.access.counting import CountingMemory
from kvd.access.logins import Logins
from kvd.access.rights_file import parse_rights
from kvd.access.rules import Principal
from kvd.access.throttle import MOST_ATTEMPTS_IN_ALL, Throttle
from kvd.errors import TooManyRequests, Unauthorized

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


class GuessingTests(SynchronousTestCase):
    """
    Each of many addresses guesses again as soon as it is answered.
    """

    def setUp(self) -> None:
        self.clock = Clock()
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

    def guess(self, process: Authentication, network: str) -> None:
        """
        For ever.
        """

        def again(answer: Any) -> None:
            if answer.check(TooManyRequests):
                self.refused += 1
            else:
                answer.trap(Unauthorized)
                self.wrong += 1
            # A client asks no sooner than it has read the reply.
            self.clock.callLater(STEP_SECONDS, self.guess, process, network)

        given = basic("ann", f"guess {next(self.numbers)}")
        answer = process.authenticate(given, network)
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
        answer = process.authenticate(value, network)
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
        At whichever process, also at one that starts later, from wherever it comes, and
        from the first moment on.
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
                asked = process.authenticate(basic("bob", typed), f"{NEW}9{number}")
                assert isinstance(asked, Deferred)
                self.pass_seconds(0.2)
                self.failureResultOf(asked, Unauthorized)
            other = self.start() if number else process
            right = basic("bob", "secret, spelled in another way")
            assert self.seconds_of(other, right, f"{NEW}9{number}") < 0.1
