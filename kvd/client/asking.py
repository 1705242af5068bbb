"""
One request and the head of its reply, retried where that is safe.

A request is retried after a pause if

- kvd answered 503 or 429 with a time to wait;
- the connection ended before the first byte of the reply, and doing the request twice
  is the same as doing it once.

A PUT whose first connection ended so may have been done, whatever the result of the
retries: unless one of them succeeds, the error says so.

After a timeout nothing is retried. Whether the request was done is unknown then too.

If no connection could be made, nothing is retried: a running kvd refuses none. A PUT or
DELETE with a condition is not retried: if the first one was done, its own success makes
the second fail. A DELETE without a condition is not retried either, since the second
would find no value. A body that was read from a pipe cannot be sent twice.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any, Final, cast

from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.error import (
    ConnectError,
    ConnectionClosed,
    DNSLookupError,
    TimeoutError,
)
from twisted.internet.interfaces import IReactorTCP, IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.client import (
    Agent,
    HTTPConnectionPool,
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseFailed,
    ResponseNeverReceived,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from kvd.client.connecting import (
    CONNECT_SECONDS,
    AsStored,
    AsWritten,
    ClientTLS,
    WideEndpoints,
)
from kvd.client.errors import BrokenOff, NotKvd, TimedOut, Unreachable
from kvd.client.receiving import Receiver, discard, receive
from kvd.client.sending import Body
from kvd.client.sources import ISource
from kvd.client.timeouts import TIMEOUT_SECONDS, Silence, Timeout

PAUSES_SECONDS: Final = (0.1, 0.3, 1.0)
"""
Before each retry: long enough for a worker to be replaced.
"""

MAX_KEPT_CONNECTIONS: Final = 64
"""
How many connections stay open between requests.
"""

MAX_WAIT_SECONDS: Final = 5.0
"""
The longest wait that a reply can ask for.
"""


@dataclass(frozen=True)
class Request:
    """
    A request.
    """

    method: str
    url: str
    fields: Mapping[str, str] = dataclass_field(repr=False)
    source: ISource | None = None

    @property
    def repeatable(self) -> bool:
        """
        Whether doing it twice is the same as doing it once.
        """
        return self.method in {"GET", "HEAD", "OPTIONS"} or (
            self.method == "PUT"
            and not {"If-Match", "If-None-Match"} & set(self.fields)
        )


def treq_of(
    reactor: IReactorTCP,
    connect_seconds: float = CONNECT_SECONDS,
    tls: ClientTLS | None = None,
) -> HTTPClient:
    """
    A treq that keeps connections, and leaves retries to this module.

    Raises:
        ValueError: See `ClientTLS`.
    """
    pool = HTTPConnectionPool(reactor)
    pool.retryAutomatically = False
    # As many as a command has requests underway: otherwise all but two of them make a
    # connection for each request.
    pool.maxPersistentPerHost = MAX_KEPT_CONNECTIONS
    endpoints = WideEndpoints(reactor, connect_seconds, tls)
    return HTTPClient(AsStored(Agent.usingEndpointFactory(reactor, endpoints, pool)))


@dataclass(frozen=True)
class _Failed:
    """
    There is no reply.
    """

    error: BaseException
    cause: BaseException
    may_repeat: bool


class Asker:
    """
    Sends requests to one server.
    """

    def __init__(
        self,
        server: str,
        treq: HTTPClient,
        clock: IReactorTime,
        pauses_seconds: Sequence[float] = PAUSES_SECONDS,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        """
        Args:
            server: Its name in sentences.
            treq: Sends the requests.
            clock: For the pauses and the timeout.
            pauses_seconds: Before each retry.
            timeout_seconds: How long the client waits while no byte moves.
        """
        self._server = server
        self._treq = treq
        self._clock = clock
        self._pauses_seconds = pauses_seconds
        self._timeout = Timeout(clock, timeout_seconds)

    async def ask(self, request: Request) -> IResponse:
        """
        Send a request, and retry it where that is safe.

        Returns:
            The reply, whatever its status; its body is not received yet.
        """
        outcome = await self._ask_once(request)
        doubt: _Failed | None = None
        for pause_seconds in self._pauses_seconds:
            if isinstance(outcome, _Failed):
                wait_seconds = 0.0 if outcome.may_repeat else None
            else:
                wait_seconds = _wait_seconds(outcome)
            if wait_seconds is None or not _rewind(request):
                break
            if isinstance(outcome, _Failed) and request.method == "PUT":
                doubt = outcome
            _dismiss(outcome)
            await deferLater(self._clock, max(pause_seconds, wait_seconds))
            outcome = await self._ask_once(request)
        if doubt is not None and not _done(outcome):
            _dismiss(outcome)
            outcome = doubt
        if isinstance(outcome, _Failed):
            raise outcome.error from outcome.cause
        return outcome

    async def pause(self, seconds: float) -> None:
        """
        Wait.
        """
        await deferLater(self._clock, seconds)

    def receive(self, response: IResponse) -> Receiver:
        """
        Start receiving the body of a reply.
        """
        return receive(response, self._timeout)

    async def _ask_once(self, request: Request) -> IResponse | _Failed:
        body = None if request.source is None else Body(request.source)
        fields = Headers({name: [text] for name, text in request.fields.items()})
        try:
            asked: Deferred[Any] = self._treq.request(
                request.method,
                AsWritten.from_text(request.url),
                headers=fields,
                data=body,
                allow_redirects=False,
                unbuffered=True,
                # Without it, treq would install Twisted's own.
                reactor=cast(Any, self._clock),
            )
            progress = (lambda: None) if body is None else body.progress
            answered: IResponse = await self._timeout.wait_for(asked, progress, discard)
        except Silence as error:
            sentence = (
                f"{self._server} has not answered: no byte moved for"
                f" {self._timeout.seconds:g} seconds.{_doubt(request)}"
            )
            return _Failed(TimedOut(sentence), error, False)
        except RequestGenerationFailed as error:
            assert body is not None
            assert body.failure is not None
            assert body.failure.value is not None
            return _Failed(body.failure.value, error, False)
        except (ConnectError, DNSLookupError, ValueError) as error:
            # The last is raised for what cannot be the name of a host.
            unreachable = f"{self._server} cannot be reached: {reason_of(error)}"
            return _Failed(Unreachable(unreachable), error, False)
        except (RequestTransmissionFailed, ResponseFailed) as error:
            return self._broken(request, error)
        finally:
            if body is not None:
                body.abandon()
        return answered

    def _broken(
        self, request: Request, error: RequestTransmissionFailed | ResponseFailed
    ) -> _Failed:
        if not all(reason.check(ConnectionClosed) for reason in error.reasons):
            wrong = _what_is_wrong(error.reasons)
            sentence = f"What answers at {self._server} {wrong}."
            return _Failed(NotKvd(sentence), error, False)
        unanswered = not isinstance(error, ResponseFailed) or isinstance(
            error, ResponseNeverReceived
        )
        sentence = (
            f"{self._server} ended the connection before it answered.{_doubt(request)}"
        )
        return _Failed(BrokenOff(sentence), error, unanswered and request.repeatable)


def _what_is_wrong(reasons: Sequence[Failure]) -> str:
    # By name: OpenSSL is loaded only where it is needed.
    for reason in reasons:
        if reason.check(
            "service_identity.exceptions.VerificationError",
            "service_identity.exceptions.CertificateError",
        ):
            return "shows a certificate that is not for this name"
        if reason.check("OpenSSL.SSL.Error"):
            if "certificate verify failed" in str(reason.value):
                return "shows a certificate that is not trusted here"
            if "certificate required" in str(reason.value):
                return "asks for a certificate, and none was shown"
            return "does not speak TLS, or not such as is accepted here"
    return "is not HTTP"


def _doubt(request: Request) -> str:
    if request.method in {"GET", "HEAD", "OPTIONS"}:
        return ""
    return " Whether it did what it was asked is unknown."


def _rewind(request: Request) -> bool:
    return request.source is None or request.source.rewind()


def _done(outcome: IResponse | _Failed) -> bool:
    return not isinstance(outcome, _Failed) and outcome.code < 300


def _dismiss(outcome: IResponse | _Failed) -> None:
    """
    Ignore a reply.
    """
    if not isinstance(outcome, _Failed):
        discard(outcome)


def _wait_seconds(response: IResponse) -> float | None:
    """
    The time to wait that a reply names; None if it names none.
    """
    wait = field(response, "Retry-After")
    if response.code not in (429, 503) or wait is None or not wait.isdecimal():
        return None
    return min(float(wait), MAX_WAIT_SECONDS)


def field(response: IResponse, name: str) -> str | None:
    """
    A field of a reply. Bytes that are not UTF-8 are replaced: no name, number or entity
    tag has such bytes.
    """
    values = response.headers.getRawHeaders(name.encode("ascii"))
    return values[-1].decode("utf-8", "replace") if values else None


def reason_of(error: Exception) -> str:
    """
    Why no connection was made, as the end of a sentence.
    """
    # Twisted repeats the system's words behind its own.
    number = getattr(error, "osError", None)
    if isinstance(number, int):
        return f"{os.strerror(number)}."
    if isinstance(error, TimeoutError):
        return "it accepts no connection within the timeout."
    return " ".join(str(error).split()).rstrip(".") + "."
