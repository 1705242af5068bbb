"""
Tests for `kvd.http.wire.accept`.
"""

import pytest

from kvd.http.wire.accept import prefers

CHROMIUM = (
    b"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,"
    b"image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7"
)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (CHROMIUM, True),
        (b"text/html", True),
        (b"TEXT/HTML ; Q=0.1", True),
        (b"text/html;charset=UTF-8", True),
        (b"text/*, */*;q=0.5", True),
        (b"application/x-ndjson;q=0.5, text/html;q=0.6", True),
        (b"text/html;q=0.5, text/html", True),
        (b",,text/html,;,", True),
        (None, False),
        (b"", False),
        (b"*/*", False),
        (b"text/html, */*", False),
        (b"text/html;q=0", False),
        (b"text/html;q=0.000, text/*;q=0.1", False),
        (b"text/html;q=0.5, */*;q=0.6", False),
        (b"application/x-ndjson, text/html", False),
        (b"text/html;level=1", False),
        (b"text/html;q=1.1", False),
        (b"text/html;q=-1", False),
        (b"text/html q=1", False),
        (b"text", False),
        (b"image/png", False),
        (b"application/json", False),
    ],
)
def test_page_is_for_those_who_would_rather_have_it(
    accept: bytes | None, expected: bool
) -> None:
    """
    Programs that say nothing, or that they take everything, get what is usual.
    """
    assert expected is prefers(accept, b"text/html", b"application/x-ndjson")
