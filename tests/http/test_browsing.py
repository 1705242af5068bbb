"""
Tests for `kvd.http.methods.browsing`: who gets a page, and what of it depends on them.
"""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from kvd.access.rights_file import parse_rights
from kvd.access.rules import AccessRules
from kvd.errors import KeyAbsent
from kvd.interfaces import Answer, IValue
from kvd.model.keys import Key
from kvd.model.values import ValueInfo
from kvd.settings import DialectChoice
from kvd.store.memory import MemoryStore, MemoryValue
from tests.http.fast_path.both import Worker
from tests.http.fast_path.cases import body_of, field, get, head, put, without_date
from tests.http.test_authorization import PASSWORD_HASH, basic
from tests.http.test_connection import ConnectionCase

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


class BrowsingCase(SynchronousTestCase):
    """
    A worker and its clients.
    """

    fast_path = False

    def make_worker(
        self, rules: AccessRules | None = None, *dialects: DialectChoice
    ) -> Worker:
        """
        A worker with some values.
        """
        worker = Worker(
            fast_path=self.fast_path,
            durability="process",
            rules=rules,
            dialects=dialects,
        )
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


class BrowsingTests(BrowsingCase):
    """
    A worker without a fast path, which does not serve listings anyway.
    """

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


FOLDER_RIGHTS = """
[anonymous.rights]
"/" = ["read"]
"/open/" = ["list", "read"]
"""


class FolderTests(BrowsingCase):
    """
    The path of a folder without its slash.
    """

    def leads_to(self, reply: bytes) -> str | None:
        """
        Where a browser is sent; None: there is no value, and it is told so.
        """
        if b"404" == reply[9:12]:
            assert "application/problem+json" == field(reply, "Content-Type")
            assert field(reply, "Location") is None
            return None
        assert b"307" == reply[9:12]
        assert b"" == body_of(reply)
        assert "0" == field(reply, "Content-Length")
        assert "Accept" == field(reply, "Vary")
        # Tomorrow a value may have this key.
        assert "private, no-cache" == field(reply, "Cache-Control")
        return field(reply, "Location")

    def test_browser_is_sent_to_the_page_of_a_folder(self) -> None:
        """
        The location is relative, because a proxy may serve kvd below a path; the query
        stays. HEAD says the same.
        """
        worker = self.make_worker()
        worker.place("open/a b:\u00fc?/k", b"value")

        for path, location in (
            ("b", "./b/"),
            ("open/once", "./once/"),
            ("./b", "./b/"),
            ("b?limit=2&after=b/c", "./b/?limit=2&after=b/c"),
            ("b?", "./b/?"),
            ("open/a%20b:%c3%bc%3F", "./a%20b%3A%C3%BC%3F/"),
        ):
            assert location == self.leads_to(self.ask(worker, get(path, HTML)))
            assert location == self.leads_to(self.ask(worker, head(path, HTML)))
        whole = b"GET http://kvd/open/once HTTP/1.1\r\nHost: kvd\r\n" + HTML + b"\r\n"
        assert "./once/" == self.leads_to(self.ask(worker, whole))
        assert b"<h1>" in self.ask(worker, get("open/once/", HTML))

    def test_location_never_leads_elsewhere(self) -> None:
        """
        Neither to another host, nor above the folder, nor to a header of its own.
        """
        worker = self.make_worker()
        for folder in ("evil.example", "b\\c", "javascript:x", "x;y", "..b"):
            worker.place(f"{folder}/k", b"value")
        for path, expected in (
            ("/evil.example", None),
            ("%2fevil.example", None),
            ("b/%2e%2e", None),
            ("b?\\evil", "./b/?\\evil"),
            ("b?%0d%0aX:1", "./b/?%0d%0aX:1"),
            ("b%0d%0aX:1", None),
            ("b\\c", "./b%5Cc/"),
            ("b%5cc", "./b%5Cc/"),
            ("\\evil.example", None),
            ("javascript:x", "./javascript%3Ax/"),
            ("x;y", "./x%3By/"),
            ("..b", "./..b/"),
        ):
            reply = self.ask(worker, get(path, HTML))
            assert (path, expected) == (path, field(reply, "Location"))

    def test_programs_are_told_that_there_is_no_value(self) -> None:
        """
        So is a browser, where there is no folder: in the same words.
        """
        worker = self.make_worker()
        for accept in (b"", b"Accept: */*\r\n", b"Accept: application/json\r\n"):
            assert self.leads_to(self.ask(worker, get("b", accept))) is None
        for path in ("none", "b/none", "a/b", "b?limit=wrong", "open/once/k/x"):
            expected = self.ask(worker, get(path))
            reply = self.ask(worker, get(path, HTML))
            assert self.leads_to(reply) is None
            assert without_date(expected) == without_date(reply)
        assert b"value" == body_of(self.ask(worker, get("a", HTML)))

    def test_folder_has_to_have_values(self) -> None:
        """
        With the last one, the folder is gone; then its name can be that of a value.
        """
        worker = self.make_worker()
        assert "./b/" == self.leads_to(self.ask(worker, get("b", HTML)))
        for key in (b"b/c", b"b/d"):
            self.ask(worker, b"DELETE /%s HTTP/1.1\r\nHost: kvd\r\n\r\n" % key)
        assert self.leads_to(self.ask(worker, get("b", HTML))) is None
        self.ask(worker, put("b", b"value"))
        assert b"value" == body_of(self.ask(worker, get("b", HTML)))

    def test_folder_that_may_not_be_listed_is_not_told(self) -> None:
        """
        It looks as if it were not there.
        """
        worker = self.make_worker(parse_rights(FOLDER_RIGHTS, "rights.toml"))
        assert "./once/" == self.leads_to(self.ask(worker, get("open/once", HTML)))
        secret = self.ask(worker, get("b", HTML))
        none = self.ask(worker, get("c", HTML))
        assert self.leads_to(secret) is None
        assert without_date(none) == without_date(secret).replace(b"/b ", b"/c ")

    def test_pages_may_be_off(self) -> None:
        """
        Then there is nothing to be sent to.
        """
        worker = self.make_worker()
        worker._server.process.has_pages = False
        assert self.leads_to(self.ask(worker, get("b", HTML))) is None

    def test_dialect_decides_what_a_slash_means(self) -> None:
        """
        Some have pages too, and others have other paths.
        """
        worker = self.make_worker(
            None, DialectChoice("/open/", "webdav"), DialectChoice("/b/", "nx")
        )
        worker.place("b/v1/k", b"value")
        assert "./once/" == self.leads_to(self.ask(worker, get("open/once", HTML)))
        assert "./open/" == self.leads_to(self.ask(worker, get("open", HTML)))
        reply = self.ask(worker, get("b/v1", HTML))
        assert field(reply, "Location") is None
        assert self.leads_to(self.ask(worker, get("b", HTML))) is None


