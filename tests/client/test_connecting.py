"""
Tests for `kvd.client.connecting`.
"""

from __future__ import annotations

import pytest
from hyperlink import EncodedURL
from twisted.internet.testing import MemoryReactorClock
from twisted.web.client import URI

from kvd.client.connecting import AsWritten, WideEndpoints


def test_server_keeps_its_endpoint() -> None:
    """
    Whatever is asked for there.
    """
    endpoints = WideEndpoints(MemoryReactorClock())
    first, second = (
        endpoints.endpointForURI(URI.fromBytes(url))
        for url in (b"https://one.example/a", b"https://one.example:443/b?c")
    )

    assert first is second


@pytest.mark.parametrize(
    "url",
    [b"http://one.example:443", b"https://two.example", b"https://one.example:80"],
)
def test_other_server_has_another_endpoint(url: bytes) -> None:
    """
    One with another name or port is another, and so is one that does not speak TLS.
    """
    endpoints = WideEndpoints(MemoryReactorClock())
    kept = endpoints.endpointForURI(URI.fromBytes(b"https://one.example"))

    assert kept is not endpoints.endpointForURI(URI.fromBytes(url))


def test_url_as_written_is_a_url() -> None:
    """
    A treq of a user's own may look at it, and change it.
    """
    text = "http://[::1]:8080/a%2fb?c=d"
    url, parsed = AsWritten(text), EncodedURL.from_text(text)

    assert text == url.to_uri().to_text()
    assert str(parsed) == str(url)
    assert (parsed.host, parsed.port, parsed.path) == (url.host, url.port, url.path)
    assert parsed == url
    assert hash(AsWritten(text)) == hash(url)
    assert parsed.add("e", "f") == url.add("e", "f")
