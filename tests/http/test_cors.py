"""
Tests for `kvd.http.cors`: what browsers are told, with the fast path and without.
"""

from __future__ import annotations

import re
from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from kvd.settings import CorsChoice
from tests.http.fast_path.both import Worker
from tests.http.fast_path.cases import field, get, put

CORS = (
    CorsChoice("/public/", ("*",)),
    CorsChoice("/public/not/", ()),
    CorsChoice("/app/", ("https://app.example", "http://localhost:3000")),
)
APP = b"Origin: https://app.example\r\n"
EVIL = b"Origin: https://evil.example\r\n"


def preflight(key: str, origin: bytes, method: bytes = b"PUT") -> bytes:
    """
    What a browser asks before it sends a PUT.
    """
    return (
        f"OPTIONS /{key} HTTP/1.1\r\nHost: kvd\r\n".encode()
        + origin
        + b"Access-Control-Request-Method: %b\r\n\r\n" % method
    )


class CorsCase(SynchronousTestCase):
    """
    Two workers that allow some origins.
    """

    def setUp(self) -> None:
        self.workers = self.make_workers()
        for worker in self.workers:
            self.addCleanup(worker.clean_up)
        self.addCleanup(self.end)

    def end(self) -> None:
        """
        Both did the same.
        """
        outcomes = [worker.end() for worker in self.workers]
        assert all(outcome == outcomes[0] for outcome in outcomes)

    def make_workers(self) -> list[Worker]:
        """
        Those that do the same.
        """
        return [
            Worker(fast_path=fast_path, durability="process", cors=CORS)
            for fast_path in (True, False)
        ]

    def ask(self, request: bytes) -> bytes:
        """
        What both reply.
        """
        for worker in self.workers:
            worker.connect(request)
        return self.workers[0]._replies[-1]


class CorsTests(CorsCase):
    """
    What browsers are told.
    """

    def allowed(self, request: bytes) -> tuple[str | None, str | None]:
        """
        Who may see the reply, and what it depends on.
        """
        reply = self.ask(request)
        vary = re.findall(rb"\r\nVary: ([^\r]*)", reply)
        depends = b", ".join(vary).decode() if vary else None
        return field(reply, "Access-Control-Allow-Origin"), depends

    def test_browsers_get_no_permission_by_default(self) -> None:
        """
        Elsewhere, and below a longer prefix without origins, whoever asks.
        """
        for key, origin in product(["k", "public/not/k", "apps/k"], [b"", APP, EVIL]):
            for request in (get(key, origin), put(key, b"value", origin), get(key)):
                assert (None, None) == self.allowed(request)
            assert b"Access-Control" not in self.ask(preflight(key, origin))

        watched = self.workers[0].watched
        assert watched is None or watched.served

    def test_some_origins_may_use_a_prefix(self) -> None:
        """
        Also if a request is refused. A cache learns that others get other replies.
        """
        both = ("https://app.example", "Origin")
        for again in range(3):
            assert both == self.allowed(put("app/k", b"value", APP)), again
            assert both == self.allowed(get("app/k", APP))
            assert both == self.allowed(get("%61pp/k", APP))
            assert both == self.allowed(get("app/none", APP))
            assert both == self.allowed(get("app//none", APP))
            listing = ("https://app.example", "Accept, Origin")
            assert listing == self.allowed(get("app/", APP))
            assert (None, "Origin") == self.allowed(get("app/k", EVIL))
            assert (None, "Origin") == self.allowed(get("app/k"))
            assert (None, "Origin") == self.allowed(get("app/k", b"Origin: null\r\n"))
        shown = field(self.ask(get("app/k", APP)), "Access-Control-Expose-Headers")
        assert "ETag" in (shown or "")

    def test_all_origins_may_use_a_prefix(self) -> None:
        """
        All of them get the same reply.
        """
        for origin in (b"", APP, EVIL):
            assert ("*", None) == self.allowed(put("public/k", b"value", origin))
            assert ("*", None) == self.allowed(get("public/k", origin))

    def test_browsers_ask_first(self) -> None:
        """
        Whether they may send what a page wants to send, with which fields.
        """
        for key, origin in (("app/k", APP), ("public/k", EVIL)):
            reply = self.ask(preflight(key, origin))

            assert b"HTTP/1.1 204 " in reply
            assert "PUT" in (field(reply, "Access-Control-Allow-Methods") or "")
            fields = (field(reply, "Access-Control-Allow-Headers") or "").split(", ")
            assert {"Authorization", "If-None-Match", "Content-Type"} < set(fields)
            assert "7200" == field(reply, "Access-Control-Max-Age")
            assert b"Allow-Credentials" not in reply
        reply = self.ask(preflight("app/k", EVIL))
        assert not re.search(rb"(?i)access-control", reply)
        reply = self.ask(b"OPTIONS * HTTP/1.1\r\nHost: kvd\r\n" + APP + b"\r\n")
        assert not re.search(rb"(?i)access-control", reply)