class FastFolderTests(FolderTests):
    """
    The same with a fast path, which leaves such a request to the ordinary way.
    """

    fast_path = True

    def test_other_requests_take_the_fast_path(self) -> None:
        """
        Those of programs, and those of browsers for values.
        """
        worker = self.make_worker()
        self.ask(worker, put("k", b"value"))
        assert worker.watched is not None
        for request, is_fast in (
            (get("none"), True),
            (get("none", b"Accept: */*\r\n"), True),
            (get("k", HTML), True),
            (get("none", HTML), False),
        ):
            before = worker.watched.served
            self.ask(worker, request)
            assert (request, is_fast) == (request, worker.watched.served > before)


class RemovedValue(MemoryValue):
    """
    A value that is removed before it is read, of which nothing is left.
    """

    is_closed = False

    def read(self, offset: int, count: int) -> Answer[bytes]:
        raise KeyAbsent("It was removed.")

    def close(self) -> None:
        self.is_closed = True


class RemovedStore(MemoryStore):
    """
    As an engine, which may have a value and a folder of one name, with a cache before
    it.
    """

    removed: RemovedValue | None = None

    def open(self, key: Key, whole: bool = False) -> Answer[IValue]:
        if key != b"b":
            return super().open(key, whole)
        self.removed = RemovedValue(self, ValueInfo(key, 5, "tag", 0), b"value")
        return self.removed


class RemovalTests(ConnectionCase):
    """
    A value is removed while it is read.
    """

    def make_store(self) -> RemovedStore:
        return RemovedStore()

    def test_value_is_closed_before_browser_is_sent_to_the_folder(self) -> None:
        """
        As it is before a refusal.
        """
        self.process.has_pages = True
        self.put(b"b/c", b"value")
        for request, expected in ((get("b"), b"404"), (get("b", HTML), b"307")):
            assert expected == self.ask(request)[9:12]
            assert isinstance(self.store, RemovedStore)
            assert self.store.removed is not None
            assert self.store.removed.is_closed
