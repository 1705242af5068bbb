"""
What the sender of a request may do, decided when its head has been understood: before
the store is asked, before ``100 Continue`` and before the body.

The store is not asked for a request that is refused here, so nothing in the refusal,
and nothing in its time, tells whether the key has a value.

This is the only place that asks for rights. A dialect states what a request asks for,
and can neither give a right nor forget one:

- A `FixedReply` needs no right, so it must not depend on the store or on the user.
- `Get`, `Put`, `Delete` and `List` each need one right (`_NEEDED`), for their key, or
  for all keys below their prefix.
- An `Exchange` states what it needs as far as the head tells. Whatever it does with the
  store goes through `kvd.http.values`, which asks again: also for keys that only the
  body names.
- An operation of another class is a fault, also one derived from these four: kvd
  replies 500 and does nothing. One with a right of its own is added to `_NEEDED`.

A handler carries out the operation that it finds permitted, and never the one that the
dialect understood: the rules of a prefix may have added a digest that the value must
have, or that it may not be replaced.
"""

from __future__ import annotations

import re
import time
from dataclasses import replace
from functools import partial
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from kvd.access.authentication import Authentication, Signer
from kvd.access.counting import OpenCounts
from kvd.access.networks import network_of
from kvd.access.permit import Permit
from kvd.access.rates import Rates
from kvd.access.rules import (
    NO_RIGHT,
    NO_RULES,
    AccessRules,
    ByPrefix,
    Principal,
    Right,
)
from kvd.access.scope import Scope
from kvd.access.signatures import is_signed
from kvd.errors import BadRequest, Forbidden, TooManyRequests, Unauthorized
from kvd.http.memo import Memo
from kvd.http.wire.heads import MEMO_HEADS
from kvd.interfaces import Answer
from kvd.model.codings import SignatureChain
from kvd.model.digests import Digest
from kvd.model.keys import Key
from kvd.model.operations import (
    Append,
    CancelUpload,
    Delete,
    Exchange,
    FixedReply,
    Get,
    List,
    LookAtUpload,
    Operation,
    Put,
    PutPart,
    ResumablePut,
    WriteBelow,
)
from kvd.model.requests import Request

# The names by which clients and other servers pass credentials (RFC 6750 section 2.3).
_SECRETS: Final = re.compile(
    rb"access[_-]?token|token|bearer|authorization|api[_-]?key|password", re.IGNORECASE
)
_SHA256: Final = re.compile(rb"[0-9a-f]{64}")

_NEEDED: Final[dict[type, tuple[Right, str]]] = {
    Get: (Right.READ, "read"),
    Put: (Right.WRITE, "write"),
    Delete: (Right.DELETE, "delete"),
    List: (Right.LIST, "list"),
    WriteBelow: (Right.WRITE, "write"),
    PutPart: (Right.WRITE, "write"),
    ResumablePut: (Right.WRITE, "write"),
    Append: (Right.WRITE, "write"),
    LookAtUpload: (Right.WRITE, "write"),
    CancelUpload: (Right.WRITE, "write"),
}


class _Decided(NamedTuple):
    """
    What was decided about a head, whoever sends it.
    """

    permit: Permit
    expires: float | None
    """In seconds since the epoch; None: never."""
    by_password: bool

    def holds(self) -> bool:
        """
        Whether the credentials are still valid.
        """
        return self.expires is None or time.time() < self.expires


