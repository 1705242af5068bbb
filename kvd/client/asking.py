"""
One request and the head of its reply, tried again where that is safe.

A request is tried again after a pause if

- kvd answered 503 and named a time to wait;
- the connection ended before the first byte of the reply, and doing it twice
  is the same as doing it once.

A PUT whose first connection ended so may have been done, whatever the further tries
come to: unless one of them succeeds, that is what is told.

A server that is silent for as long as the client waits is not asked again, and what
became of the request is unknown, too.

Where no connection came about nothing is tried again: a kvd that lives refuses
none. A PUT or DELETE with a condition is not of the last kind: if the first was
done, its own success makes the second fail. Nor is a DELETE without one, which
would be told that there is nothing. No body can be sent twice that was read
from a pipe.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

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
    WideEndpoints,
)
from kvd.client.errors import BrokenOff, NotKvd, TimedOut, Unreachable
from kvd.client.receiving import Receiver, discard, receive
from kvd.client.sending import Body
from kvd.client.sources import ISource
from kvd.client.waiting import TIMEOUT_SECONDS, Patience, Silence

PAUSES_SECONDS: Final = (0.1, 0.3, 1.0)
"""
Before each further try: long enough for a worker to be replaced.
"""

MAX_WAIT_SECONDS: Final = 5.0
"""
The longest wait that a reply can ask for.
"""


@dataclass(frozen=True)
class Request:
    """
    What is asked.
    """

    method: str
    url: str
    fields: Mapping[str, str]
    source: ISource | None = None

    @property
    def repeatable(self) -> bool:
        """
        Whether doing it twice is the same as doing it once.
        """
        return self.method in {"GET", "HEAD"} or (
            self.method == "PUT"
            and not {"If-Match", "If-None-Match"} & set(self.fields)
        )


def treq_of(
    reactor: IReactorTCP, connect_seconds: float = CONNECT_SECONDS
) -> HTTPClient:
    """
    A treq that keeps connections, and leaves it to us to try again.
    """
    pool = HTTPConnectionPool(reactor)
    pool.retryAutomatically = False
    endpoints = WideEndpoints(reactor, connect_seconds)
    return HTTPClient(AsStored(Agent.usingEndpointFactory(reactor, endpoints, pool)))


@dataclass(frozen=True)
class _Failed:
    """
    There is no reply.
    """

    told: BaseException
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
            server: How it is called in sentences.
            treq: What sends them.
            clock: For the pauses, and for silence.
            pauses_seconds: Before each further try.
            timeout_seconds: How long nothing may move before a server that is waited
                for is given up.
        """
        self._server = server
        self._treq = treq
        self._clock = clock
        self._pauses_seconds = pauses_seconds
        self._patience = Patience(clock, timeout_seconds)

    async def ask(self, request: Request) -> IResponse:
        """
        Send a request, again if need be.

        Returns:
            The reply, whatever its status, with its body still to come.
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
            raise outcome.told from outcome.cause
        return outcome

    def receive(self, response: IResponse) -> Receiver:
        """
        Begin to take the body of a reply.
        """
        return receive(response, self._patience)

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
            )
            progress = (lambda: None) if body is None else body.progress
            answered: IResponse = await self._patience.wait_for(
                asked, progress, discard
            )
        except Silence as error:
            sentence = (
                f"{self._server} has not answered: nothing moved for"
                f" {self._patience.seconds:g} seconds.{_doubt(request)}"
            )
            return _Failed(TimedOut(sentence), error, False)
        except RequestGenerationFailed as error:
            assert body is not None
            assert body.failure is not None
            assert body.failure.value is not None
            return _Failed(body.failure.value, error, False)
        except (ConnectError, DNSLookupError, ValueError) as error:
            # The last: what cannot be the name of a host.
            told = Unreachable(f"{self._server} cannot be reached: {_words(error)}")
            return _Failed(told, error, False)
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
            told = f"What answers at {self._server} is not HTTP."
            # By name: OpenSSL is loaded only where it is needed.
            if any(reason.check("OpenSSL.SSL.Error") for reason in error.reasons):
                told = (
                    f"What answers at {self._server} does not speak TLS, or shows no"
                    " certificate for this name that is trusted here."
                )
            return _Failed(NotKvd(told), error, False)
        unanswered = not isinstance(error, ResponseFailed) or isinstance(
            error, ResponseNeverReceived
        )
        sentence = (
            f"{self._server} ended the connection before it answered.{_doubt(request)}"
        )
        return _Failed(BrokenOff(sentence), error, unanswered and request.repeatable)


def _doubt(request: Request) -> str:
    if request.method in {"GET", "HEAD"}:
        return ""
    return " Whether it did what it was asked is unknown."


def _rewind(request: Request) -> bool:
    return request.source is None or request.source.rewind()


def _done(outcome: IResponse | _Failed) -> bool:
    return not isinstance(outcome, _Failed) and outcome.code < 300


def _dismiss(outcome: IResponse | _Failed) -> None:
    """
    Take no more of a reply.
    """
    if not isinstance(outcome, _Failed):
        discard(outcome)


def _wait_seconds(response: IResponse) -> float | None:
    """
    How long a reply asks to wait; None if it does not.
    """
    wait = field(response, "Retry-After")
    if response.code != 503 or wait is None or not wait.isdecimal():
        return None
    return min(float(wait), MAX_WAIT_SECONDS)


def field(response: IResponse, name: str) -> str | None:
    """
    A field of a reply. What is no UTF-8 in it is replaced: no name, number or entity
    tag has such bytes.
    """
    values = response.headers.getRawHeaders(name.encode("ascii"))
    return values[-1].decode("utf-8", "replace") if values else None


def _words(error: Exception) -> str:
    # Twisted's own words, and behind them the system's for the same.
    number = getattr(error, "osError", None)
    if isinstance(number, int):
        return f"{os.strerror(number)}."
    if isinstance(error, TimeoutError):
        return "it accepts no connection within the time that is waited for one."
    return " ".join(str(error).split()).rstrip(".") + "."
