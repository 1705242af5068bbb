"""
Who sends a request: from the field ``Authorization``, or a signature, to a user.

A token is looked up. A password takes tens of milliseconds to verify, in another
process (`kvd.access.verifying`), so a pair of name and password that was verified is
remembered, by a hash with a random key of this process: a build's thousand requests
cost one verification, also if they come at once. Pairs that were wrong are remembered
too. All of it is forgotten when the rights file has changed.

What is remembered of passwords is not used for an address that is being slowed down and
has never logged in (`Authentication.logs_in_at_once`): whether a guess is right must
not be told sooner than that it is wrong.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from kvd.access.credentials import Bearer, Password, read_credentials
from kvd.access.logins import Logins
from kvd.access.passwords import NOBODYS_HASH
from kvd.access.rules import TOKEN_INDEX_BYTES, AccessRules, Principal, Token
from kvd.access.signatures import read_signature, signing_key
from kvd.access.throttle import MOST_ATTEMPTS, Attempt, Throttle
from kvd.access.tokens import TOKEN_PREFIX, token_digest
from kvd.errors import (
    AccessRefused,
    RefusedLater,
    SignatureRefused,
    TooManyRequests,
    Unauthorized,
)
from kvd.model.codings import SignatureChain
from kvd.model.requests import Request

MOST_REMEMBERED: Final = 4096
"""
Pairs of name and password whose outcome is known.
"""

OffReactor = Callable[[Callable[[], None]], Deferred[None]]
"""
Calls a function in a thread; the Deferred fires in the reactor when it has returned.
"""

Answer = Principal | Deferred[Principal]

MOST_SIGNING_KEYS: Final = 256
"""
That are remembered: each is of one access key, day and region.
"""

_WRONG: Final = "The name or the password is wrong."


class Known(NamedTuple):
    """
    Who sends a request, and how long that holds.
    """

    principal: Principal
    expires: float | None
    """In seconds since the epoch; None: as long as the rights file."""
    by_password: bool = False
    """Whether a password shows it: then it holds where one `logs_in_at_once`."""


class Signer(NamedTuple):
    """
    Who has signed a request.
    """

    principal: Principal
    chain: SignatureChain
    """Verifies the chunks of its body."""


class _Asking(NamedTuple):
    """
    A request that waits for the verification of its password.
    """

    answer: Deferred[Principal]
    network: str


class Authentication:
    """
    Knows the users of a process.
    """

    def __init__(
        self,
        rules: AccessRules,
        throttle: Throttle,
        logins: Logins,
        off_reactor: OffReactor,
        has_password: Callable[[str, str], bool],
    ) -> None:
        """
        Args:
            rules: Of the rights file.
            throttle: Slows down attempts that fail.
            logins: Remembers those that succeed, for all processes.
            off_reactor: One function after the other.
            has_password: Whether a hash is of a password; may block.
        """
        self._rules = rules
        self._throttle = throttle
        self._logins = logins
        self._off_reactor = off_reactor
        self._has_password = has_password
        self._key = secrets.token_bytes(32)
        self._remembered: dict[bytes, str | None] = {}
        self._verifying: dict[bytes, list[_Asking]] = {}
        """Who waits for the verification of a password, first come first."""
        self._signing_keys: dict[tuple[str, str], bytes] = {}
        self._familiar: set[str] = set()
        """Addresses that have logged in."""

    def adopt(self, rules: AccessRules) -> None:
        """
        Go by another rights file from now on, also for requests that wait for the
        verification of a password.
        """
        self._rules = rules
        self._remembered.clear()
        self._signing_keys.clear()

    def authenticate(self, value: bytes | None, network: str) -> Answer:
        """
        Find out who sends a request.

        Args:
            value: Of ``Authorization``; None: there is none.
            network: Whom failures are counted for.

        Raises:
            Unauthorized: The credentials are wrong, or the Deferred fails with this.
            RefusedLater: Likewise, if too many others are being verified, if this
                cannot be, or if too many have asked with the same wrong password.
        """
        known = self.known(value)
        if known is not None and (
            not known.by_password or self.logs_in_at_once(network)
        ):
            return known.principal
        assert value is not None
        try:
            given = read_credentials(value)
        except Unauthorized as error:
            return self._failed(error, network)
        if isinstance(given, Bearer) or given.password.startswith(TOKEN_PREFIX):
            if self._token_of(given) is not None:
                # It would be known otherwise.
                raise Unauthorized("This token has expired: ask for a new one.")
            return self._failed(Unauthorized("There is no such token."), network)
        return self._by_password(given, value, network)

    def known(self, value: bytes | None) -> Known | None:
        """
        Who sends a request, if that is known without a verification.

        Returns:
            None if it is not, or if the credentials are wrong. Of a password, it may
            be used only where that `logs_in_at_once`.
        """
        if value is None:
            return Known(self._rules.anonymous, None)
        name = self._remembered.get(self._mac(value))
        if name is not None:
            return Known(self._rules.users[name].principal, None, by_password=True)
        try:
            given = read_credentials(value)
        except Unauthorized:
            return None
        token = self._token_of(given)
        if token is None or token.has_expired(time.time()):
            return None
        return Known(self._rules.users[token.user].principal, token.expires)

    def logs_in_at_once(self, network: str) -> bool:
        """
        A password that is known has come from an address: whether its request is served
        at once. If so, the address has logged in, for all processes. Otherwise the
        password is to be treated like any other (`authenticate`).
        """
        if network in self._familiar:
            return True
        if not self._logins.has_address(network):
            if self._throttle.is_slowed(network):
                return False
            self._logins.remember_address(network)
        if len(self._familiar) >= MOST_REMEMBERED:
            self._familiar.clear()
        self._familiar.add(network)
        return True

    # -- tokens ---------------------------------------------------------------

    def _token_of(self, given: Bearer | Password) -> Token | None:
        """
        The token that was given, if there is one; for clients that only know Basic,
        also as the password of its user.
        """
        if isinstance(given, Bearer):
            return self._token(given.token)
        if not given.password.startswith(TOKEN_PREFIX):
            return None
        token = self._token(given.password)
        return token if token is not None and token.user == given.user else None

    def _token(self, text: str) -> Token | None:
        digest = token_digest(text)
        token = self._rules.tokens.get(digest[:TOKEN_INDEX_BYTES])
        if token is None or not hmac.compare_digest(digest, token.digest):
            return None
        return token

    # -- signatures -----------------------------------------------------------

    def signer(self, request: Request, network: str) -> Signer | Deferred[Signer]:
        """
        Find out who has signed a request.

        Args:
            request: One that `is_signed`.
            network: Whom failures are counted for.

        Raises:
            SignatureRefused: Nobody has, or not now; or the Deferred fails with this.
            RefusedLater: Likewise, if too many others wait.
        """
        signature = read_signature(request)
        now = time.time()
        signature.check_time(now)
        key = self._rules.access_keys.get(signature.access_key)
        if key is None or key.has_expired(now):
            wrong = "is unknown" if key is None else "has expired"
            code = "InvalidAccessKeyId"
            error = SignatureRefused(f"The access key {wrong}.", code)
            return self._failed(error, network)
        by = (signature.access_key, signature.scope)
        signing = self._signing_keys.get(by) or signing_key(key.secret, by[1])
        try:
            chain = signature.chain(signing)
        except SignatureRefused as wrong_signature:
            return self._failed(wrong_signature, network)
        if len(self._signing_keys) >= MOST_SIGNING_KEYS:
            self._signing_keys.clear()
        self._signing_keys[by] = signing
        return Signer(self._rules.users[key.user].principal, chain)

    def _failed(self, error: AccessRefused, network: str) -> Deferred[Any]:
        attempt = self._begin(network, verifies=False)
        if attempt.goes_on:
            self._throttle.end(attempt, failed=True)
            raise error
        refused: Deferred[Any] = Deferred()

        def refuse(_: object) -> None:
            self._throttle.end(attempt, failed=True)
            refused.errback(error)

        def made_room(failure: Failure) -> None:
            refused.errback(self._refusal(network, failure))

        attempt.turn.addCallbacks(refuse, made_room)
        return refused

    def _begin(self, network: str, *, verifies: bool) -> Attempt:
        try:
            return self._throttle.begin(network, verifies=verifies)
        except TooManyRequests as error:
            raise self._throttle.refusal(network, error) from error

    def _refusal(self, network: str, failure: Failure) -> RefusedLater:
        assert failure.value is not None
        return self._throttle.refusal(network, failure.value)

    # -- passwords ------------------------------------------------------------

    def _mac(self, value: bytes) -> bytes:
        return hmac.digest(self._key, value, "sha256")

    def _by_password(self, given: Password, value: bytes, network: str) -> Answer:
        mac = self._mac(value)
        if self._remembered.get(mac, given.user) is None:
            return self._failed(Unauthorized(_WRONG), network)
        password_hash = self._hash_of(given.user)
        if (
            password_hash
            and self._logins.has_credentials(value, password_hash)
            and self.logs_in_at_once(network)
        ):
            self._remember(mac, given.user)
            return self._rules.users[given.user].principal
        # What others are told of it in their time is not told there.
        pair = mac + network.encode() if self._throttle.is_slowed(network) else mac
        asking = _Asking(Deferred(), network)
        if pair in self._verifying:
            self._verifying[pair].append(asking)
            return asking.answer
        attempt = self._begin(network, verifies=True)
        self._verifying[pair] = [asking]
        attempt.turn.addCallbacks(
            lambda _: self._verify(given, value, pair, attempt),
            lambda failure: self._refuse_all(pair, failure),
        )
        return asking.answer

    def _refuse_all(self, pair: bytes, failure: Failure) -> None:
        """
        Whether a password is right was not found out.
        """
        for answer, network in self._verifying.pop(pair):
            answer.errback(self._refusal(network, failure))

    def _hash_of(self, name: str) -> str | None:
        user = self._rules.users.get(name)
        return None if user is None else user.password_hash

    def _verify(
        self, given: Password, value: bytes, pair: bytes, attempt: Attempt
    ) -> None:
        mac, password_hash = self._mac(value), self._hash_of(given.user)
        found: list[bool] = []

        def verify() -> None:
            known_hash = password_hash or NOBODYS_HASH
            found.append(self._has_password(known_hash, given.password))

        def verified(failure: Failure | None) -> None:
            if self._hash_of(given.user) != password_hash:
                # The rights file has changed meanwhile.
                self._verify(given, value, pair, attempt)
                return
            if failure is not None:
                # Later, and passwords that are known wait meanwhile: otherwise whoever
                # guesses would not be slowed down while none can be verified.
                self._refuse_all(pair, failure)
                self._throttle.end(attempt, failed=False)
                return
            right = found[0] and password_hash is not None
            waiting = self._verifying.pop(pair)
            self._remember(mac, given.user if right else None)
            if right and password_hash is not None:
                self._logins.remember(value, password_hash, attempt.network)
            # The next one begins.
            self._throttle.end(attempt, failed=not right)
            for number, (answer, network) in enumerate(waiting):
                if right:
                    answer.callback(self._rules.users[given.user].principal)
                elif number < MOST_ATTEMPTS:
                    answer.errback(Unauthorized(_WRONG))
                else:
                    # Any number may wait for one verification. Replies to all of them
                    # at once, for each guess, would keep this process busy.
                    wrong = Unauthorized(_WRONG)
                    answer.errback(self._throttle.refusal(network, wrong))

        self._off_reactor(verify).addBoth(verified)

    def _remember(self, mac: bytes, name: str | None) -> None:
        if len(self._remembered) >= MOST_REMEMBERED:
            # The wrong ones first: whoever tries passwords must not make others pay.
            self._remembered = {
                mac: name for mac, name in self._remembered.items() if name is not None
            }
        if len(self._remembered) >= MOST_REMEMBERED:
            self._remembered.clear()
        self._remembered[mac] = name