class Authorization:
    """
    Decides about all requests of a process.
    """

    def __init__(
        self,
        rules: AccessRules,
        authentication: Authentication,
        rates: Rates,
        serving: OpenCounts,
        clock: IReactorTime,
    ) -> None:
        """
        Args:
            rules: Of the rights file.
            authentication: Knows the users.
            rates: Counts the requests of users who may send only so many.
            serving: Counts those that are being served, of users who may have only so
                many.
            clock: Monotonic.
        """
        self._rules = rules
        self._authentication = authentication
        self._rates = rates
        self._clock = clock
        self._serving = serving
        # Heads that come again are the same object (`kvd.http.wire.heads`).
        self._decided: Memo[Request, _Decided] = Memo(MEMO_HEADS)
        self._signers: Memo[Request, Principal] = Memo(MEMO_HEADS)

    def adopt(self, rules: AccessRules) -> None:
        """
        Decide by another rights file from now on. Requests that are permitted already
        may end; so may those that a request with several keys still asks for.
        """
        self._rules = rules
        self._authentication.adopt(rules)
        self._decided.clear()
        self._signers.clear()

    def authorize(
        self,
        request: Request,
        operation: Operation,
        peer: Any,
        certified: str | None = None,
        *,
        may_be_signed: bool = False,
    ) -> Answer[Permit]:
        """
        Decide whether a request may be carried out.

        Args:
            request: Its head.
            operation: What it asks for.
            peer: What ``accept`` said of the other end.
            certified: The user that the client's certificate names, if it has shown
                one; counts where the request has no credentials.
            may_be_signed: Whether a signature counts: only where the body is compared
                with it (`ISigningDialect`).

        Returns:
            The operation, with what the rules of its prefix add. Whoever gets it must
            call `Permit.ended`.

        Raises:
            AccessRefused: It may not.
            BadRequest: It has credentials in its query, or a key that the rules of its
                prefix do not allow.
        """
        if certified is None:
            decided = self._decided.find(request)
            if (
                decided is not None
                and decided.holds()
                and (not decided.by_password or self.logs_in_at_once(peer))
            ):
                return decided.permit
        _refuse_secrets(request.target)
        if may_be_signed and is_signed(request):
            return self._by_signature(request, operation, peer)
        value = request.fields.get(b"authorization")
        user = None if certified is None else self._rules.users.get(certified)
        if value is None and user is not None:
            return self._permit(user.principal, operation)
        known = self._authentication.known(value)
        if known is not None and (not known.by_password or self.logs_in_at_once(peer)):
            permit = self._permit(known.principal, operation)
            if not known.principal.is_limited:
                decided = _Decided(permit, known.expires, known.by_password)
                self._decided.remember(request, decided)
            return permit
        who = self._authentication.authenticate(value, network_of(peer))
        if isinstance(who, Deferred):
            return who.addCallback(self._permit, operation)
        return self._permit(who, operation)

    def logs_in_at_once(self, peer: Any) -> bool:
        """
        See `Authentication.logs_in_at_once`.

        Args:
            peer: What ``accept`` said of the other end.
        """
        return self._authentication.logs_in_at_once(network_of(peer))

    def _by_signature(
        self, request: Request, operation: Operation, peer: Any
    ) -> Answer[Permit]:
        def signed(signer: Signer) -> Permit:
            self._signers.remember(request, signer.principal)
            return self._permit(signer.principal, _chained(operation, signer.chain))

        found = self._authentication.signer(request, network_of(peer))
        if isinstance(found, Deferred):
            return found.addCallback(signed)
        return signed(found)

    def scope(self, request: Request, operation: Get | Put) -> Scope | None:
        """
        For which keys requests like this one, from a client without a certificate, may
        be carried out as they are.

        Args:
            request: Its head.
            operation: What it asks for; the key does not count.

        Returns:
            None if it is not known, or not known yet, who sends it.
        """
        known = self._authentication.known(request.fields.get(b"authorization"))
        if known is None:
            return None
        if known.principal.is_limited:
            return Scope(ByPrefix({}), None)
        right, _ = _NEEDED[operation.__class__]
        rights, rules = known.principal.rights, self._rules.prefixes
        prefixes = {prefix for prefix, _ in (*rights.items, *rules.items)}
        return Scope(
            ByPrefix(
                {
                    prefix: right in rights.of(prefix, NO_RIGHT)
                    and (
                        not isinstance(operation, Put)
                        or rules.of(prefix, NO_RULES) == NO_RULES
                    )
                    for prefix in prefixes
                }
            ),
            known.expires,
            known.principal.name,
            known.by_password,
        )

    def user_of(self, request: Request, certified: str | None) -> str | None:
        """
        The user that has sent a request, for a log.

        Args:
            request: Its head.
            certified: See `authorize`.

        Returns:
            None if it has no credentials, or wrong ones.
        """
        signer = self._signers.find(request)
        if signer is not None:
            return signer.name
        value = request.fields.get(b"authorization")
        if value is None:
            return certified if certified in self._rules.users else None
        known = self._authentication.known(value)
        return None if known is None else known.principal.name

    def _permit(self, who: Principal, operation: Operation) -> Permit:
        if who.rate is not None:
            self._rates.check(f"The user {who.name}", who.rate, self._clock)
        permitted, also = self._permitted(who, operation), partial(self._permitted, who)
        if who.at_once is None:
            return Permit(permitted, also, who.name)
        # Addresses are counted in the same table.
        counted = f"user {who.name}"
        if self._serving[counted] >= who.at_once:
            raise TooManyRequests(
                f"kvd serves {who.at_once} requests of the user {who.name} at the same"
                " time: try again when one has ended.",
                1,
            )
        self._serving.add(counted)
        return Permit(permitted, also, who.name, counted, self._serving)

    def _permitted(self, who: Principal, operation: Operation) -> Operation:
        if isinstance(operation, Exchange):
            for need in operation.needs:
                self._permitted(who, need)
            return operation
        if operation.__class__ is FixedReply:
            return operation
        # By the very class: one derived from it may do more.
        right, verb = _NEEDED[operation.__class__]
        if isinstance(operation, List):
            allowed = who.may_below(right, operation.prefix)
        else:
            assert not isinstance(operation, FixedReply)
            allowed = who.may(right, operation.key)
        if not allowed:
            raise _refusal(who, verb)
        if isinstance(operation, Put) and not isinstance(operation, PutPart):
            return self._constrained(operation)
        if isinstance(operation, Append):
            self._refuse_parts(operation.key)
        return operation

    def _refuse_parts(self, key: Key) -> None:
        if self._rules.prefixes.of(key, NO_RULES) is not NO_RULES:
            # They were begun before the prefix had these rules.
            raise Forbidden(
                "Below this prefix a value has to come in one request, so that kvd can"
                " check it."
            )

    def _constrained(self, operation: Put) -> Put:
        rules = self._rules.prefixes.of(operation.key, NO_RULES)
        if rules is NO_RULES:
            return operation
        digests = operation.digests
        if rules.content_addressed:
            if "content-encoding" in operation.metadata:
                raise BadRequest(
                    "Below this prefix a value cannot have a Content-Encoding: clients"
                    " would decode it to one that has not the SHA-256 in the key."
                )
            digests = (*digests, _digest_in(operation.key))
        return replace(operation, digests=digests, once=rules.write_once)


