"""
Tests for `kvd.http.dialects.webdav`: exchanges with clients, over a store in memory.
"""

from __future__ import annotations

import re

from kvd.model.keys import Key
from kvd.settings import DialectChoice
from tests.http.dialects.cases import DAV, DialectCase, WebDAVCase
from tests.http.test_connection import body, detail, field, status

PROPFIND_OF_RCLONE = b"""<?xml version="1.0"?>
<d:propfind  xmlns:d="DAV:" xmlns:oc="http://owncloud.org/ns">
 <d:prop><d:displayname /><d:getlastmodified /><d:getcontentlength />
 <d:resourcetype /><d:getcontenttype /><oc:checksums /></d:prop>
</d:propfind>"""

BOMB = b"""<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">
<!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<propfind xmlns="DAV:"><prop><x>&b;</x></prop></propfind>"""

OUTSIDE = b"""<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "/etc/passwd">]>
<propfind xmlns="DAV:"><prop><x>&x;</x></prop></propfind>"""


class ResourceTests(WebDAVCase):
    """
    Values are resources, and collections are where they are.
    """

    def test_what_plain_clients_have_stored_is_in_collections(self) -> None:
        """
        To any depth, with what the store knows of it.
        """
        etag = self.put(b"dav/a/b%", b"value")
        self.put(b"elsewhere", b"")

        found = self.propfind("/dav/")
        assert ["/dav/", "/dav/a/"] == [*found]
        for each in found.values():
            assert each.find(f".//{DAV}collection") is not None
        found = self.propfind("/dav/a")
        assert ["/dav/a/", "/dav/a/b%25"] == [*found]
        value = found["/dav/a/b%25"]
        assert "5" == value.findtext(f".//{DAV}getcontentlength")
        assert f'"{etag}"' == value.findtext(f".//{DAV}getetag")
        assert value.find(f".//{DAV}collection") is None
        assert ["/dav/a/"] == [*self.propfind("/dav/a/", 0)]

    def test_root_has_two_names(self) -> None:
        """
        Without its slash, plain methods mean a key beside it.
        """
        assert ["/dav/"] == [*self.propfind("/dav")]
        self.statuses(
            ("OPTIONS /dav", "", None, 200),
            ("MKCOL /dav", "", None, 405),
            ("DELETE /dav", "", None, 404),
            ("PROPFIND /davy", "Depth: 0\r\n", None, 405),
            ("PUT /dav", "", b"value", 201),
        )

    def test_root_is_there_without_values(self) -> None:
        """
        It cannot be made.
        """
        assert ["/dav/"] == [*self.propfind("/dav/")]

    def test_collections_are_made_and_last(self) -> None:
        """
        Without values, and what makes them last is not seen.
        """
        self.statuses(
            ("MKCOL /dav/a", "", None, 201),
            ("MKCOL /dav/a/", "", None, 405),
            ("MKCOL /dav/", "", None, 405),
            ("MKCOL /dav/x/y/", "", None, 409),
            ("MKCOL /dav/z", "", b"<x/>", 415),
            ("PUT /dav/a/v", "", b"value", 201),
            ("PUT /dav/a/v", "", b"other", 204),
            ("MKCOL /dav/a/v", "", None, 405),
            ("PUT /dav/x/v", "", b"value", 409),
            ("PUT /dav/a/w/", "", b"value", 405),
            ("GET /dav/a/v", "", None, 200),
            ("DELETE /dav/a/v", "", None, 204),
            ("DELETE /dav/a/v", "", None, 404),
        )
        assert ["/dav/a/"] == [*self.propfind("/dav/a/")]
        self.statuses(
            ("DELETE /dav/a/", "", None, 204),
            ("DELETE /dav/a/", "", None, 404),
            ("DELETE /dav/", "", None, 403),
        )
        assert [] == self.keys()

    def test_a_collection_of_others_goes_with_its_last_value(self) -> None:
        """
        Nothing but values made it.
        """
        self.put(b"dav/a/b", b"value")
        self.statuses(
            ("PROPFIND /dav/a", "Depth: 0\r\n", None, 207),
            ("DELETE /dav/a/b", "", None, 204),
            ("PROPFIND /dav/a", "Depth: 0\r\n", None, 404),
        )

    def test_reserved_names_are_refused(self) -> None:
        """
        In words, and a value cannot be hidden that way.
        """
        for line in (
            "PUT /dav/a/.kvd-collection",
            "MKCOL /dav/.kvd-collection/",
            "DELETE /dav/.kvd-locks",
        ):
            reply = self.request(line)
            assert 400 == status(reply)
            assert "choose another" in detail(reply)
        reply = self.request("MOVE /dav/a", "Destination: /dav/.kvd-collection\r\n")
        assert 400 == status(reply)

    def test_conditions_hold(self) -> None:
        """
        As they do for plain clients.
        """
        etag = self.put(b"dav/v", b"value")
        self.statuses(
            ("PUT /dav/v", "If-None-Match: *\r\n", b"x", 412),
            ("DELETE /dav/v", 'If-Match: "other"\r\n', None, 412),
            ("DELETE /dav/v", f'If-Match: "{etag}"\r\n', None, 204),
        )

    def test_time_of_the_clients_file_is_kept(self) -> None:
        """
        rclone sends it, hears that it was accepted, and gets it back.
        """
        reply = self.request("PUT /dav/v", "X-OC-Mtime: 1000000000\r\n", b"value")
        assert b"accepted" == field(reply, b"X-OC-Mtime")
        found = self.propfind("/dav/v", 0, PROPFIND_OF_RCLONE)["/dav/v"]
        modified = found.findtext(f".//{DAV}getlastmodified")
        assert "Sun, 09 Sep 2001 01:46:40 GMT" == modified
        self.statuses(("PUT /dav/v", "X-OC-Mtime: yesterday\r\n", b"x", 400))


