"""
Tests for `kvd.http.page_guard`: which pages may change something, with the fast path
and without; and that no value can be such a page (`kvd.http.reply_fields.SANDBOX`).
"""

from __future__ import annotations

import pytest

from kvd.errors import ForeignPage
from kvd.http.page_guard import check_page
from kvd.model.requests import Request
from tests.http.fast_path.cases import field, get, head, put
from tests.http.test_cors import APP, EVIL, CorsCase

SAME = b"Sec-Fetch-Site: same-origin\r\n"
CROSS = b"Sec-Fetch-Site: cross-site\r\n"
OWN = b"Origin: http://kvd\r\n"


def is_refused(method: str, host: bytes | None = b"kvd:80", **fields: bytes) -> bool:
    """
    Whether a request with some fields is refused.
    """
    named = {name.replace("_", "-").encode(): value for name, value in fields.items()}
    request = Request(method, b"/k", 1, named, 0, False, True, False, host)
    try:
        check_page(request, None)
    except ForeignPage:
        return True
    return False


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "MKCOL", "PATCH"])
def test_pages_of_other_sites_change_nothing(method: str) -> None:
    """
    As Fetch Metadata says, or the origin where there is none; programs say nothing.
    """
    assert not is_refused(method)
    for site in (b"same-origin", b"none"):
        assert not is_refused(method, sec_fetch_site=site)
        assert not is_refused(method, sec_fetch_site=site, origin=b"https://kvd:8080")
    for site in (b"cross-site", b"same-site", b"", b"same-origin, none"):
        assert is_refused(method, sec_fetch_site=site)
        assert is_refused(method, sec_fetch_site=site, origin=b"http://kvd")
    for host, origin in [
        (b"kvd:80", b"http://kvd"),
        (b"KVD", b"http://kvd"),
        (b"kvd", b"https://KVD"),
        (b"kvd:443", b"https://kvd"),
        (b"kvd:8080", b"http://kvd:8080"),
        (b"[::1]:8080", b"http://[::1]:8080"),
    ]:
        assert not is_refused(method, host, origin=origin)
    for other, origin in [
        (b"kvd", b"null"),
        (b"kvd", b""),
        (b"kvd", b"http://kvd.evil"),
        (b"kvd", b"http://evil/kvd"),
        (b"kvd", b"http://kvd:8080"),
        (b"kvd:8080", b"http://kvd"),
        (b"kvd:443", b"http://kvd"),
        (b"kvd", b"file://kvd"),
        (b"kvd", b"http://kvd, http://kvd"),
        (None, b"http://kvd"),
    ]:
        assert is_refused(method, other, origin=origin), (other, origin)


def test_reading_is_not_refused() -> None:
    """
    A browser gives the page nothing of it.
    """
    for method in ("GET", "HEAD", "OPTIONS"):
        assert not is_refused(method, sec_fetch_site=b"cross-site", origin=b"null")


class PageGuardTests(CorsCase):
    """
    The same on both ways, beside what ``--cors`` allows.
    """

    def status(self, request: bytes) -> bytes:
        """
        That of the reply of both.
        """
        return self.ask(request)[9:12]

    def test_pages_of_other_sites_store_nothing(self) -> None:
        """
        The second request of a kind is the fast path's, if it serves it. A prefix that
        a page may use opens no other one.
        """
        for page in (CROSS, CROSS + APP, EVIL, b"Origin: null\r\n", CROSS + OWN):
            for _ in range(3):
                assert b"403" == self.status(put("k", b"value", page))
                assert b"404" == self.status(get("k", page))
        for page in (APP, CROSS + APP):
            for _ in range(2):
                assert self.status(put("app/k", b"value", page)) in (b"201", b"204")
                assert b"403" == self.status(put("k", b"value", page))
                assert b"403" == self.status(put("public/not/k", b"value", page))
        for page in (b"", SAME, OWN, SAME + OWN):
            for _ in range(2):
                assert self.status(put("k", b"value", page)) in (b"201", b"204")
                assert b"403" == self.status(put("none", b"value", CROSS + page))
        reply = self.ask(b"DELETE /k HTTP/1.1\r\nHost: kvd\r\n" + CROSS + b"\r\n")
        assert b"403" == reply[9:12]
        assert b"a page of another site" in reply.lower()
        assert {"app", "app/k", "k"} == {*self.workers[0].values()}

    def test_values_that_may_be_pages_are_in_a_sandbox(self) -> None:
        """
        However their type is written, in each reply with one; no other value is.
        """
        active = ["text/html", "Text/HTML; charset=utf-8", "application/xhtml+xml"]
        active += ["image/svg+xml", "text/xml", "application/atom+xml", "text/xsl"]
        active += ["text/plain, text/html", "multipart/x-mixed-replace;boundary=a"]
        for kind in active:
            line = f"Content-Type: {kind}\r\n".encode()
            self.ask(put("page", b"<script>", line))
            for request in (get, head, get):
                reply = self.ask(request("page"))
                assert "sandbox" == field(reply, "Content-Security-Policy"), kind
                assert "nosniff" == field(reply, "X-Content-Type-Options")
                assert kind == field(reply, "Content-Type")
            part = self.ask(get("page", b"Range: bytes=0-2\r\n"))
            assert b"206" == part[9:12]
            assert "sandbox" == field(part, "Content-Security-Policy")
        for kind in ("", "text/plain", "image/png", "application/pdf", "font/woff2"):
            line = f"Content-Type: {kind}\r\n".encode() if kind else b""
            self.ask(put("other", b"<script>", line))
            for _ in range(2):
                assert field(self.ask(get("other")), "Content-Security-Policy") is None
        watched = self.workers[0].watched
        assert watched is None or watched.served
