"""
Tests for `kvd.http.dialects.nx`: the exchanges of Nx's API, as it documents them. The
program is in no registry that the tests can reach.
"""

from __future__ import annotations

from kvd.settings import DialectChoice
from tests.http.dialects.cases import DialectCase
from tests.http.test_connection import body, field, status

HASH = "14056034590233457089"
PUT = f"PUT /nx/v1/cache/{HASH}"


class NxTests(DialectCase):
    """
    Each row of its specification.
    """

    dialects = (DialectChoice("/nx/", "nx"),)

    def test_results_are_stored_once(self) -> None:
        """
        200, then 409, and the first one stays.
        """
        fields = "Content-Type: application/octet-stream\r\n"
        assert 200 == status(self.request(PUT, fields, b"result"))
        reply = self.request(PUT, fields, b"another")

        assert 409 == status(reply)
        assert b"text/plain; charset=utf-8" == field(reply, b"Content-Type")
        assert b"not replaced" in body(reply)
        reply = self.request(f"GET /nx/v1/cache/{HASH}")
        assert (200, b"result") == (status(reply), body(reply))
        assert [f"nx/v1/cache/{HASH}".encode()] == self.keys()

    def test_miss_is_404(self) -> None:
        """
        With a sentence that Nx prints.
        """
        reply = self.request(f"GET /nx/v1/cache/{HASH}")
        assert 404 == status(reply)
        assert b"no value" in body(reply)

    def test_other_requests_are_refused(self) -> None:
        """
        In words.
        """
        self.statuses(
            ("GET /nx/v1/cache/", "", None, 400),
            ("PUT /nx/v1/cache/a/b", "", b"x", 400),
            ("PUT /nx/v2/cache/a", "", b"x", 400),
            (f"DELETE /nx/v1/cache/{HASH}", "", None, 405),
            ("PROPFIND /nx/", "", None, 405),
        )
        assert b"where Nx is spoken" in self.request("DELETE /nx/v1/cache/a")