class PropertyTests(WebDAVCase):
    """
    What is said about resources.
    """

    def proppatch(self, content: str, path: str = "/dav/v") -> bytes:
        """
        What comes to a PROPPATCH.
        """
        whole = f'<propertyupdate xmlns="DAV:">{content}</propertyupdate>'
        return self.request(f"PROPPATCH {path}", "", whole.encode())

    def test_unknown_property_is_told_with_those_that_are_known(self) -> None:
        """
        Each with a status of its own.
        """
        self.put(b"dav/v", b"value")
        found = self.propfind("/dav/v", 0, PROPFIND_OF_RCLONE)["/dav/v"]
        by_status = {
            each.findtext(f"{DAV}status"): [child.tag for child in each[0]]
            for each in found.iterfind(f"{DAV}propstat")
        }
        missing = [f"{DAV}displayname", "{http://owncloud.org/ns}checksums"]
        assert missing == by_status["HTTP/1.1 404 Not Found"]
        assert 4 == len(by_status["HTTP/1.1 200 OK"])

    def test_infinite_depth_is_refused(self) -> None:
        """
        Of a collection; it is what no Depth means, too. A value has nothing below.
        """
        self.put(b"dav/v", b"value")
        self.statuses(
            ("PROPFIND /dav/v", "", None, 207),
            ("PROPFIND /dav/none", "", None, 404),
        )
        for fields in ("", "Depth: infinity\r\n"):
            reply = self.request("PROPFIND /dav/", fields)
            assert 403 == status(reply)
            assert b"<D:propfind-finite-depth/>" in body(reply)
        self.statuses(("PROPFIND /dav/", "Depth: 2\r\n", None, 400))

    def test_properties_of_clients_are_kept(self) -> None:
        """
        With the value, its bytes and its metadata, through a copy and a move.
        """
        self.request("PUT /dav/v", "Content-Type: a/b\r\n", b"value")
        reply = self.proppatch(
            '<set><prop><x:n xmlns:x="urn:x">&lt;&#228;<x:i/></x:n></prop></set>'
            "<set><prop><gone/></prop></set><remove><prop><gone/></prop></remove>"
        )
        assert 207 == status(reply)
        assert b"200 OK" in body(reply)
        to = "Destination: http://kvd:80/dav/{}\r\n"
        self.statuses(
            ("COPY /dav/v", to.format("w"), None, 201),
            ("MOVE /dav/w", to.format("u"), None, 201),
        )

        assert b"value" == self.value(b"dav/u")
        found = self.propfind("/dav/u", 0)["/dav/u"]
        kept = found.find(".//{urn:x}n")
        assert kept is not None
        assert ("<ä", "{urn:x}i") == (kept.text, kept[0].tag)
        assert found.find(f".//{DAV}gone") is None
        assert "a/b" == found.findtext(f".//{DAV}getcontenttype")
        reply = self.request("GET /dav/u")
        assert b"urn:x" not in reply

    def test_all_properties_are_set_or_none(self) -> None:
        """
        One that only kvd sets, or one too many, spoils the others.
        """
        self.put(b"dav/v", b"value")
        reply = self.proppatch(
            '<set><prop><getetag>"x"</getetag><a xmlns="b">1</a></prop></set>'
        )
        assert re.findall(rb"HTTP/1.1 (\d+)", body(reply)) == [b"403", b"424"]
        long = "x" * 4000
        reply = self.proppatch(f'<set><prop><a xmlns="b">{long}</a></prop></set>')
        assert re.findall(rb"HTTP/1.1 (\d+)", body(reply)) == [b"507"]
        assert {} == self.store.values[Key(b"dav/v")][0].metadata

    def test_collections_keep_properties_too(self) -> None:
        """
        Also those that only values have made; the root does not.
        """
        self.put(b"dav/c/v", b"value")
        change = '<set><prop><a xmlns="b">1</a></prop></set>'
        assert 207 == status(self.proppatch(change, "/dav/c/"))
        found = self.propfind("/dav/")["/dav/c/"]
        assert "1" == found.findtext(".//{b}a")
        assert 403 == status(self.proppatch(change, "/dav/"))
        assert 404 == status(self.proppatch(change, "/dav/none"))

    def test_windows_and_rclone_set_the_time(self) -> None:
        """
        Each with a property of its own.
        """
        self.put(b"dav/v", b"value")
        windows = "urn:schemas-microsoft-com:"
        for change in (
            "<lastmodified>1000000000</lastmodified>",
            f'<Win32LastModifiedTime xmlns="{windows}">Sun, 09 Sep 2001 01:46:40 GMT'
            "</Win32LastModifiedTime>",
        ):
            reply = self.proppatch(f"<set><prop>{change}</prop></set>")
            assert b"200 OK" in body(reply)
            found = self.propfind("/dav/v", 0)["/dav/v"]
            modified = found.findtext(f".//{DAV}getlastmodified")
            assert "Sun, 09 Sep 2001 01:46:40 GMT" == modified
        reply = self.proppatch("<set><prop><lastmodified>x</lastmodified></prop></set>")
        assert 400 == status(reply)

    def test_hostile_documents_are_refused(self) -> None:
        """
        Entities are not expanded, nor even declared; nothing is nested deeply.
        """
        deep = b'<propfind xmlns="DAV:">' + b"<a>" * 100_000
        for content in (BOMB, OUTSIDE, deep, b"<propfind", b"\xff\xfe<", b"<a/>"):
            reply = self.request("PROPFIND /dav/", "Depth: 0\r\n", content)
            assert (content[:30], 400) == (content[:30], status(reply))
        large = b"Content-Length: 1048577\r\n\r\n"
        head = b"PROPFIND /dav/ HTTP/1.1\r\nHost: kvd\r\nDepth: 0\r\n"
        assert 413 == status(self.ask(head + large))


