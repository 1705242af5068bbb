"""
The connections to an engine, through treq.
"""

from __future__ import annotations

from collections.abc import Iterator
from http.cookiejar import Cookie, CookieJar
from typing import Any, Final, cast

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


NO_COOKIES: Final = _NoCookies()
"""
Give it with each request too, or treq makes a jar for it.
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

        def treq(pool: HTTPConnectionPool) -> HTTPClient:
            agent = Agent.usingEndpointFactory(reactor, endpoints, pool)
            # treq 26.7 asks for a jar of its own class, which older ones do not have.
            # It needs that only to find a cookie by its name.
            return HTTPClient(_Unencoded(agent), cast(Any, NO_COOKIES))

        self.kept = treq(self._pool)
        self.fresh = treq(HTTPConnectionPool(reactor, persistent=False))

    def close(self) -> Deferred[None]:
        """
        Close the connections that are kept.
        """
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed
