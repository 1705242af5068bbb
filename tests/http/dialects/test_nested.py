"""
Tests for prefixes of dialects within others, over a store in memory.
"""

from __future__ import annotations

from kvd.settings import DialectChoice
from tests.http.dialects.cases import WebDAVCase, joined
from tests.http.dialects.test_webdav_locks import LockCase, held
from tests.http.test_connection import body, detail, status

LOCK = b'{"ID": "1"}'


class NestedWebDAVTests(LockCase):
    """
    WebDAV within WebDAV: each prefix has its own collections and locks.
    """

    dialects = (DialectChoice("/a/", "webdav"), DialectChoice("/a/b/c/", "webdav"))

    def setUp(self) -> None:
        super().setUp()
        for key in (b"a/v", b"a/b/v", b"a/b/c/v", b"a/b/c/d/w"):
            self.put(key, key)

    def test_both_are_one_tree_to_look_at(self) -> None:
        """
        A client walks from one to the other.
        """
        assert {"/a/b/", "/a/b/v", "/a/b/c/"} == set(self.propfind("/a/b/"))
        assert {"/a/b/c/", "/a/b/c/v", "/a/b/c/d/"} == set(self.propfind("/a/b/c/"))

    def test_nothing_is_transferred_from_one_to_the_other(self) -> None:
        """
        502, as RFC 4918 section 9.8.5 has it, before anything is changed; whoever has
        what lock on which side.
        """
        token = self.lock("/a/b/c/v")
        own = self.lock("/a/v")
        before = self.store.values.copy()
        for line, to in (
            ("MOVE /a/v", "/a/b/c/v"),
            ("COPY /a/v", "/a/b/c/d/"),
            ("MOVE /a/v", "/a/b/c/new"),
            ("COPY /a/v", "/a/b/c"),
            ("COPY /a/b/v", "/a/b/c/v"),
        ):
            for claim in ("", held(token), held(own, "/a/v")):
                reply = self.request(line, f"Destination: {to}\r\n{claim}")
                assert (line, to, 502) == (line, to, status(reply))
                assert "another dialect" in detail(reply)
        reply = self.request("MOVE /a/b/c/v", f"Destination: /a/v\r\n{held(token)}")
        assert (400, True) == (status(reply), "/a/b/c/" in detail(reply))
        reserved = "Destination: /a/b/c/.kvd-locks\r\n"
        self.statuses(
            ("COPY /a/b/v", reserved, None, 400),
            ("GET /a/b/c/.kvd-locks", "", None, 400),
            ("PUT /a/b/.kvd-locks", "", b"", 400),
        )
        assert before == self.store.values

    def test_what_is_in_the_inner_one_stays(self) -> None:
        """
        With its locks, and what is around it goes: the reply tells which.
        """
        token = self.lock("/a/b/c/v")
        inner = [key for key in self.keys() if key.startswith(b"a/b/c/")]
        for line, fields in (
            ("DELETE /a/b/", ""),
            ("MOVE /a/b/", "Destination: /a/m\r\n"),
            ("COPY /a/v", "Destination: /a/b\r\n"),
        ):
            self.put(b"a/b/v", b"value")
            reply = self.request(line, fields)
            assert (line, 207) == (line, status(reply))
            assert b"/a/b/c/v</D:href><D:status>HTTP/1.1 403" in body(reply)
            assert b"/a/b/v<" not in body(reply)
            assert b"a/b/v" not in self.keys()
            kept = [key for key in self.keys() if key.startswith(b"a/b/c/")]
            assert inner == kept
        self.statuses(
            ("PUT /a/b/c/v", "", b"new", 423),
            ("PUT /a/b/c/v", held(token), b"new", 204),
            ("DELETE /a/b/c/", "", None, 403),
            ("MKCOL /a/b/c", "", None, 405),
        )

    def test_copy_has_the_values_and_no_locks(self) -> None:
        """
        Neither the record of them, which would be nobody's.
        """
        self.lock("/a/b/c/v")
        reply = self.request("COPY /a/b/", "Destination: /a/m\r\n")
        assert 201 == status(reply)
        copied = [key for key in self.keys() if key.startswith(b"a/m/")]
        names = [b"a/m/.kvd-collection", b"a/m/c/d/w", b"a/m/c/v", b"a/m/v"]
        assert names == copied
        self.statuses(("PUT /a/m/c/v", "", b"new", 204))

    def test_lock_covers_what_its_prefix_answers_for(self) -> None:
        """
        A lock on everything around the inner prefix is none on what is in it.
        """
        self.lock("/a/")
        self.statuses(
            ("PUT /a/b/v", "", b"new", 423),
            ("PUT /a/b/c/v", "", b"new", 204),
        )

    def test_rights_of_both_sides_count(self) -> None:
        """
        Whoever may not write in the inner one hears nothing else of it.
        """
        self.permit(
            "[anonymous.rights]\n'/a/' = ['read', 'write', 'delete', 'list']\n"
            "'/a/b/c/' = ['read', 'list']\n"
        )
        before = self.keys()
        self.statuses(
            ("MOVE /a/v", "Destination: /a/b/c/v\r\n", None, 401),
            ("PUT /a/b/c/v", "", b"new", 401),
        )
        assert before == self.keys()


class OthersWithinWebDAVTests(WebDAVCase):
    """
    Another dialect within WebDAV.
    """

    dialects = (DialectChoice("/", "webdav"), DialectChoice("/c/tf/", "terraform"))

    def test_its_locks_hold(self) -> None:
        """
        Against requests for what is around it, too.
        """
        self.put(b"c/v", b"value")
        self.statuses(
            ("POST /c/tf/state", "", b"{}", 200),
            ("LOCK /c/tf/state", "", LOCK, 200),
        )
        states = [b"c/tf/state", b"c/tf/state.kvd-lock"]
        reply = self.request("DELETE /c/")
        assert 207 == status(reply)
        assert states == self.keys()
        self.put(b"v", b"value")
        for to in ("/c/tf/state", "/c/tf/state.kvd-lock", "/c/tf/new", "/c/tf"):
            reply = self.request("MOVE /v", f"Destination: {to}\r\n")
            assert (to, 502) == (to, status(reply))
        self.statuses(("MKCOL /c/tf", "", None, 405), ("DELETE /c/tf", "", None, 207))
        assert [*states, b"v"] == self.keys()
        assert {"/c/", "/c/tf/"} == set(self.propfind("/c/"))


class WebDAVWithinS3Tests(LockCase):
    """
    WebDAV within a bucket.
    """

    dialects = (DialectChoice("/", "s3"), DialectChoice("/bucket/dav/", "webdav"))

    def test_objects_in_it_are_not_removed_by_name(self) -> None:
        """
        Only by requests of WebDAV, which heed its locks.
        """
        self.put(b"bucket/k", b"value")
        self.put(b"bucket/dav/v", b"value")
        self.lock("/bucket/dav/v")
        named = (
            b"<Delete><Object><Key>k</Key></Object>"
            b"<Object><Key>dav/v</Key></Object></Delete>"
        )
        reply = self.request("POST /bucket?delete", "", named)
        assert 200 == status(reply)
        said = body(reply) + joined(reply) if b"chunked" in reply else body(reply)
        assert b"<Key>dav/v</Key><Code>AccessDenied" in said
        assert [b"bucket/dav/.kvd-locks", b"bucket/dav/v"] == self.keys()
