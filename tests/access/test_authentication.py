"""
Tests for `kvd.access.authentication`, `kvd.access.throttle` and what they use.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from itertools import pairwise
from unittest import mock

import pytest
from argon2 import PasswordHasher
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kvd.access import authentication, throttle
from kvd.access.authentication import Authentication
from kvd.access.counting import SLOTS, CountingMemory
from kvd.access.logins import Logins
from kvd.access.networks import network_of
from kvd.access.passwords import NOBODYS_HASH, check_hash, has_password, hash_password
from kvd.access.rights_file import parse_rights
from kvd.access.rules import Principal
from kvd.access.throttle import Throttle
from kvd.access.tokens import make_token, token_digest
from kvd.errors import TooManyRequests, Unauthorized
from tests.access.asking import ask

CHEAP = PasswordHasher(1, 8, 1)

TOKEN = "kvd_token"
OLD = "kvd_old"

RIGHTS = f"""
[users.ci]
password = "{CHEAP.hash("secret")}"
[[users.ci.tokens]]
sha256 = "{token_digest(TOKEN).hex()}"
[[users.ci.tokens]]
sha256 = "{token_digest(OLD).hex()}"
expires = 1970-01-01T00:16:40Z
[users.bot]
"""
EXPIRES = 1000.0


def basic(user: str, password: str) -> bytes:
    """
    A value of ``Authorization``.
    """
    return b"Basic " + b64encode(f"{user}:{password}".encode())


def bearer(token: str) -> bytes:
    """
    Likewise.
    """
    return b"Bearer " + token.encode()


class AuthenticationTests(SynchronousTestCase):
    """
    `Authentication` finds out who sends a request.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.waiting: list[tuple[Callable[[], None], Deferred[None]]] = []
        self.verified = 0
        self.memory = CountingMemory()
        self.has_password = has_password
        self.authentication = Authentication(
            parse_rights(RIGHTS, "file"),
            Throttle(self.clock, self.memory),
            Logins(self.memory),
            self.off_reactor,
            lambda known, given: self.has_password(known, given),
        )

    def off_reactor(self, function: Callable[[], None]) -> Deferred[None]:
        """
        Remembers what is to be called.
        """
        called: Deferred[None] = Deferred()
        self.waiting.append((function, called))
        return called

    def verify(self) -> None:
        """
        Do the verifications that wait.
        """
        while self.waiting:
            function, called = self.waiting.pop(0)
            self.verified += 1
            function()
            called.callback(None)

    def pass_seconds(self, seconds: float) -> None:
        """
        Let time pass, in which passwords are verified at once.
        """
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end:
            self.clock.advance(0.01)
            self.verify()

    def ask(
        self, value: bytes | None, network: str = "192.0.2.1"
    ) -> Deferred[Principal]:
        """
        Who sends this.
        """

        async def asked() -> Principal:
            found = ask(self.clock, self.authentication, value, network)
            return await found if isinstance(found, Deferred) else found

        return Deferred.fromCoroutine(asked())

    def who(self, value: bytes | None, network: str = "192.0.2.1") -> str | None:
        """
        Who sends this, after all that has to be verified.
        """
        asked = self.ask(value, network)
        self.verify()
        return self.successResultOf(asked).name

    def refused(self, value: bytes, network: str = "192.0.2.1") -> str:
        """
        The sentence with which this is refused.
        """
        asked = self.ask(value, network)
        self.verify()
        sentence: str = self.failureResultOf(asked, Unauthorized).getErrorMessage()
        return sentence

    def too_many(self, value: bytes, network: str = "192.0.2.1") -> TooManyRequests:
        """
        The refusal of this, which comes after a while: so trying again and again makes
        little work.
        """
        asked = self.ask(value, network)
        self.clock.advance(throttle.REFUSAL_SECONDS - 0.01)
        self.assertNoResult(asked)
        self.clock.advance(0.02)
        error = self.failureResultOf(asked, TooManyRequests).value
        assert isinstance(error, TooManyRequests)
        return error

    def test_nobody_needs_no_credentials(self) -> None:
        """
        A client without credentials has no name.
        """
        assert self.who(None) is None

    def test_a_password_is_verified_once(self) -> None:
        """
        A thousand requests cost one verification, also those that come meanwhile.
        """
        asked = [self.ask(basic("ci", "secret")) for _ in range(200)]
        self.verify()

        assert {"ci"} == {self.successResultOf(each).name for each in asked}
        assert {"ci"} == {self.who(basic("ci", "secret")) for _ in range(800)}
        assert 1 == self.verified

    def test_a_wrong_password_is_verified_once(self) -> None:
        """
        A build with a wrong password keeps nobody busy.
        """
        for _ in range(throttle.FREE_FAILURES):
            assert "wrong" in self.refused(basic("ci", "guess"))

        assert 1 == self.verified

    def test_a_user_without_a_password_is_verified_too(self) -> None:
        """
        The time tells nothing of which users there are.
        """
        with mock.patch.object(self, "has_password", return_value=True) as verify:
            self.refused(basic("nobody", "guess"))
            self.refused(basic("bot", "guess"))

        assert [mock.call(NOBODYS_HASH, "guess")] * 2 == verify.mock_calls
        assert check_hash(NOBODYS_HASH) is None
        assert not has_password(NOBODYS_HASH, "guess")

    def adopt(self, *replaced: tuple[str, str]) -> None:
        """
        Go by another file.
        """
        text = RIGHTS
        for old, new in replaced:
            assert old in text
            text = text.replace(old, new)
        self.authentication.adopt(parse_rights(text, "file"))

    def test_another_file_holds_for_what_is_remembered(self) -> None:
        """
        Passwords and tokens, right and wrong ones.
        """
        for value in (basic("ci", "secret"), bearer(TOKEN)):
            assert "ci" == self.who(value)
        self.refused(basic("ci", "other"))

        self.adopt(
            (RIGHTS.splitlines()[2], f'password = "{CHEAP.hash("other")}"'),
            (token_digest(TOKEN).hex(), token_digest("kvd_new").hex()),
        )
        for value in (basic("ci", "secret"), bearer(TOKEN)):
            assert self.authentication.known(value) is None
            self.refused(value)
        assert {"ci"} == {self.who(basic("ci", "other")), self.who(bearer("kvd_new"))}

    def test_another_file_holds_for_whom_is_being_verified(self) -> None:
        """
        By its hash, if that is another one.
        """
        right, wrong = self.ask(basic("ci", "other")), self.ask(basic("ci", "secret"))
        password = RIGHTS.splitlines()[2]
        self.adopt((password, f'password = "{CHEAP.hash("other")}"'))
        self.verify()
        assert "ci" == self.successResultOf(right).name
        self.failureResultOf(wrong, Unauthorized)
        # The second one began when the first had ended.
        assert 3 == self.verified

        self.adopt()
        gone = self.ask(basic("ci", "secret"))
        self.adopt(("[users.ci]", "[users.ci2]"), ("users.ci.", "users.ci2."))
        self.verify()
        self.failureResultOf(gone, Unauthorized)
        assert self.authentication.known(basic("ci", "secret")) is None

    def test_tokens_need_no_verification(self) -> None:
        """
        As Bearer, or as the password of the token's user.
        """
        assert "ci" == self.who(bearer(TOKEN))
        assert "ci" == self.who(b"bEARER  " + TOKEN.encode())
        assert "ci" == self.who(basic("ci", TOKEN))
        assert 0 == self.verified
        self.refused(basic("bot", TOKEN))
        self.refused(bearer(TOKEN + "x"))
        assert 0 == self.verified

    def test_tokens_expire_by_the_time_of_day(self) -> None:
        """
        At the moment in the file, whatever the clock of the process says.
        """
        with mock.patch("kvd.access.authentication.time.time") as now:
            now.return_value = EXPIRES - 0.1
            assert "ci" == self.who(bearer(OLD))
            now.return_value = EXPIRES
            assert "expired" in self.refused(bearer(OLD))

            assert self.authentication.known(bearer(OLD)) is None
            now.return_value = EXPIRES - 0.1
            for value, expires in (
                (bearer(OLD), EXPIRES),
                (basic("ci", OLD), EXPIRES),
                (bearer(TOKEN), None),
                (None, None),
            ):
                known = self.authentication.known(value)
                assert known is not None
                assert expires == known.expires

    def test_malformed_credentials_are_not_repeated(self) -> None:
        """
        Whoever sees the reply or a log learns nothing of them.
        """
        for value in (
            b"",
            b"Basic",
            b"Bearer",
            b"Digest hidden",
            b"Basic hidden!",
            b"Basic " + b64encode(b"hidden"),
            b"Basic " + b64encode(b"\xff:hidden"),
            b"Basic " + b64encode(b"ci:hid\nden"),
            b"Bearer hid den",
            b"Bearer hidden, Bearer hidden",
            b"Basic " + b64encode(b"ci:hidden") + b", Bearer hidden",
            # Its normal form would take the interpreter's lock for too long.
            b"Basic " + b64encode(b"ci:" + b"hidden" * 200),
        ):
            sentence = self.refused(value, value.hex())

            assert "hid" not in sentence, value
        assert 0 == self.verified

    def test_what_is_remembered_is_bounded(self) -> None:
        """
        Wrong passwords of many addresses do not make others pay twice.
        """
        assert "ci" == self.who(basic("ci", "secret"))
        with (
            mock.patch.object(authentication, "MOST_REMEMBERED", 10),
            mock.patch.object(self, "has_password", return_value=False),
        ):
            for number in range(50):
                self.refused(basic("ci", f"guess {number}"), str(number))
        assert "ci" == self.who(basic("ci", "secret"))

        assert 51 == self.verified
        assert 10 >= len(self.authentication._remembered)

    def test_refusals_of_an_address_come_one_by_one(self) -> None:
        """
        However many connections it has; those of other addresses come in their time.
        """
        with mock.patch.object(throttle, "MOST_ATTEMPTS", 0):
            asked = [self.ask(basic("ci", str(number))) for number in range(1000)]
            other = self.ask(basic("ci", "guess"), "192.0.2.2")
            refused = []
            # Sums of a tenth are not exact.
            self.clock.advance(0.1 * throttle.REFUSAL_GAP_SECONDS)
            for _ in range(4):
                self.clock.advance(0.5 * throttle.REFUSAL_SECONDS)
                refused.append(sum(each.called for each in asked))
            in_all = throttle.MOST_REFUSAL_SECONDS
            self.clock.advance(in_all)

            each_half = 0.5 * throttle.REFUSAL_SECONDS / throttle.REFUSAL_GAP_SECONDS
            assert [0, 1, 1 + each_half, 1 + 2 * each_half] == refused
            self.failureResultOf(other, TooManyRequests)
            for each in asked:
                self.failureResultOf(each, TooManyRequests)
            # All that waited is forgotten.
            self.too_many(basic("ci", "guess"))

    def test_refusals_of_one_password_come_one_by_one(self) -> None:
        """
        To all connections of an address that ask with it while it cannot be verified.
        """
        asked = [self.ask(basic("ci", "guess")) for _ in range(4)]
        (function, called) = self.waiting.pop()
        with mock.patch.object(self, "has_password", side_effect=MemoryError("no")):
            maybeDeferred(function).chainDeferred(called)
        refused = []
        self.clock.advance(throttle.REFUSAL_SECONDS + 0.01)
        for _ in asked:
            refused.append(sum(each.called for each in asked))
            self.clock.advance(throttle.REFUSAL_GAP_SECONDS)

        assert [1, 2, 3, 4] == refused
        for each in asked:
            self.failureResultOf(each, MemoryError)

    def test_a_wrong_password_is_not_told_to_any_number_at_once(self) -> None:
        """
        Those that wait for one verification cost no other one, but replies: beyond as
        many as could wait each for its own, they come one by one. A right password
        serves all.
        """
        guess = basic("ci", "guess")
        asked = [self.ask(guess) for _ in range(throttle.MOST_ATTEMPTS + 20)]
        self.verify()
        assert 1 == self.verified
        assert throttle.MOST_ATTEMPTS == sum(each.called for each in asked)
        self.clock.advance(throttle.REFUSAL_SECONDS + 0.01)
        self.clock.advance(throttle.REFUSAL_GAP_SECONDS)
        assert throttle.MOST_ATTEMPTS + 2 == sum(each.called for each in asked)
        self.clock.advance(20 * throttle.REFUSAL_GAP_SECONDS)
        for each in asked:
            self.failureResultOf(each, Unauthorized)

        asked = [self.ask(basic("ci", "secret")) for _ in range(100)]
        self.pass_seconds(throttle.FIRST_DELAY_SECONDS)
        assert {"ci"} == {self.successResultOf(each).name for each in asked}

    def test_refusals_of_one_password_are_those_of_each_address(self) -> None:
        """
        One that waits for what another one has begun does not wait behind it then.
        """
        asked = [
            self.ask(basic("ci", "secret"), network)
            for network in ("192.0.2.1", "192.0.2.2")
        ]
        with mock.patch.object(self, "has_password", side_effect=MemoryError("no")):
            (function, called) = self.waiting.pop()
            maybeDeferred(function).chainDeferred(called)
        self.clock.advance(throttle.REFUSAL_SECONDS)
        for each in asked:
            self.failureResultOf(each, MemoryError)

    def test_failures_slow_an_address_down(self) -> None:
        """
        Before the next attempt is verified; other addresses, and what is known, do not
        wait.
        """
        assert "ci" == self.who(basic("ci", "secret"))
        for number in range(throttle.FREE_FAILURES):
            self.refused(basic("ci", f"guess {number}"))
        seconds = []
        for number in range(12):
            asked = self.ask(basic("ci", f"other guess {number}"))
            began = self.clock.seconds()
            while not asked.called:
                assert not self.waiting
                self.clock.advance(0.1)
                self.verify()
            seconds.append(round(self.clock.seconds() - began, 1))
            self.failureResultOf(asked, Unauthorized)

        expected = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, *[throttle.MOST_DELAY_SECONDS] * 6]
        for waited, due in zip(seconds, expected, strict=True):
            assert due <= waited < due + 0.15
        assert "ci" == self.who(basic("ci", "secret"))
        assert "ci" == self.who(bearer(TOKEN))
        assert "wrong" in self.refused(basic("ci", "guess"), "192.0.2.2")
        wrong_token = self.ask(bearer("kvd_wrong"))
        self.assertNoResult(wrong_token)
        self.clock.advance(throttle.MOST_DELAY_SECONDS)
        self.failureResultOf(wrong_token, Unauthorized)

    def test_attempts_at_once_are_delayed_by_those_before(self) -> None:
        """
        As if each came when the one before it has failed: of an address that has not
        failed yet, too. What waits for too long meanwhile is refused.
        """
        seconds: list[float] = []
        refused: list[Failure] = []

        def failed(failure: Failure) -> None:
            if failure.check(Unauthorized):
                seconds.append(self.clock.seconds())
            else:
                refused.append(failure)

        for number in range(30):
            self.ask(basic("ci", f"guess {number}")).addErrback(failed)
        other = self.ask(basic("ci", "guess"), "192.0.2.2")
        self.verify()
        assert [0.0] * throttle.FREE_FAILURES == seconds
        self.failureResultOf(other, Unauthorized)

        self.pass_seconds(30)
        delays = [after - before for before, after in pairwise(seconds[4:])]
        # The last one would have waited for more than 20 seconds.
        for expected, delay in zip(
            (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0), delays, strict=True
        ):
            assert expected <= delay + 0.001 < expected + 0.02
        assert 30 == len(seconds) + len(refused)
        assert refused
        for each in refused:
            assert each.check(TooManyRequests)

    def test_attempts_at_once_of_those_who_know_wait_for_nobody(self) -> None:
        """
        The users of a whole network may log in at once.
        """
        with mock.patch.object(self, "has_password", return_value=True):
            asked = [
                self.ask(basic("ci", f"secret {number}"))
                for number in range(throttle.MOST_ATTEMPTS)
            ]
            self.verify()
        assert {"ci"} == {self.successResultOf(each).name for each in asked}

    def test_attempts_that_wait_are_bounded(self) -> None:
        """
        At once, those of an address; one behind the other, if it has failed before.
        """
        for each in (
            self.ask(basic("ci", f"guess {number}"))
            for number in range(throttle.MOST_ATTEMPTS)
        ):
            each.addErrback(lambda _: None)
        assert 1 <= self.too_many(basic("ci", "more")).seconds
        self.verify()
        self.pass_seconds(30)

        more = [self.ask(basic("ci", f"more {number}")) for number in range(4)]
        self.clock.advance(throttle.MOST_DELAY_SECONDS)
        self.verify()
        assert [True, False, False, False] == [each.called for each in more]
        self.clock.advance(throttle.MOST_DELAY_SECONDS)
        self.verify()
        assert [True, True, False, False] == [each.called for each in more]
        more += [self.ask(basic("ci", f"many more {number}")) for number in range(3)]
        # One of these was refused.
        self.clock.advance(throttle.REFUSAL_GAP_SECONDS)
        late = self.too_many(basic("ci", "last"))
        assert throttle.MOST_WAIT_SECONDS < late.seconds
        for each in more:
            each.addErrback(lambda _: None)

    def test_all_attempts_together_are_bounded(self) -> None:
        """
        From however many addresses they come; what is over makes room.
        """
        for number in range(throttle.MOST_ATTEMPTS_IN_ALL):
            self.ask(basic("ci", "secret" + str(number)), str(number)).addErrback(
                lambda _: None
            )
        self.too_many(basic("ci", "more"), "x")
        self.verify()

        assert "ci" == self.who(basic("ci", "secret"), "x")

    def test_addresses_are_forgotten(self) -> None:
        """
        The table of failures is bounded, and old failures do not count.
        """
        for number in range(SLOTS + 10):
            self.refused(bearer("kvd_wrong"), str(number))

        for _ in range(throttle.FREE_FAILURES + 3):
            self.ask(bearer("kvd_wrong")).addErrback(lambda _: None)
        self.pass_seconds(throttle.MOST_DELAY_SECONDS)
        self.clock.advance(throttle.FORGET_SECONDS + 1)
        self.refused(bearer("kvd_wrong"))

    def test_failures_count_at_all_processes(self) -> None:
        """
        Whoever has failed at one waits at the others, and behind those that wait there.
        """
        for _ in range(throttle.FREE_FAILURES):
            self.refused(bearer("kvd_wrong"))
        second = self.second_process()
        self.clock.advance(throttle.FIRST_DELAY_SECONDS)
        first = self.ask(bearer("kvd_wrong"))
        asked = second.authenticate(bearer("kvd_wrong"), "192.0.2.1")
        assert isinstance(asked, Deferred)
        self.failureResultOf(first, Unauthorized)
        self.clock.advance(2 * throttle.FIRST_DELAY_SECONDS - 0.001)
        self.assertNoResult(asked)
        self.clock.advance(0.01)
        self.failureResultOf(asked, Unauthorized)

    def test_a_failure_delays_whoever_waits_at_another_process(self) -> None:
        """
        Also if its turn was set before.
        """
        self.be_slowed("192.0.2.1")
        second = self.second_process()
        first = self.ask(bearer("kvd_wrong"))
        asked = second.authenticate(bearer("kvd_wrong"), "192.0.2.1")
        assert isinstance(asked, Deferred)
        self.clock.advance(throttle.FIRST_DELAY_SECONDS)
        self.failureResultOf(first, Unauthorized)
        self.clock.advance(throttle.FIRST_DELAY_SECONDS)
        self.clock.advance(throttle.FIRST_DELAY_SECONDS - 0.001)
        self.assertNoResult(asked)
        self.clock.advance(0.01)
        self.failureResultOf(asked, Unauthorized)

    def test_an_attempt_whose_turn_moves_away_at_once_is_refused(self) -> None:
        """
        There was time enough when it came, and other processes have taken it before it
        was given its turn.
        """
        network = "192.0.2.1"
        self.be_slowed(network)
        table = self.memory.failures

        class MeanwhileLogins(Logins):
            """
            Asked between the two.
            """

            def has_address(self, network: str) -> bool:
                _, slot = table.slot(network)
                table.words[slot + 3] += round(throttle.MOST_WAIT_SECONDS * 1e9)
                return super().has_address(network)

        with mock.patch.object(throttle, "Logins", MeanwhileLogins):
            second = self.second_process()
        asked = ask(self.clock, second, bearer("kvd_wrong"), network)
        assert isinstance(asked, Deferred)
        self.clock.advance(throttle.REFUSAL_SECONDS)
        self.failureResultOf(asked, TooManyRequests)

    def test_a_thread_that_fails_refuses_nobody_for_ever(self) -> None:
        """
        The failure reaches whoever asked, and the next one is verified anew.
        """
        with mock.patch.object(
            self, "has_password", side_effect=MemoryError("no room")
        ):
            self.fail_to_verify(basic("ci", "secret"))

        assert "ci" == self.who(basic("ci", "secret"))

    def fail_to_verify(self, value: bytes) -> None:
        """
        Nothing is known of a password: whoever asks learns that after a while.
        """
        asked = self.ask(value)
        (function, called) = self.waiting.pop()
        maybeDeferred(function).chainDeferred(called)
        self.assertNoResult(asked)
        self.clock.advance(throttle.REFUSAL_SECONDS)
        self.failureResultOf(asked, MemoryError)

    def test_what_is_not_verified_is_no_failure(self) -> None:
        """
        Its address is not slowed down by it for longer than its refusal takes; for so
        long it is, or it could try all that it liked.
        """
        assert "ci" == self.who(basic("ci", "secret"), "192.0.2.2")
        with mock.patch.object(self, "has_password", side_effect=MemoryError("no")):
            for number in range(2 * throttle.FREE_FAILURES):
                self.fail_to_verify(basic("ci", f"guess {number}"))
            guess = self.ask(basic("ci", "guess"))
            (function, called) = self.waiting.pop()
            maybeDeferred(function).chainDeferred(called)
            right = self.ask(basic("ci", "secret"))
            self.assertNoResult(right)
        self.clock.advance(throttle.REFUSAL_SECONDS)
        self.failureResultOf(guess, MemoryError)
        self.verify()
        assert "ci" == self.successResultOf(right).name

        for number in range(throttle.FREE_FAILURES):
            assert "wrong" in self.refused(basic("ci", f"other guess {number}"))

    def second_process(self) -> Authentication:
        """
        Of the same daemon.
        """
        return Authentication(
            parse_rights(RIGHTS, "file"),
            Throttle(self.clock, self.memory),
            Logins(self.memory),
            self.off_reactor,
            lambda known, given: self.has_password(known, given),
        )

    def be_slowed(self, network: str) -> None:
        """
        An address fails a few times.
        """
        for _ in range(throttle.FREE_FAILURES):
            self.refused(bearer("kvd_wrong"), network)

    def test_a_known_password_logs_an_address_in(self) -> None:
        """
        Also if it was verified for another one, and at another process.
        """
        assert "ci" == self.who(basic("ci", "secret"))
        second = self.second_process()
        for network in ("192.0.2.2", "192.0.2.3"):
            # From what all processes know, and from what this one does.
            asked = second.authenticate(basic("ci", "secret"), network)
            assert isinstance(asked, Principal)
            self.be_slowed(network)
            assert "ci" == self.who(basic("ci", "secret"), network)
        self.be_slowed("192.0.2.4")
        waiting = self.ask(basic("ci", "secret"), "192.0.2.4")
        self.assertNoResult(waiting)
        self.clock.advance(throttle.FIRST_DELAY_SECONDS)
        self.verify()
        assert "ci" == self.successResultOf(waiting).name
        assert "ci" == self.who(basic("ci", "secret"), "192.0.2.4")

    def test_tokens_do_not_wait(self) -> None:
        """
        Nobody guesses them. Nor is a client without credentials slowed down.
        """
        self.be_slowed("192.0.2.2")
        for value in (bearer(TOKEN), basic("ci", TOKEN)):
            assert "ci" == self.who(value, "192.0.2.2")
        assert self.who(None, "192.0.2.2") is None

    def test_nobody_hears_before_its_time_what_another_one_asked(self) -> None:
        """
        A password that is being verified for somebody else.
        """
        self.be_slowed("192.0.2.2")
        other = self.ask(basic("ci", "secret"), "192.0.2.3")
        asked = self.ask(basic("ci", "secret"), "192.0.2.2")
        self.verify()
        assert "ci" == self.successResultOf(other).name
        self.assertNoResult(asked)
        self.clock.advance(throttle.FIRST_DELAY_SECONDS)
        self.verify()
        assert "ci" == self.successResultOf(asked).name


