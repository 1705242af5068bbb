"""
The binary cache of vcpkg: the requests that it documents, with the setting in
``docs/clients/vcpkg.rst``. The program is in no registry that the tests can reach.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from tests.clients.running import exports_in
from tests.http.test_connection import ConnectionCase, body, field, status

AGENT = "User-Agent: vcpkg/2025-01-01 (curl)\r\nAccept: */*\r\n"
ARCHIVE = b"PK\x03\x04" + bytes(5000)
SHA = "6e5a4a1d7b1fbc7d5f0a3f4a9a3d1d0f8c2f6b8e9d7c5a3b1f0e2d4c6b8a0918"


class VcpkgTests(ConnectionCase):
    """
    One archive.
    """

    def setUp(self) -> None:
        super().setUp()
        sources = exports_in("vcpkg", "kvd")["VCPKG_BINARY_SOURCES"]
        _, _, source = sources.partition(";")
        kind, template, access = source.split(",")
        assert ("http", "readwrite") == (kind, access)
        names = {"name": "zlib", "version": "1.3.1", "sha": SHA}
        self.target = urlsplit(template.format(**names)).path

    def request(self, method: str, content: bytes | None = None) -> bytes:
        """
        What comes to a request.
        """
        length = "" if content is None else f"Content-Length: {len(content)}\r\n"
        head = f"{method} {self.target} HTTP/1.1\r\nHost: kvd\r\n{AGENT}{length}\r\n"
        return self.ask(head.encode() + (content or b""))

    def test_archive_is_looked_for_stored_and_fetched(self) -> None:
        """
        Whoever builds it first stores it; the next one does not build.
        """
        assert 404 == status(self.request("HEAD"))
        assert 404 == status(self.request("GET"))
        assert 201 == status(self.request("PUT", ARCHIVE))
        assert 204 == status(self.request("PUT", ARCHIVE))
        reply = self.request("HEAD")
        assert (200, str(len(ARCHIVE)).encode()) == (
            status(reply),
            field(reply, b"Content-Length"),
        )
        assert ARCHIVE == body(self.request("GET"))
        assert ARCHIVE == self.value(f"vcpkg/zlib/1.3.1/{SHA}".encode())