class TransferTests(WebDAVCase):
    """
    COPY and MOVE.
    """

    def setUp(self) -> None:
        super().setUp()
        for key in (b"dav/a/x", b"dav/a/b/y", b"dav/v"):
            self.put(key, key)

    def transfer(self, line: str, to: str, fields: str = "") -> int:
        """
        The status.
        """
        return status(self.request(line, f"Destination: {to}\r\n{fields}"))

    def test_collections_are_copied_and_moved(self) -> None:
        """
        With all that is below, or alone; what was at the target is gone.
        """
        assert 201 == self.transfer("COPY /dav/a", "/dav/c")
        assert b"dav/a/b/y" == self.value(b"dav/c/b/y") == self.value(b"dav/a/b/y")
        assert 204 == self.transfer("MOVE /dav/a/", "/dav/v/")
        assert [b"dav/v/.kvd-collection", b"dav/v/b/y", b"dav/v/x"] == [
            key for key in self.keys() if not key.startswith(b"dav/c/")
        ]
        assert 201 == self.transfer("COPY /dav/v/", "/dav/d/", "Depth: 0\r\n")
        assert ["/dav/d/"] == [*self.propfind("/dav/d/")]
        self.put(b"dav/w", b"value")
        assert 204 == self.transfer("MOVE /dav/w", "/dav/c")
        assert b"value" == self.value(b"dav/c")

    def test_nothing_is_overwritten_where_that_is_forbidden(self) -> None:
        """
        Neither a value nor a collection.
        """
        before = self.keys()
        for source, to in (("/dav/a/x", "/dav/v"), ("/dav/v", "/dav/a")):
            for line in (f"COPY {source}", f"MOVE {source}"):
                assert 412 == self.transfer(line, to, "Overwrite: F\r\n")
        assert before == self.keys()
        assert 201 == self.transfer("MOVE /dav/v", "/dav/w", "Overwrite: F\r\n")

    def test_impossible_targets_are_refused(self) -> None:
        """
        Before anything is changed.
        """
        before = self.keys()
        for line, to, expected in (
            ("COPY /dav/v", "/dav/v", 403),
            ("MOVE /dav/a", "/dav/a/b/c", 403),
            ("MOVE /dav/a/b/y", "/dav/a", 403),
            ("MOVE /dav/a", "/dav/", 403),
            ("COPY /dav/none", "/dav/w", 404),
            ("COPY /dav/v", "/dav/none/w", 409),
            ("COPY /dav/v", "/elsewhere/w", 400),
            ("COPY /dav/v", "http://other/dav/w", 502),
            ("COPY /dav/v", "ftp://kvd/dav/w", 400),
            ("COPY /dav/v", "/dav/w?x", 400),
        ):
            assert (line, to, expected) == (line, to, self.transfer(line, to))
        assert 400 == self.transfer("MOVE /dav/a", "/dav/w", "Depth: 0\r\n")
        assert 400 == status(self.request("COPY /dav/v"))
        assert before == self.keys()

    def test_what_fails_within_a_collection_is_told(self) -> None:
        """
        With its path, and the rest is done.
        """
        self.put(b"dav/c/" + b"n" * 200 + b"/" + b"m" * 200, b"value")
        self.put(b"dav/c/o", b"value")
        target = "/".join(["t" * 250] * 3)
        for depth in range(1, 4):
            path = "/".join(["t" * 250] * depth)
            assert 201 == status(self.request(f"MKCOL /dav/{path}"))
        reply = self.request("MOVE /dav/c", f"Destination: /dav/{target}/c\r\n")

        assert 207 == status(reply)
        assert b"/dav/c/nnn" in body(reply)
        assert b" 414 " in body(reply)
        assert b"value" == self.value(f"dav/{target}/c/o".encode())


