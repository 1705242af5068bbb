"""
Tests for `kvd.http.methods.browsing`: who gets a page, and what of it depends on them.
"""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from kvd.access.rights_file import parse_rights
from kvd.access.rules import AccessRules
from tests.http.fast_path.both import Worker
from tests.http.fast_path.cases import body_of, field, get, head
from tests.http.test_authorization import PASSWORD_HASH, basic

HTML = b"Accept: text/html, */*;q=0.8\r\n"

RIGHTS = f"""
[anonymous.rights]
"/open/" = ["list", "read"]

[users.ann]
password = "{PASSWORD_HASH}"
[users.ann.rights]
"/" = ["list", "read"]
"/open/" = ["list", "read", "write", "delete"]

[prefixes."/open/once/"]
write-once = true
"""


class BrowsingTests(SynchronousTestCase):
    """
    A worker without a fast path, which does not serve listings anyway.
    """

    def make_worker(self, rules: AccessRules | None = None) -> Worker:
        """
        A worker with some values.
        """
        worker = Worker(fast_path=False, durability="process", rules=rules)
        self.addCleanup(worker.clean_up)
        self.addCleanup(worker.end)
        for key in ("a", "b/c", "b/d", "open/k", "open/once/k", "z"):
            worker.place(key, b"value")
        return worker

    def ask(self, worker: Worker, request: bytes) -> bytes:
        """
        What it replies.
        """
        worker.connect(request)
        return worker._replies[-1]

    def links(self, reply: bytes) -> list[str]:
        """
        Of the entries, and to the next page.
        """
        return re.findall(r'href="((?:\./|\?)[^"]*)"', body_of(reply).decode())

    def test_page_is_for_browsers(self) -> None:
        """
        Programs get a plain listing; caches learn what it depends on.
        """
        worker = self.make_worker()
        page = self.ask(worker, get("", HTML))
        plain = self.ask(worker, get("", b"Accept: */*\r\n"))

        assert "text/html; charset=utf-8" == field(page, "Content-Type")
        assert ["./b/", "./open/", "./a", "./z"] == self.links(page)
        assert "nosniff" == field(page, "X-Content-Type-Options")
        assert (field(page, "Content-Security-Policy") or "").startswith("default-src ")
        assert "application/x-ndjson" == field(plain, "Content-Type")
        assert b"b/c" in body_of(plain)
        assert ["Accept"] * 2 == [field(reply, "Vary") for reply in (page, plain)]
        assert ["./c", "./d"] == self.links(self.ask(worker, get("b/", HTML)))
        for prefix in ("none/", "a/"):
            empty = self.ask(worker, get(prefix, HTML))
            assert b"200" == empty[9:12]
            assert b"Nothing is here." in empty

    def test_head_and_conditions(self) -> None:
        """
        HEAD says what GET does. A page that is known is not sent again, until something
        changes.
        """
        worker = self.make_worker()
        page = self.ask(worker, get("", HTML))
        again = self.ask(worker, head("", HTML))
        etag = field(page, "ETag")
        assert etag is not None
        known = HTML + f"If-None-Match: {etag}\r\n".encode()
        unchanged = self.ask(worker, get("", known))

        for name in ("ETag", "Content-Length", "Content-Type", "Cache-Control"):
            assert field(page, name) == field(again, name)
        assert b"" == body_of(again)
        assert b"304" == unchanged[9:12]
        assert etag == field(unchanged, "ETag")
        assert "private, no-cache" == field(unchanged, "Cache-Control")
        since = b"If-Modified-Since: Fri, 01 Jan 2021 00:00:00 GMT\r\n"
        assert b"200" == self.ask(worker, get("", HTML + since))[9:12]
        worker.place("new", b"value")
        assert b"200" == self.ask(worker, get("", known))[9:12]

    def test_pages_continue(self) -> None:
        """
        In the order of the names, each with a link to the next; and the last one
        without.
        """
        worker = self.make_worker()
        first = self.ask(worker, get("?limit=2", HTML))
        *entries, following = self.links(first)
        last = self.ask(worker, get(following, HTML))

        assert ["./a", "./b/"] == entries
        assert "?limit=2&amp;after=b/" == following
        assert '</?limit=2&after=b/>; rel="next"' == field(first, "Link")
        last = self.ask(worker, get("?limit=2&after=b/", HTML))
        assert ["./open/", "./z"] == self.links(last)
        assert field(last, "Link") is None

    def test_page_shows_what_its_reader_may_do(self) -> None:
        """
        Whoever has sent no password may have one, for which the browser asks then.
        """
        worker = self.make_worker(parse_rights(RIGHTS, "rights.toml"))
        assert b"401" == self.ask(worker, get("", HTML))[9:12]
        anybody = self.ask(worker, get("open/", HTML))
        ann = self.ask(worker, get("open/", HTML + basic("ann", "secret")))
        for page in (anybody, ann):
            assert b'data-write="yes"' in page
            assert 1 == page.count(b"data-etag=")
        assert b"Signed in" not in anybody
        assert b"Signed in as <b><bdi>ann</bdi>" in ann
        once = self.ask(worker, get("open/once/", HTML + basic("ann", "secret")))
        assert b'data-once="yes"' in once
        assert b"cannot be replaced" in once
        root = self.ask(worker, get("", HTML + basic("ann", "secret")))
        assert b'data-write="no"' in root
        assert b"data-etag=" not in root
        wrong = self.ask(worker, get("", HTML + basic("ann", "wrong")))
        assert b"401" == wrong[9:12]
        assert "Basic" in (field(wrong, "WWW-Authenticate") or "")
