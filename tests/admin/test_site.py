"""
Tests for `kvd.admin.site`, over true sockets and a reactor that steps.
"""

from __future__ import annotations

import json
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from unittest import mock

import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.test.requesthelper import DummyChannel

from kvd.admin.ledger import NOTHING
from kvd.admin.site import Metrics, ReadingRequest, StatusSite, readiness
from kvd.control import answering
from kvd.listening import ListenerGroup, open_group
from kvd.settings import Address, TCPAddress, UNIXAddress
from tests.admin.worked import served
from tests.stepped import Client, SteppedReactor

STATUS: Mapping[str, Any] = {
    "draining": False,
    "workers": [{"state": "ready"}, {"state": "starting"}],
}


@dataclass(frozen=True)
class Reply:
    """
    What came back.
    """

    status: int
    fields: Mapping[str, str]
    body: bytes


class StatusSiteTests(SynchronousTestCase):
    """
    `StatusSite` answers, and only reads.
    """

    address: Address = TCPAddress("127.0.0.1", 0)

    def setUp(self) -> None:
        self.reactor = SteppedReactor()
        self.addCleanup(self.reactor.dispose)
        self.group: ListenerGroup = open_group(self.address, 1)
        self.family = self.group.members[0].family
        self.where = self.group.members[0].getsockname()
        self.addCleanup(self.group.close)
        self.addCleanup(self.reactor.settle)
        self.sums = [NOTHING, NOTHING]
        self.site = StatusSite(
            self.group,
            lambda: dict(STATUS),
            lambda: self.sums,
            lambda: 2,
            lambda: "shared",
            self.reactor,
        )
        self.closed = False
        self.addCleanup(self.close)
        self.addCleanup(self.reactor.settle)

    def close(self) -> None:
        """
        Close the site, once.
        """
        if not self.closed:
            self.closed = True
            self.site.close()

    def connect(self) -> Client:
        """
        A connection to the site.
        """
        sock = socket.socket(self.family, socket.SOCK_STREAM)
        self.addCleanup(sock.close)
        sock.connect(self.where)
        self.reactor.settle()
        return Client(self.reactor, sock)

    def ask(self, path: str, host: str = "localhost", method: str = "GET") -> Reply:
        """
        One request.
        """
        return self.send(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())

    def send(self, data: bytes) -> Reply:
        """
        Bytes over a connection of their own.
        """
        head, _, body = self.connect().send(data).receive().partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        fields = {
            name.lower(): value
            for name, _, value in (line.partition(": ") for line in lines)
        }
        return Reply(int(first.split()[1]), fields, body)

    def test_it_is_healthy_while_it_answers(self) -> None:
        """
        Whatever the workers are at.
        """
        reply = self.ask("/health")

        assert (200, b"ok\n") == (reply.status, reply.body)

    def test_one_ready_worker_is_enough(self) -> None:
        """
        It serves for the others.
        """
        reply = self.ask("/ready")

        assert (200, b"1 of 2 workers are ready.\n") == (reply.status, reply.body)

    def test_the_status_has_the_last_second(self) -> None:
        """
        As soon as there is one.
        """
        assert json.loads(self.ask("/status.json").body)["last_second"] is None

        self.sums = [served(7), served(3)]
        self.reactor.advance(1)
        told = json.loads(self.ask("/status.json").body)
        assert 10 == told["last_second"]["requests_per_second"]
        assert STATUS["workers"] == told["workers"]

    def test_the_past_is_told_at_once(self) -> None:
        """
        For a page that was opened just now.
        """
        for requests in (7, 10):
            self.sums = [served(requests), NOTHING]
            self.reactor.advance(1)
        told = json.loads(self.ask("/history.json").body)

        assert [7, 3] == [s["requests_per_second"] for s in told["samples"]]
        assert [[0, 0], [0, 0]] == [s["workers"] for s in told["samples"]]

    def test_the_page_is_whole_and_runs_nothing_else(self) -> None:
        """
        Its policy names what is in it, and lets it fetch from here alone.
        """
        reply = self.ask("/")
        policy = reply.fields["content-security-policy"]

        assert reply.body.startswith(b"<!DOCTYPE html>")
        assert b"<script></script>" not in reply.body
        assert b'src="' not in reply.body
        assert "script-src 'sha256-" in policy
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert self.ask("/", method="HEAD").body == b""

    def test_whatever_is_answered_stays_what_it_is(self) -> None:
        """
        No browser is to guess at it, keep it, or show it in a frame.
        """
        replies = [
            self.ask(path)
            for path in ("/", "/health", "/status.json", "/nothing", "/health/x")
        ]
        replies.append(self.ask("/", method="PUT"))
        for reply in replies:
            fields = reply.fields
            assert "nosniff" == fields["x-content-type-options"]
            assert "no-store" == fields["cache-control"]
            assert "frame-ancestors 'none'" in fields["content-security-policy"]
            assert fields["server"].startswith("kvd/")

    def test_another_name_is_not_answered(self) -> None:
        """
        It may be a page's that leads it here.
        """
        for path in ("/", "/status.json", "/metrics"):
            reply = self.ask(path, host="evil.example")
            assert 421 == reply.status
            assert b"workers" not in reply.body

    def test_nothing_else_is_there(self) -> None:
        """
        No folder, no file, no further name.
        """
        for path in ("/metrics/", "/x", "/../etc/passwd", "/page.js", "/a/b"):
            assert 404 == self.ask(path).status, path

    def test_it_is_only_read(self) -> None:
        """
        A body is read past, and kept nowhere.
        """
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE"):
            assert 405 == self.ask("/status.json", method=method).status
        request = ReadingRequest(DummyChannel())
        request.gotLength(200_000)
        request.handleContentChunk(b"x" * 200_000)
        assert request.content is not None
        with request.content as content:
            content.seek(0)
            assert b"" == content.read()

    def test_a_mistake_of_ours_tells_no_details(self) -> None:
        """
        They are in the log.
        """
        with mock.patch.object(StatusSite, "_sums", side_effect=ValueError("secret")):
            reply = self.ask("/metrics")

        assert 500 == reply.status
        assert b"secret" not in reply.body
        assert b"Traceback" not in reply.body
        assert 1 == len(self.flushLoggedErrors(ValueError))

    def test_metrics_are_gathered_when_they_are_asked_for(self) -> None:
        """
        What was done since the last second, too. Spelling them takes a thread.
        """
        self.sums = [served(7), served(3)]
        for method, expected in (("GET", b"spelled"), ("HEAD", b"")):
            spelled: Deferred[tuple[bytes, str]] = Deferred()
            with mock.patch.object(Metrics, "_spell", return_value=spelled) as spell:
                client = self.connect()
                head = f"{method} /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
                client.send(head.encode())
                (gathered, _), _ = spell.call_args
            assert 10 == gathered.accounts["shared"].connections
            spelled.callback((b"spelled", "text/odd"))
            reply, _, body = client.receive().partition(b"\r\n\r\n")
            assert b"text/odd" in reply
            assert b"Content-Length: 7" in reply
            assert expected == body

    def test_metrics_for_who_has_left_are_nobodys(self) -> None:
        """
        Whatever became of them.
        """
        for outcome in ((b"spelled", "text/odd"), Failure(ZeroDivisionError())):
            spelled: Deferred[tuple[bytes, str]] = Deferred()
            with mock.patch.object(Metrics, "_spell", return_value=spelled):
                client = self.connect()
                client.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
                client.close()
            spelled.callback(outcome)
            self.reactor.settle()

        assert 1 == len(self.flushLoggedErrors())

    def test_nothing_is_read_after_the_end(self) -> None:
        """
        And the socket is whose it was.
        """
        self.reactor.advance(1)
        before = len(self.site._history.samples)
        self.close()
        self.reactor.advance(5)

        assert 1 <= before == len(self.site._history.samples)
        assert -1 != self.group.members[0].fileno()

    def test_it_takes_no_more_connections_than_it_may(self) -> None:
        """
        The others are closed, until one of those ends.
        """
        self.patch(answering, "MAX_CONNECTIONS", 2)
        first, second = self.connect(), self.connect()
        third = self.connect()
        third.receive()
        assert third.ended or third.reset

        first.close()
        assert 200 == self.ask("/health").status
        second.close()

    def test_nobody_is_answered_after_the_end(self) -> None:
        """
        Nothing listens there.
        """
        self.close()
        self.group.close()
        self.reactor.settle()

        with pytest.raises(OSError, match=r"refused|No such file"):
            self.connect()


class UnixTests(StatusSiteTests):
    """
    The same on a Unix socket, whose file stays as it was made.
    """

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.address = UNIXAddress(f"{folder.name}/status", mode=0o640)
        super().setUp()

    def test_another_name_is_not_answered(self) -> None:
        """
        There, any name will do.
        """
        assert 200 == self.ask("/health", host="kvd").status


class ReadinessTests(SynchronousTestCase):
    """
    Whether connections should come.
    """

    def test_without_a_ready_worker_they_should_not(self) -> None:
        """
        They would have to wait.
        """
        workers = [{"state": "starting"}, {"state": "draining"}]

        assert (503, "0 of 2 workers are ready.\n") == readiness(
            {"draining": False, "workers": workers}
        )

    def test_while_draining_they_should_not(self) -> None:
        """
        However many workers are there still.
        """
        assert (503, "kvd is draining.\n") == readiness(
            {"draining": True, "workers": [{"state": "ready"}]}
        )