def _refusal(who: Principal, verb: str) -> Unauthorized | Forbidden:
    if who.name is None:
        return Unauthorized(
            f"Only users may {verb} this: send the name and password of a user (Basic),"
            " or a token (Bearer)."
        )
    return Forbidden(
        f"The user {who.name} may not {verb} this: the rights file of this kvd does not"
        f" give the right {verb!r} for it."
    )


def _chained(operation: Operation, chain: SignatureChain) -> Operation:
    """
    An operation whose body has chunks that are signed as the head is.
    """
    if not isinstance(operation, Put) or operation.coding is None:
        return operation
    return replace(operation, coding=replace(operation.coding, chain=chain))


def _refuse_secrets(target: bytes) -> None:
    query = target.partition(b"?")[2]
    names = [pair.partition(b"=")[0] for pair in query.split(b"&")] if query else ()
    if any(_SECRETS.fullmatch(unquote_to_bytes(name)) for name in names):
        raise BadRequest(
            "The query has credentials, which end up in logs and histories: make new"
            " ones, and send them in Authorization, as Basic or Bearer."
        )


def _digest_in(key: bytes) -> Digest:
    name = key.rpartition(b"/")[2]
    if not _SHA256.fullmatch(name):
        raise BadRequest(
            "Below this prefix the last segment of a key has to be the SHA-256 of the"
            " value: 64 hexadecimal digits in lower case."
        )
    return Digest("", "sha256", bytes.fromhex(name.decode("ascii")), is_key=True)
