"""
Requests to an engine, and its replies.

A request is retried, after a pause that grows and is partly random, where the engine
could not be reached, broke off or asks to be asked later, and where doing the request
twice is the same as doing it once: all of them are made so that it is, except a body
that is sent as it comes, once its first byte was taken. A request that got no answer in
time is not retried, for its client has waited long enough.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from random import Random
from typing import Any, Final
from urllib.parse import quote
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from tenacity import (
    AsyncRetrying,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)
from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.web.client import (
    Agent,
    HTTPConnectionPool,
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseFailed,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from kvd.client.asking import reason_of
from kvd.client.connecting import AsStored, AsWritten, ClientTLS, WideEndpoints
from kvd.client.errors import BrokenOff, TimedOut
from kvd.client.receiving import Receiver, discard, receive
from kvd.client.sending import Body
from kvd.client.sockets import BodySocket
from kvd.client.sources import BytesSource, ISource
from kvd.client.timeouts import Silence, Timeout
from kvd.errors import (
    EngineFailed,
    EngineSilent,
    EngineUnavailable,
    KvdError,
    MetadataTooLarge,
    OperationUnsupported,
    StoreFault,
    StoreFull,
    TargetTooLong,
    ValueTooLarge,
)
from kvd.s3.endpoints import Endpoint, Endpoints
from kvd.s3.signing import Signer

CONNECT_SECONDS: Final = 5.0

READ_BYTES: Final = 64 * 1024
"""
Less than other clients read at once: a worker has many of these connections.
"""

SILENT_SECONDS: Final = 30.0
"""
How long a reply, or the next byte of one, may take: SeaweedFS pauses for up to 18 s
when its leader dies.
"""

CHECK_SECONDS: Final = 5.0
CHECK_TIMEOUT_SECONDS: Final = 3.0
"""
How often each of several endpoints is asked whether it answers, and how soon it has to.
"""

ATTEMPTS: Final = 4
FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 2.0

IDLE_CONNECTIONS: Final = 32
"""
Kept for the next requests, for each endpoint.
"""

IDLE_SECONDS: Final = 8
"""
So long. SeaweedFS closes a connection after 10 s, others later; a request that crosses
with that would fail, and have to be retried.
"""

MAX_DOCUMENT_BYTES: Final = 4 * 1024 * 1024
"""
A page of a listing with 1,000 names of 1,024 bytes fits.
"""

SERVER_ERROR: Final = 500

_BUSY: Final = frozenset({429, 503})
_BUSY_CODES: Final = frozenset({"SlowDown", "ServiceUnavailable", "TooManyRequests"})
_FULL: Final = 507
_FULL_CODES: Final = frozenset(
    {"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull"}
)
_REFUSED_CODES: Final = frozenset(
    {
        "AccessDenied",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "SignatureDoesNotMatch",
    }
)

_UNREACHABLE: Final = (
    ConnectError,
    DNSLookupError,
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseFailed,
    ValueError,
)

_TLS_ERRORS: Final = (
    "OpenSSL.SSL.Error",
    "service_identity.exceptions.VerificationError",
)


@dataclass(frozen=True, slots=True)
class Ask:
    """
    A request.
    """

    method: str
    name: str = ""
    """Of the object; empty: the bucket is meant."""
    query: str = ""
    """Percent-encoded."""
    fields: Mapping[str, str] = field(default_factory=dict)
    body: bytes | ISource = b""
    expected: frozenset[int] = frozenset()
    """Statuses that are answers, beside those of success."""
    fresh: bool = False
    """Whether to make a connection for it. The engine may have closed a kept one, and
    a body that is sent as it comes cannot be sent again."""
    streams: bool = False
    """Whether the body of the reply is to be taken from the socket. Such a connection
    serves no further request."""
    endpoint: Endpoint | None = None
    """Where to send it, unless that fails; None: anywhere."""


@dataclass(frozen=True, slots=True)
class Reply:
    """
    The head of a reply.
    """

    status: int
    response: IResponse
    endpoint: Endpoint

    def field(self, name: str) -> str:
        """
        A field; empty if there is none.
        """
        values = self.response.headers.getRawHeaders(name)
        return values[-1] if values else ""

    @property
    def length(self) -> int | None:
        """
        The length of the body; None: it is unknown.
        """
        length = self.response.length
        return length if isinstance(length, int) else None

    def number(self, name: str) -> int | None:
        """
        A field that is a number; None if it is not.
        """
        text = self.field(name)
        return int(text) if text.isdecimal() else None


class _Passing(Exception):
    """
    A fault that may be over soon.
    """

    def __init__(self, fault: KvdError) -> None:
        super().__init__(fault.sentence)
        self.fault = fault


class BrokenBody(EngineFailed):
    """
    The engine broke off in the middle of a body.
    """


@implementer(IAgent)
class _Unencoded(AsStored):
    """
    Asks for objects as they are stored: treq would ask for gzip.
    """

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        headers = Headers() if headers is None else headers.copy()
        headers.setRawHeaders("Accept-Encoding", ["identity"])
        return super().request(method, uri, headers, bodyProducer)


class Connections:
    """
    Connections to an engine, through treq.
    """

    def __init__(self, reactor: Any, tls: ClientTLS | None = None) -> None:
        """
        Args:
            tls: Whom to believe; None: the system's authorities.

        Raises:
            ValueError: See `ClientTLS`.
        """
        endpoints = WideEndpoints(reactor, CONNECT_SECONDS, tls, READ_BYTES)
        self._pool = HTTPConnectionPool(reactor)
        self._pool.retryAutomatically = False
        self._pool.maxPersistentPerHost = IDLE_CONNECTIONS
        self._pool.cachedConnectionTimeout = IDLE_SECONDS

        def treq(pool: HTTPConnectionPool) -> HTTPClient:
            agent = Agent.usingEndpointFactory(reactor, endpoints, pool)
            return HTTPClient(_Unencoded(agent))

        self.kept = treq(self._pool)
        self.fresh = treq(HTTPConnectionPool(reactor, persistent=False))

    def close(self) -> Deferred[None]:
        """
        Close the connections that are kept.
        """
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed


class ITreqs:
    """
    What `Engine` needs of `Connections`.
    """

    kept: HTTPClient
    fresh: HTTPClient

    def close(self) -> Deferred[None]:
        """
        See `Connections`.
        """
        raise NotImplementedError


class Engine:
    """
    Asks an engine about one bucket.
    """

    _log = Logger()

    def __init__(
        self,
        bucket: str,
        endpoints: Endpoints,
        signer: Signer,
        connections: Connections | ITreqs,
        clock: IReactorTime,
        random: Random,
    ) -> None:
        self._bucket = bucket
        self._endpoints = endpoints
        self._signer = signer
        self._connections = connections
        self._clock = clock
        self._random = random
        self._timeout = Timeout(clock, SILENT_SECONDS)
        self._checking: LoopingCall | None = None
        if len(endpoints.all) > 1:
            self._checking = LoopingCall(self._check_all)
            self._checking.clock = clock
            self._checking.start(CHECK_SECONDS)

    def close(self) -> Deferred[None]:
        """
        Close the connections that are kept.
        """
        if self._checking is not None:
            self._checking.stop()
        return self._connections.close()

    # -- asking ---------------------------------------------------------------

    async def ask(self, ask: Ask) -> Reply:
        """
        Send a request, and retry it where that is safe.

        Returns:
            A reply of success, or one that the request expects. Its body is not read
            yet: `receive`, `document` or `dismiss` it.

        Raises:
            KvdError: The engine answered otherwise, or not.
        """

        def may_repeat(error: BaseException) -> bool:
            body = ask.body
            return isinstance(error, _Passing) and (
                isinstance(body, bytes) or body.rewind()
            )

        try:
            async for attempt in AsyncRetrying(
                sleep=self._sleep,
                stop=stop_after_attempt(ATTEMPTS),
                wait=wait_random_exponential(
                    FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS
                ),
                retry=retry_if_exception(may_repeat),
                reraise=True,
            ):
                with attempt:
                    return await self._ask_once(ask)
        except _Passing as passing:
            raise passing.fault from passing.__cause__
        raise AssertionError("the last attempt returns or raises")

    def _sleep(self, seconds: float) -> Awaitable[None]:
        return deferLater(self._clock, seconds, lambda: None)

    async def _ask_once(self, ask: Ask) -> Reply:
        endpoint = self._endpoints.choose(ask.endpoint)
        endpoint.active += 1
        try:
            reply = Reply(*await self._send(ask, endpoint), endpoint)
            if reply.status >= 300 and reply.status not in ask.expected:
                await self._refuse(ask, reply)
        except (KvdError, _Passing) as error:
            # Clients are not told where the engine is.
            self._log.warn("at {url}: {error}", url=endpoint.url, error=error)
            raise
        finally:
            endpoint.active -= 1
        return reply

    async def _send(self, ask: Ask, endpoint: Endpoint) -> tuple[int, IResponse]:
        url = f"{endpoint.url}/{self._bucket}"
        if ask.name:
            url += f"/{quote(ask.name, safe='/~')}"
        if ask.query:
            url += f"?{ask.query}"
        known = ask.body if isinstance(ask.body, bytes) else None
        fields = await self._signer.sign(ask.method, url, ask.fields, known)
        body = None
        if ask.body:
            source = BytesSource(known) if known is not None else ask.body
            assert not isinstance(source, bytes)
            body = Body(source)
        fresh = ask.fresh or (ask.streams and url.startswith("http:"))
        treq = self._connections.fresh if fresh else self._connections.kept
        try:
            asked: Deferred[Any] = treq.request(
                ask.method,
                AsWritten.from_text(url),
                headers=Headers({name: [text] for name, text in fields.items()}),
                data=body,
                allow_redirects=False,
                unbuffered=True,
            )
            progress = (lambda: None) if body is None else body.progress
            response = await self._timeout.wait_for(asked, progress, discard)
        except Silence as error:
            self._endpoints.failed(endpoint)
            raise EngineSilent(
                "The engine has not answered: no byte moved for"
                f" {SILENT_SECONDS:g} seconds."
            ) from error
        except (ConnectError, DNSLookupError, ValueError) as error:
            self._endpoints.failed(endpoint)
            raise _Passing(
                EngineUnavailable(f"The engine cannot be reached: {reason_of(error)}")
            ) from error
        except RequestGenerationFailed as error:
            if body is not None and body.failure is not None:
                assert body.failure.value is not None
                raise body.failure.value from error
            raise _Passing(
                EngineUnavailable(
                    f"kvd cannot ask the engine: {error.reasons[0].getErrorMessage()}"
                )
            ) from error
        except (RequestTransmissionFailed, ResponseFailed) as error:
            raise _Passing(EngineFailed(f"The engine {_broken(error)}")) from error
        finally:
            if body is not None:
                body.abandon()
        if response.code < SERVER_ERROR:
            self._endpoints.worked(endpoint)
        return response.code, response

    # -- replies --------------------------------------------------------------

    def receive(self, reply: Reply) -> Receiver:
        """
        Start receiving the body of a reply.
        """
        return receive(reply.response, self._timeout, READ_BYTES)

    async def take(self, receiver: Receiver) -> bytes:
        """
        The next bytes of a body; none at its end.

        Raises:
            BrokenBody: The engine broke off.
            EngineSilent: It stopped for too long.
        """
        try:
            return await receiver.take()
        except TimedOut as error:
            raise _stopped() from error
        except BrokenOff as error:
            raise BrokenBody("The engine broke off in the middle.") from error

    async def arrival(self, socket: BodySocket) -> None:
        """
        Wait for the next bytes on a socket.

        Raises:
            EngineSilent: None came for too long.
        """
        try:
            await self._timeout.wait_for(socket.wait())
        except Silence as error:
            raise _stopped() from error

    async def body(self, reply: Reply, limit: int = MAX_DOCUMENT_BYTES) -> bytes:
        """
        The whole body of a reply.

        Raises:
            EngineFailed: It is longer than the limit, or the engine broke off.
        """
        receiver = self.receive(reply)
        body = b""
        while piece := await self.take(receiver):
            body += piece
            if len(body) > limit:
                receiver.stop()
                raise EngineFailed("The engine sent more than it was asked for.")
        return body

    async def document(self, reply: Reply) -> Element:
        """
        The body of a reply, which is a document in XML. Its names have no namespaces.

        Raises:
            EngineFailed: It is not.
        """
        body = await self.body(reply)
        try:
            root: Element = fromstring(body)
        except (ParseError, DefusedXmlException) as error:
            raise EngineFailed(
                "What answers is no S3 engine: it sent no XML."
            ) from error
        for element in root.iter():
            element.tag = element.tag.rpartition("}")[2]
        return root

    def dismiss(self, reply: Reply) -> None:
        """
        Ignore the body of a reply.
        """
        discard(reply.response)

    async def _refuse(self, ask: Ask, reply: Reply) -> None:
        """
        Raise what a reply of failure means.
        """
        code = ""
        if ask.method == "HEAD":
            self.dismiss(reply)
        else:
            try:
                code = (await self.document(reply)).findtext("Code") or ""
            except EngineFailed:
                # Proxies send other things; the status says enough.
                pass
        status = reply.status
        named = f"{status} {code}".rstrip()
        if status == _FULL or code in _FULL_CODES:
            raise StoreFull(f"The engine has no room for the value ({named}).")
        if status in _BUSY or code in _BUSY_CODES:
            raise _Passing(
                EngineUnavailable(f"The engine is busy ({named}): try again later.")
            )
        if status >= SERVER_ERROR and code != "NotImplemented":
            self._endpoints.failed(reply.endpoint)
            raise _Passing(EngineFailed(f"The engine failed ({named})."))
        raise self._refusal(status, code, named, reply)

    def _refusal(self, status: int, code: str, named: str, reply: Reply) -> KvdError:
        """
        What is wrong with a request, or with the settings.
        """
        if code == "NoSuchBucket":
            return self.no_bucket()
        if code == "RequestTimeTooSkewed":
            return StoreFault(
                f"The engine refuses kvd's signatures because the clocks differ"
                f"{_difference(reply)} ({named}): set the clock of this machine, or of"
                " the engine."
            )
        if code in _REFUSED_CODES or status in (401, 403):
            return StoreFault(
                f"The engine refuses kvd's credentials ({named}): see that they are"
                f" right and may read, write, delete and list in {self._bucket!r}; the"
                f" clocks differ{_difference(reply)}."
            )
        if code == "KeyTooLongError":
            return TargetTooLong(
                "The engine has no names so long: choose a shorter key."
            )
        if code == "EntityTooLarge":
            return ValueTooLarge(f"The engine keeps no value so large ({named}).")
        if code == "MetadataTooLarge":
            return MetadataTooLarge(f"The engine keeps no metadata so long ({named}).")
        if code == "NotImplemented":
            return OperationUnsupported(
                "The engine does not know what it was asked for."
            )
        return EngineFailed(f"The engine refuses what kvd asked for ({named}).")

    def no_bucket(self) -> StoreFault:
        """
        There is no bucket.
        """
        return StoreFault(
            f"The engine has no bucket {self._bucket!r}: create it, or give another one"
            " with --store."
        )

    # -- health ---------------------------------------------------------------

    def _check_all(self) -> None:
        for endpoint in self._endpoints.all:
            Deferred.fromCoroutine(self._check(endpoint))

    async def _check(self, endpoint: Endpoint) -> None:
        """
        Ask an endpoint whether it answers. Nothing is signed: any answer will do.
        """
        timeout = Timeout(self._clock, CHECK_TIMEOUT_SECONDS)
        was_down = endpoint.failures > 0
        reason = ""
        try:
            asked: Deferred[Any] = self._connections.kept.request(
                "GET", AsWritten.from_text(f"{endpoint.url}/"), unbuffered=True
            )
            response = await timeout.wait_for(asked, late=discard)
            discard(response)
            answers = response.code < SERVER_ERROR
            if not answers:
                reason = f": it answers {response.code}"
        except Silence:
            answers, reason = False, f": not within {CHECK_TIMEOUT_SECONDS:g} s"
        except _UNREACHABLE as error:
            answers, reason = False, f": {reason_of(error)}"
        except Exception:
            # A mistake of kvd's own, which must not end the checks.
            answers = False
            if not was_down:
                self._log.failure(
                    "the engine at {url} cannot be asked", url=endpoint.url
                )
        if answers:
            self._endpoints.worked(endpoint)
        else:
            self._endpoints.failed(endpoint)
        if answers == was_down:
            self._log.info(
                "the engine at {url} {answers}",
                url=endpoint.url,
                answers="answers again" if answers else f"does not answer{reason}",
            )


def _stopped() -> EngineSilent:
    return EngineSilent(
        "The engine stopped in the middle of a value: no byte came for"
        f" {SILENT_SECONDS:g} seconds."
    )


def _broken(error: RequestTransmissionFailed | ResponseFailed) -> str:
    # By name: OpenSSL is loaded only where it is needed.
    if any(reason.check(*_TLS_ERRORS) for reason in error.reasons):
        return "does not speak TLS, or shows no certificate that is trusted here."
    return "ended the connection before it answered."


def _difference(reply: Reply) -> str:
    """
    By how much the clock of the engine differs from this machine's.
    """
    try:
        theirs = parsedate_to_datetime(reply.field("Date")).timestamp()
    except ValueError:
        return ""
    return f" by {abs(theirs - time.time()):.0f} s"