@pytest.mark.parametrize(
    ("peer", "network"),
    [
        (("192.0.2.1", 1234), "192.0.2.1"),
        (("::ffff:192.0.2.1", 1234, 0, 0), "192.0.2.1"),
        (("2001:db8:1:2:3:4:5:6", 1234, 0, 0), "2001:db8:1:2::"),
        (("fe80::1%eth0", 1234, 0, 2), "fe80::"),
        ("", "unix"),
        (b"", "unix"),
        (None, "unix"),
    ],
)
def test_addresses_that_count_as_one(peer: object, network: str) -> None:
    """
    An IPv4 address, the 64 bits of IPv6 that a customer gets, all Unix sockets.
    """
    assert network == network_of(peer)


def test_passwords_are_hashed_by_what_this_accepts() -> None:
    """
    One spelling of a letter is as good as another.
    """
    made = hash_password("caf\u00e9")

    assert check_hash(made) is None
    assert has_password(made, "cafe\u0301")
    assert not has_password(made, "cafe")
    assert not has_password(made[:-1] + "$", "caf\u00e9")


def test_hashes_of_all_kinds_are_verified() -> None:
    """
    Other programs make Argon2i and Argon2d.
    """
    from argon2 import Type

    for kind in Type:
        made = PasswordHasher(1, 8, 1, type=kind).hash("secret")

        assert check_hash(made) is None
        assert has_password(made, "secret")
        assert not has_password(made, "guess")


def test_tokens_are_random() -> None:
    """
    256 bits, behind what tells that it is a token.
    """
    made = {make_token() for _ in range(100)}

    assert 100 == len(made)
    assert {len("kvd_") + 43} == set(map(len, made))