class MixedTests(WebDAVCase):
    """
    Clients of one dialect where another is spoken.
    """

    def test_plain_prefix_says_where_webdav_is(self) -> None:
        """
        In a sentence.
        """
        reply = self.request("PROPFIND /k", "Depth: 0\r\n")
        assert 405 == status(reply)
        assert "--dialect /dav/=webdav" in detail(reply)


class PartTests(DialectCase):
    """
    Uploads that can go on, where a dialect does not have them.
    """

    dialects = tuple(
        DialectChoice(f"/{name}/", name)
        for name in ("webdav", "nx", "turborepo", "terraform", "s3", "classic")
    )

    def test_beginning_of_an_upload_is_not_taken_for_a_value(self) -> None:
        """
        As the page of the browser sends it, which then sends all at once.
        """
        fields = "Upload-Complete: ?0\r\nUpload-Length: 9\r\n"
        for path, method in (
            ("/webdav/v", "PUT"),
            ("/nx/v1/cache/0123456789abcdef", "PUT"),
            ("/turborepo/v8/artifacts/0123", "PUT"),
            ("/terraform/state", "POST"),
            ("/s3/bucket/v", "PUT"),
            ("/classic/v", "PUT"),
        ):
            reply = self.request(f"{method} {path}", fields, b"")
            assert (path, 501) == (path, status(reply))
            assert [] == self.keys()
            whole = "Upload-Complete: ?1\r\n"
            assert status(self.request(f"{method} {path}", whole, b"value")) < 300
            self.store.values.clear()


class RightsTests(WebDAVCase):
    """
    Each method needs the rights for what it does.
    """

    def test_each_method_needs_its_rights(self) -> None:
        """
        And is refused if one is missing, before anything is done.
        """
        to = "Destination: /dav/w\r\n"
        depth = "Depth: 1\r\n"
        everything = ("read", "write", "delete", "list")
        for line, fields, needs in (
            ("PROPFIND /dav/c", depth, ("list", "read")),
            ("PROPFIND /dav/", depth, ("list",)),
            ("COPY /dav/v", to, ("read", "write", "list")),
            ("MOVE /dav/v", to, ("read", "write", "delete", "list")),
            ("MKCOL /dav/n", "", ("read", "write", "list")),
            ("DELETE /dav/c/", "", ("read", "delete", "list")),
        ):
            for missing in needs:
                self.store.values.clear()
                for key in (b"dav/v", b"dav/c/v"):
                    self.put(key, b"value")
                before = self.keys()
                self.allow(*(right for right in everything if right != missing))
                reply = self.request(line, fields)
                refused = status(reply), self.keys() == before
                assert (line, missing, (401, True)) == (line, missing, refused)
            self.allow(*needs)
            assert status(self.request(line, fields)) < 300

    def test_who_may_only_write_stores(self) -> None:
        """
        Even where the collection cannot be looked for.
        """
        self.allow("write")
        self.statuses(("PUT /dav/none/v", "", b"value", 201))
        assert b"value" == self.value(b"dav/none/v")

    def test_a_part_without_rights_is_left_and_told(self) -> None:
        """
        The rest of the collection is removed.
        """
        self.put(b"dav/c/v", b"value")
        self.put(b"dav/c/keep/v", b"value")
        text = (
            '[anonymous.rights]\n"/" = ["read", "delete", "list"]\n'
            '"/dav/c/keep/" = ["read", "list"]\n'
        )
        self.permit(text)
        reply = self.request("DELETE /dav/c/")
        assert 207 == status(reply)
        assert b"/dav/c/keep/v</D:href><D:status>HTTP/1.1 401" in body(reply)
        assert [b"dav/c/keep/v"] == self.keys()
