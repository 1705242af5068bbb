"""
The connections to an engine, through treq.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from http.cookiejar import Cookie, CookieJar
from types import MappingProxyType
from typing import Any, Final

from hyperlink import EncodedURL
from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from kvd.client.connecting import AsStored, ClientTLS, WideEndpoints

CONNECT_SECONDS: Final = 5.0

READ_BYTES: Final = 64 * 1024
"""
Less than other clients read at once: a worker has many of these connections.
"""

IDLE_CONNECTIONS: Final = 32
"""
Kept for the next requests, for each endpoint.
"""

IDLE_SECONDS: Final = 8
"""
So long. SeaweedFS closes a connection after 10 s, others later; a request that crosses
with that would fail, and have to be retried.
"""


_NO_FIELDS: Final[Mapping[str, str]] = MappingProxyType({})


class _NoCookies(CookieJar):
    """
    Keeps no cookies: no engine needs them, and looking for them took a tenth of treq's
    time.
    """

    def add_cookie_header(self, request: object) -> None:
        pass

    def extract_cookies(self, response: object, request: object) -> None:
        pass

    def __iter__(self) -> Iterator[Cookie]:
        return iter(())


class _Written(EncodedURL):
    """
    A URL that is sent as it is given. treq takes each URL apart, escapes it, and puts
    it together again, but asks for nothing else.
    """

    def __init__(self, text: str) -> None:
        # Not that of the base class, which takes it apart.
        self._text = text

    def to_uri(self) -> _Written:
        return self

    def to_text(self, with_password: bool = False) -> str:
        return self._text


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
        # treq has made them for this request.
        assert headers is not None
        headers.setRawHeaders("Accept-Encoding", ["identity"])
        return super().request(method, uri, headers, bodyProducer)


class Connections:
    """
    Connections to an engine, through treq.
    """

    def __init__(self, reactor: Any, tls: ClientTLS | None = None) -> None:
        """
        Args:
            tls: Which certificates to trust; None: the system's authorities.

        Raises:
            ValueError: See `ClientTLS`.
        """
        endpoints = WideEndpoints(reactor, CONNECT_SECONDS, tls, READ_BYTES)
        self._pool = HTTPConnectionPool(reactor)
        self._pool.retryAutomatically = False
        self._pool.maxPersistentPerHost = IDLE_CONNECTIONS
        self._pool.cachedConnectionTimeout = IDLE_SECONDS

        self._reactor = reactor
        self._cookies: Any = _NoCookies()

        def treq(pool: HTTPConnectionPool) -> HTTPClient:
            agent = Agent.usingEndpointFactory(reactor, endpoints, pool)
            # treq 26.7 asks for a jar of its own class, which older ones do not have.
            # It needs that only to find a cookie by its name.
            return HTTPClient(_Unencoded(agent), self._cookies)

        self._kept = treq(self._pool)
        self._fresh = treq(HTTPConnectionPool(reactor, persistent=False))

    def request(
        self,
        method: str,
        url: str,
        fields: Mapping[str, str] = _NO_FIELDS,
        body: IBodyProducer | None = None,
        *,
        fresh: bool,
    ) -> Deferred[IResponse]:
        """
        Send a request. Redirections are replies like others.

        Args:
            url: Percent-encoded; sent as it is.
            fresh: Whether to make a connection for it, that serves no other.
        """
        treq = self._fresh if fresh else self._kept
        asked: Deferred[Any] = treq.request(
            method,
            _Written(url),
            headers=Headers({name: [text] for name, text in fields.items()}),
            data=body,
            # Else it makes another jar for this request.
            cookies=self._cookies,
            allow_redirects=False,
            unbuffered=True,
            # Else it would install Twisted's own.
            reactor=self._reactor,
        )
        return asked

    def close(self) -> Deferred[None]:
        """
        Close the connections that are kept.
        """
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed
