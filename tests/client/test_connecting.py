"""
Tests for `kvd.client.connecting`.
"""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
from twisted.internet import ssl
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.web.client import URI

from kvd.client.connecting import ClientTLS, WideEndpoints
from tests.certificates import authority


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_connections_are_made_for_who_connects(scheme: str) -> None:
    """
    An agent asks for an endpoint with each request: only where it connects, a TLS
    context is made, with the authorities that the system has by then.
    """
    reactor: Any = MemoryReactorClock()
    endpoints = WideEndpoints(
        reactor, tls=ClientTLS(authority().cert_pem.encode("ascii"))
    )
    uri = URI.fromBytes(f"{scheme}://127.0.0.1:8333/a".encode())
    with mock.patch.object(
        ssl, "optionsForClientTLS", wraps=ssl.optionsForClientTLS
    ) as made:
        for _ in range(3):
            endpoint = endpoints.endpointForURI(uri)
        assert 0 == made.call_count
        for count in (1, 2):
            endpoint.connect(Factory.forProtocol(Protocol))
            assert (count if scheme == "https" else 0) == made.call_count

    assert [("127.0.0.1", 8333)] * 2 == [each[:2] for each in reactor.tcpClients]
