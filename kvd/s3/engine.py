"""
Requests to an engine, and its replies.

A request is retried, after a pause that grows and is partly random, where the engine
could not be reached, broke off or asks to be asked later, and where doing the request
twice is the same as doing it once: all of them are made so that it is, except a body
that is sent as it comes, once its first byte was taken. A request that got no answer in
time is not retried, for its client has waited long enough.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from random import Random
from typing import Final
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
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.web.client import (
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseFailed,
)

from kvd.client.asking import reason_of
from kvd.client.errors import BrokenOff, TimedOut
from kvd.client.receiving import Receiver, discard, drain, receive
from kvd.client.sending import Body
from kvd.client.sockets import BodySocket
from kvd.client.sources import BytesSource
from kvd.client.timeouts import Silence, Timeout
from kvd.errors import EngineFailed, EngineSilent, EngineUnavailable, KvdError
from kvd.s3.connections import READ_BYTES, Connections
from kvd.s3.endpoints import Endpoint, Endpoints
from kvd.s3.failures import (
    SERVER_ERROR,
    BrokenBody,
    Transient,
    failure_of,
    is_overtaken,
)
from kvd.s3.health import HealthChecks
from kvd.s3.record import ETAG_FIELD
from kvd.s3.requests import Ask, Reply
from kvd.s3.signing import Signer

SILENT_SECONDS: Final = 30.0
"""
How long a reply, or the next byte of one, may take: SeaweedFS pauses for up to 18 s
when its leader dies.
"""

CONFLICT: Final = 409
"""
Another client changed the object at the same time.
"""

ATTEMPTS: Final = 4
FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 2.0

MAX_DOCUMENT_BYTES: Final = 4 * 1024 * 1024
"""
A page of a listing with 1,000 names of 1,024 bytes fits.
"""

_OF_OBJECTS: Final = frozenset({"GET", "HEAD", "PUT"})
"""
All success with these has an entity tag.
"""

_TLS_ERRORS: Final = (
    "OpenSSL.SSL.Error",
    "service_identity.exceptions.VerificationError",
)


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
        connections: Connections,
        clock: IReactorTime,
        random: Random,
    ) -> None:
        self.bucket = bucket
        self._endpoints = endpoints
        self._signer = signer
        self._connections = connections
        self.clock = clock
        self._random = random
        self._timeout = Timeout(clock, SILENT_SECONDS)
        self._checks: HealthChecks | None = None
        if len(endpoints.all) > 1:
            self._checks = HealthChecks(endpoints, connections, clock)
            self._checks.start()

    def close(self) -> Deferred[None]:
        """
        Close the connections that are kept.
        """
        if self._checks is not None:
            self._checks.stop()
        return self._connections.close()

    async def ask(self, ask: Ask) -> Reply:
        """
        Send a request, and retry it where that is safe.

        Returns:
            A reply of success, or one that the request expects. Its body is not read
            yet: `receive`, `document` or `dismiss` it.

        Raises:
            KvdError: The engine answered otherwise, or not.
        """
        try:
            return await self._ask_once(ask)
        except Transient as transient:
            failed = transient
        # Not in the block above: this failure would be the context of all later ones.
        return await self._ask_again(ask, failed)

    async def _ask_again(self, ask: Ask, failed: Transient) -> Reply:
        """
        Retry a request. Few get here, and only they take what tenacity costs.

        Args:
            failed: How the first attempt failed. It counts as one.
        """
        failures = [failed]

        async def attempt() -> Reply:
            if failures:
                raise failures.pop()
            return await self._ask_once(ask)

        def may_repeat(error: BaseException) -> bool:
            body = ask.body
            return isinstance(error, Transient) and (
                isinstance(body, bytes) or body.rewind()
            )

        retrying = AsyncRetrying(
            sleep=self._sleep,
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_random_exponential(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS),
            retry=retry_if_exception(may_repeat),
            reraise=True,
        )
        try:
            return await retrying(attempt)
        except Transient as transient:
            raise transient.failure from transient.__cause__

    def _sleep(self, seconds: float) -> Awaitable[None]:
        return deferLater(self.clock, seconds, lambda: None)

    async def _ask_once(self, ask: Ask) -> Reply:
        endpoint = self._endpoints.choose(ask.endpoint)
        endpoint.active += 1
        try:
            reply = await self._send(ask, endpoint)
            if not _is_of_engine(ask, reply):
                self.dismiss(reply)
                self._endpoints.failed(endpoint)
                raise Transient(
                    EngineFailed(
                        "What answers is no S3 engine: it sent no entity tag of an"
                        " object."
                    )
                )
            if reply.status < SERVER_ERROR:
                self._endpoints.worked(endpoint)
            if reply.status >= 300 and reply.status not in ask.expected:
                reply = await self._refused(ask, reply)
        except (KvdError, Transient) as error:
            # Clients are not told where the engine is.
            self._log.warn("at {url}: {error}", url=endpoint.url, error=error)
            raise
        finally:
            endpoint.active -= 1
        return reply

    async def _send(self, ask: Ask, endpoint: Endpoint) -> Reply:
        url = self._url(ask, endpoint)
        known = ask.body if isinstance(ask.body, bytes) else None
        fields = await self._signer.sign(ask.method, url, ask.fields, known)
        body = None
        if ask.body:
            source = BytesSource(known) if known is not None else ask.body
            assert not isinstance(source, bytes)
            body = Body(source)
            if ask.sends is not None:
                ask.sends(body)
        try:
            asked = self._connections.request(
                ask.method, url, fields, body, fresh=ask.fresh
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
            raise Transient(
                EngineUnavailable(f"The engine cannot be reached: {reason_of(error)}")
            ) from error
        except RequestGenerationFailed as error:
            if body is not None and body.failure is not None:
                assert body.failure.value is not None
                raise body.failure.value from error
            raise Transient(
                EngineUnavailable(
                    f"kvd cannot ask the engine: {error.reasons[0].getErrorMessage()}"
                )
            ) from error
        except (RequestTransmissionFailed, ResponseFailed) as error:
            if ask.fresh or ask.endpoint is None:
                # One that ends all connections has the fewest requests, and would be
                # chosen again. A kept one may only have waited too long: what has to
                # go to the same endpoint goes there again.
                self._endpoints.failed(endpoint)
            raise Transient(EngineFailed(f"The engine {_broken(error)}")) from error
        finally:
            if body is not None:
                body.abandon()
        return Reply(response.code, response, endpoint)

    def _url(self, ask: Ask, endpoint: Endpoint) -> str:
        url = f"{endpoint.url}/{self.bucket}"
        if ask.name:
            url += f"/{quote(ask.name, safe='/~')}"
        if ask.query:
            url += f"?{ask.query}"
        return url

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

    def watch(
        self,
        socket: BodySocket,
        count: int,
        take: Callable[[], int],
        failed: Callable[[EngineSilent], object],
    ) -> None:
        """
        Have the next bytes of a body taken from its socket.

        Args:
            count: See `BodySocket.watch`.
            take: See there.
            failed: Called if none came for too long.
        """
        socket.watch(count, take, SILENT_SECONDS, lambda: failed(_stopped()))

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
        if not reply.was_read:
            drain(reply.response, self._timeout)

    async def _refused(self, ask: Ask, reply: Reply) -> Reply:
        """
        Raise what a reply of failure means; or say in the words of others that another
        client came before.
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
        if CONFLICT in ask.expected and is_overtaken(reply, code):
            return replace(reply, status=CONFLICT, was_read=True)
        failure = failure_of(reply, code, self.bucket)
        if isinstance(failure, Transient) and failure.of_endpoint:
            self._endpoints.failed(reply.endpoint)
        raise failure


def _is_of_engine(ask: Ask, reply: Reply) -> bool:
    """
    Whether a reply can be an engine's. A proxy without one, or a page that asks for a
    password, may say 200 to everything: then nothing was stored, and what is read is no
    value.
    """
    if not ask.name or ask.method not in _OF_OBJECTS or reply.status >= 300:
        return True
    return bool(reply.field("ETag") or reply.field(ETAG_FIELD))


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
