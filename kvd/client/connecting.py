"""
Connections with large reads, and replies whose bodies are not decoded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, cast

from hyperlink import EncodedURL
from OpenSSL import SSL, crypto
from twisted.internet import ssl
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.web.client import URI, BrowserLikePolicyForHTTPS
from twisted.web.http_headers import Headers
from twisted.web.iweb import (
    IAgent,
    IAgentEndpointFactory,
    IBodyProducer,
    IPolicyForHTTPS,
    IResponse,
)
from zope.interface import implementer

CONNECT_SECONDS: Final = 10.0

_CERTIFICATE: Final = re.compile(
    rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\r?\n?", re.DOTALL
)

READ_BYTES: Final = 256 * 1024
"""
For each read(2). Twisted's own 64 KiB make a GET of 1 GB take about one and a half
times as long.
"""


@implementer(IStreamClientEndpoint)
class _Wide:
    """
    Connects as another endpoint does, and enlarges the reads.
    """

    def __init__(
        self, make_endpoint: Callable[[], IStreamClientEndpoint], read_bytes: int
    ) -> None:
        """
        Args:
            make_endpoint: Makes the other one. An agent asks for an endpoint with each
                request, even where it has a connection, and to make a TLS context takes
                long.
            read_bytes: See `WideEndpoints`.
        """
        self._make_endpoint = make_endpoint
        self._read_bytes = read_bytes

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        # No line in the log for each connection.
        cast(Any, protocolFactory).noisy = False
        return self._make_endpoint().connect(protocolFactory).addCallback(self._widen)

    def _widen(self, protocol: Any) -> IProtocol:
        protocol.transport.bufferSize = self._read_bytes
        widened: IProtocol = protocol
        return widened


@dataclass(frozen=True)
class ClientTLS:
    """
    The certificates that a client trusts over TLS, and those that it shows. All texts
    are in PEM.
    """

    authorities: bytes | None = None
    """Those that sign servers' certificates; None: the system's."""
    certificate: bytes | None = None
    """The client's own, and those that lead from it to an authority; None: none."""
    key: bytes | None = field(default=None, repr=False)
    """Its private key; None: it stands with the certificate."""


@implementer(IPolicyForHTTPS)
class _TLSPolicy:
    """
    Checks servers as `ClientTLS` says.
    """

    def __init__(self, tls: ClientTLS) -> None:
        """
        Raises:
            ValueError: A text is not what it should be.
        """
        self._trust = None
        self._shown: dict[str, Any] = {}
        try:
            if tls.authorities is not None:
                self._trust = ssl.trustRootFromCertificates(
                    [ssl.Certificate.loadPEM(pem) for pem in _blocks(tls.authorities)]
                )
            if tls.certificate is not None:
                own, *chain = [
                    crypto.load_certificate(crypto.FILETYPE_PEM, pem)
                    for pem in _blocks(tls.certificate)
                ]
                key = crypto.load_privatekey(
                    crypto.FILETYPE_PEM, tls.key or tls.certificate, b""
                )
                self._shown = {
                    "privateKey": key,
                    "certificate": own,
                    "extraCertChain": chain,
                }
                # Whether they belong together.
                ssl.CertificateOptions(**self._shown).getContext()
        except (crypto.Error, SSL.Error) as error:
            raise ValueError(
                "the certificate, its key or the authorities cannot be used: give files"
                " in PEM, with a key that is not encrypted and belongs to the"
                " certificate"
            ) from error

    def creatorForNetloc(self, hostname: bytes, port: int) -> Any:
        """
        See `IPolicyForHTTPS`.
        """
        return ssl.optionsForClientTLS(
            hostname.decode("ascii"),
            trustRoot=self._trust or ssl.platformTrust(),
            extraCertificateOptions=self._shown,
        )


def _blocks(pem: bytes) -> list[bytes]:
    found = _CERTIFICATE.findall(pem)
    if not found:
        raise ValueError(
            "there is no certificate in PEM, with BEGIN and END lines, where one should"
            " be"
        )
    return found


@implementer(IAgentEndpointFactory)
class WideEndpoints:
    """
    Endpoints for HTTP, and for HTTPS.
    """

    def __init__(
        self,
        reactor: Any,
        connect_seconds: float = CONNECT_SECONDS,
        tls: ClientTLS | None = None,
        read_bytes: int = READ_BYTES,
    ) -> None:
        """
        Args:
            tls: Which certificates to trust; None: the system's authorities.
            read_bytes: For each read(2), and about as much is held for each write.

        Raises:
            ValueError: See `ClientTLS`.
        """
        self._reactor = reactor
        self._seconds = connect_seconds
        self._read_bytes = read_bytes
        self._policy = BrowserLikePolicyForHTTPS() if tls is None else _TLSPolicy(tls)

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        return _Wide(partial(self._make, uri), self._read_bytes)

    def _make(self, uri: URI) -> IStreamClientEndpoint:
        endpoint = self._endpoint(uri.host.decode("ascii"), uri.port)
        if uri.scheme == b"https":
            creator = self._policy.creatorForNetloc(uri.host, uri.port)
            endpoint = wrapClientTLS(creator, endpoint)
        return endpoint

    def _endpoint(self, host: str, port: int) -> IStreamClientEndpoint:
        # An address needs no lookup, which would use a thread.
        if isIPAddress(host):
            return TCP4ClientEndpoint(self._reactor, host, port, self._seconds)
        if isIPv6Address(host):
            return TCP6ClientEndpoint(self._reactor, host, port, self._seconds)
        return HostnameEndpoint(self._reactor, host, port, self._seconds)


STORED_ENCODING: Final = "Kvd-Stored-Encoding"
"""
The name that `AsStored` gives to the field ``Content-Encoding`` of a reply.
"""


@implementer(IAgent)
class AsStored:
    """
    Sends requests as another agent does, and hides the content coding of a
    reply. treq would decode the body, but a value is what was stored.
    """

    def __init__(self, agent: IAgent) -> None:
        self._agent = agent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        asked = self._agent.request(method, uri, headers, bodyProducer)
        return asked.addCallback(self._hide)

    def _hide(self, response: IResponse) -> IResponse:
        codings = response.headers.getRawHeaders("Content-Encoding")
        if codings:
            response.headers.removeHeader("Content-Encoding")
            response.headers.setRawHeaders(STORED_ENCODING, codings)
        return response


class AsWritten(EncodedURL):
    """
    A URL that is sent as it was given.

    treq escapes every URL, which fails for IPv6 addresses.
    """

    def to_uri(self) -> AsWritten:
        return self
