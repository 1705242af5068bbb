"""
Tests for `kvd.http.authorization`: uploads that several requests write.
"""

from __future__ import annotations

import re

from kvd.access.tokens import token_digest
from tests.http.fast_path.cases import field, get, put
from tests.http.methods.test_resumable import append
from tests.http.test_authorization import AuthorizationCase, bearer, status


def about(method: str, location: str, fields: bytes) -> bytes:
    """
    A request about an upload.
    """
    line = f"{method} {location} HTTP/1.1\r\nHost: kvd\r\n".encode()
    return line + fields + b"\r\n"


class UploadRightsTests(AuthorizationCase):
    """
    Two users may write below one prefix, and everybody may read there.
    """

    text = "\n".join(
        [
            '[anonymous.rights]\n"/" = ["read"]',
            '[prefixes."/app/once/"]\nwrite-once = true',
            *(
                f'[users.{user}]\nrights = {{ "/app/" = ["read", "write"] }}\n'
                f'tokens = [{{ sha256 = "{token_digest(f"kvd_{user}").hex()}" }}]'
                for user in ("ann", "bob")
            ),
        ]
    )

    def setUp(self) -> None:
        super().setUp()
        begin = b"Upload-Complete: ?0\r\n"
        reply = self.ask(put("app/k", b"abc", begin + bearer("kvd_ann")))
        assert 201 == status(reply)
        self.location = field(reply, "Location") or ""

    def further(self, fields: bytes) -> list[bytes]:
        """
        Requests that go on with the upload, ask about it, and cancel it.
        """
        patch = append(self.location, 3, b"def", complete=True)
        return [
            patch.replace(b"Host: kvd\r\n", b"Host: kvd\r\n" + fields),
            about("HEAD", self.location, fields),
            about("DELETE", self.location, fields),
        ]

    def test_it_is_for_who_may_write(self) -> None:
        """
        And for nobody else who has learned its name, other writers included.
        """
        begin = b"Upload-Complete: ?0\r\n"
        assert 401 == status(self.ask(put("app/k", b"abc", begin)))
        for fields, expected in ((b"", 401), (bearer("kvd_bob"), 404)):
            for request in self.further(fields):
                assert expected == status(self.ask(request)), request
        patch = self.further(bearer("kvd_ann"))[0]
        assert 201 == status(self.ask(patch))
        assert self.ask(get("app/k")).endswith(b"abcdef")

    def test_values_below_a_prefix_with_rules_come_whole(self) -> None:
        """
        So they are checked as they come; a client that can go on is told nothing of it.
        """
        fields = b"Upload-Complete: ?%d\r\n" + bearer("kvd_ann")
        assert 501 == status(self.ask(put("app/once/k", b"abc", fields % 0)))
        reply = self.ask(put("app/once/k", b"abc", fields % 1))
        assert [b"201"] == re.findall(rb"HTTP/1\.1 (\d+)", reply)
        assert 409 == status(self.ask(put("app/once/k", b"abd", fields % 1)))
        other = self.location.replace("/app/k", "/app/once/k")
        patch = append(other, 3, b"def", complete=True)
        patch = patch.replace(b"Host: kvd\r\n", b"Host: kvd\r\n" + bearer("kvd_ann"))
        assert 403 == status(self.ask(patch))
