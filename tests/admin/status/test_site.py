"""
Tests for `kvd.admin.status.site`, with real sockets and a stepped reactor.
"""

from __future__ import annotations

import json
import socket
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from unittest import mock

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.test.requesthelper import DummyChannel

from kvd.admin import answering
from kvd.admin.answering import MAX_BODY_BYTES
from kvd.admin.status.disk import FRESH_SECONDS
from kvd.admin.status.ledger import NOTHING
from kvd.admin.status.readiness import readiness
from kvd.admin.status.site import Metrics, ReadingRequest, StatusSite
from kvd.http.host_guard import HostGuard
from kvd.net.listening import ListenerGroup, open_group
from kvd.settings import Address, TCPAddress, UNIXAddress
from kvd.store.space import Space
from tests.admin.status.worked import served
from tests.stepped import Client, SteppedReactor, inline

STATUS: Mapping[str, Any] = {
    "draining": False,
    "workers": [{"state": "ready"}, {"state": "starting"}],
    "usage": [],
}


@dataclass(frozen=True)
class Reply:
    """
    A reply of the site.
    """

    status: int
    fields: Mapping[str, str]
    body: bytes


class StatusSiteTests(SynchronousTestCase):
    """
    `StatusSite` replies, and is read-only.
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
            HostGuard([self.group.address], ["status.example"]).knows,
            self.reactor,
            lambda: self.space,
            inline,
        )
        self.space = Space("", 4096, 8192, 10, 20)
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
        Connect to the site.
        """
        sock = socket.socket(self.family, socket.SOCK_STREAM)
        self.addCleanup(sock.close)
        sock.connect(self.where)
        self.reactor.settle()
        return Client(self.reactor, sock)

    def ask(self, path: str, host: str = "localhost", method: str = "GET") -> Reply:
        """
        Send a request and return the reply.
        """
        return self.send(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())

    def send(self, data: bytes) -> Reply:
        """
        Send bytes over a new connection.
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
        Whatever the workers do.
        """
        reply = self.ask("/health")

        assert (200, b"ok\n") == (reply.status, reply.body)

    def test_one_ready_worker_is_enough(self) -> None:
        """
        It serves the sockets of the others too.
        """
        reply = self.ask("/ready")

        assert (200, b"1 of 2 workers are ready.\n") == (reply.status, reply.body)

    def test_a_store_that_takes_no_value_is_not_ready(self) -> None:
        """
        The reply says why, a second later at the latest.
        """
        assert 200 == self.ask("/ready").status
        self.space = Space("The disk of the store is full: No space left on device.")
        self.reactor.advance(FRESH_SECONDS)
        reply = self.ask("/ready")

        assert 503 == reply.status
        assert f"{self.space.complaint}\n".encode() == reply.body
        content = json.loads(self.ask("/status.json").body)
        assert self.space.complaint == content["disk"]["complaint"]
        assert (False, self.space.complaint) == (content["ready"], content["readiness"])

    def test_the_status_has_the_disk(self) -> None:
        """
        As soon as somebody has asked.
        """
        disk = json.loads(self.ask("/status.json").body)["disk"]

        assert (4096, 8192) == (disk["free_bytes"], disk["bytes"])
        assert (10, 20) == (disk["free_inodes"], disk["inodes"])

    def test_the_status_has_the_events_of_the_daemon(self) -> None:
        """
        Not everything that is logged: clients can cause many other lines.
        """
        log = Logger(namespace="kvd.test")
        log.warn("worker {worker} is gone", worker=3, happened="restart")
        log.warn("a client is odd")
        (event,) = json.loads(self.ask("/status.json").body)["events"]

        assert abs(time.time() - event.pop("at")) < 3600
        assert {
            "kind": "restart",
            "level": "warn",
            "text": "worker 3 is gone",
        } == event
        self.close()
        log.warn("worker {worker} is gone", worker=4, happened="restart")
        assert 1 == len(self.site._events.kept)

    def test_the_status_has_the_last_second(self) -> None:
        """
        As soon as there is one.
        """
        assert json.loads(self.ask("/status.json").body)["last_second"] is None

        self.sums = [served(7), served(3)]
        self.reactor.advance(1)
        content = json.loads(self.ask("/status.json").body)
        assert 10 == content["last_second"]["requests_per_second"]
        assert STATUS["workers"] == content["workers"]

    def test_the_history_is_returned(self) -> None:
        """
        For a page that was just opened.
        """
        for requests in (7, 10):
            self.sums = [served(requests), NOTHING]
            self.reactor.advance(1)
        content = json.loads(self.ask("/history.json").body)

        assert [7, 3] == [s["requests_per_second"] for s in content["samples"]]
        assert [[0, 0], [0, 0]] == [s["workers"] for s in content["samples"]]

    def test_the_page_is_whole_and_runs_nothing_else(self) -> None:
        """
        Its policy names its own style and script, and permits fetching only from this
        site.
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

    def test_every_reply_has_the_protective_fields(self) -> None:
        """
        Browsers must not guess its type, keep it, or show it in a frame.
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
        A foreign page may have led the browser here.
        """
        for path in ("/", "/status.json", "/metrics"):
            reply = self.ask(path, host="evil.example")
            assert 421 == reply.status
            assert b"workers" not in reply.body

    def test_nothing_else_is_there(self) -> None:
        """
        No folder, no file, no other name.
        """
        for path in ("/metrics/", "/x", "/../etc/passwd", "/page.js", "/a/b"):
            assert 404 == self.ask(path).status, path

    def test_it_is_read_only(self) -> None:
        """
        A short body is skipped, and the connection stays open.
        """
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE"):
            assert 405 == self.ask("/status.json", method=method).status
        client = self.connect()
        for body in (b"x" * MAX_BODY_BYTES, b""):
            client.send(
                b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b"
                % (len(body), body)
            )
            assert client.receive().startswith(b"HTTP/1.1 405 ")
        request = ReadingRequest(DummyChannel())
        request.gotLength(1000)
        request.handleContentChunk(b"x" * 1000)
        assert request.content is not None
        with request.content as content:
            content.seek(0)
            assert b"" == content.read()

    def test_a_long_body_ends_the_connection(self) -> None:
        """
        The body is neither requested nor read.
        """
        length = b"Content-Length: %d\r\n" % (MAX_BODY_BYTES + 1)
        for fields in (
            length + b"\r\n",
            length + b"Expect: 100-continue\r\n\r\n",
            b"Content-Length: 900000000000000\r\n\r\nxyz",
        ):
            for host in (b"localhost", b"evil.example"):
                client = self.connect()
                client.send(b"POST / HTTP/1.1\r\nHost: " + host + b"\r\n" + fields)
                said = client.receive()
                assert client.ended or client.reset
                assert not said or said.startswith(b"HTTP/1.1 413 ")
                assert 1 >= said.count(b"HTTP/")

    def test_a_length_that_is_no_number_for_python_is_refused(self) -> None:
        """
        In any field line, once, and without a line in the log.
        """
        length = b"Content-Length: " + b"9" * 5_000 + b"\r\n"
        for fields in (length, length + b"A: b\r\nC: d\r\n", b"A: b\r\n" + length):
            client = self.connect()
            client.send(b"POST / HTTP/1.1\r\nHost: localhost\r\n" + fields + b"\r\n")
            said = client.receive()
            assert client.ended
            assert said.startswith(b"HTTP/1.1 400 ")
            assert 1 == said.count(b"HTTP/")
        assert [] == self.flushLoggedErrors()

    def test_chunks_without_end_end_the_connection(self) -> None:
        """
        However small they are, and whatever follows them.
        """
        for size in (1, 5_000):
            chunk = b"%x\r\n%b\r\n" % (size, b"x" * size)
            client = self.connect()
            client.send(
                b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked"
                b"\r\n\r\n"
            )
            at_once = max(1, 2_000 // size)
            sent = 0
            while sent <= MAX_BODY_BYTES:
                assert not client.ended
                client.send(chunk * at_once)
                sent += size * at_once
            said = client.receive()
            assert client.ended
            assert not said or said.startswith(b"HTTP/1.1 413 ")
        assert 200 == self.ask("/health").status

    def test_an_internal_error_shows_no_details(self) -> None:
        """
        They are in the log.
        """
        with mock.patch.object(StatusSite, "_sums", side_effect=ValueError("secret")):
            reply = self.ask("/metrics")

        assert 500 == reply.status
        assert b"secret" not in reply.body
        assert b"Traceback" not in reply.body
        assert 1 == len(self.flushLoggedErrors(ValueError))

    def test_metrics_are_collected_when_they_are_requested(self) -> None:
        """
        Including the work since the last sample. They are rendered in a thread.
        """
        self.sums = [served(7), served(3)]
        for method, expected in (("GET", b"rendered"), ("HEAD", b"")):
            rendered: Deferred[tuple[int, str, bytes]] = Deferred()
            with mock.patch.object(Metrics, "_render", return_value=rendered) as render:
                client = self.connect()
                head = f"{method} /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
                client.send(head.encode())
                (snapshot, space, _), _ = render.call_args
            assert 10 == snapshot.accounts["shared"].connections
            assert self.space == space
            rendered.callback((200, "text/odd", b"rendered"))
            reply, _, body = client.receive().partition(b"\r\n\r\n")
            assert b"text/odd" in reply
            assert b"Content-Length: 8" in reply
            assert expected == body

    def test_the_client_may_disconnect_before_its_metrics_are_ready(self) -> None:
        """
        Whether rendering succeeds or fails.
        """
        for outcome in ((200, "text/odd", b"rendered"), Failure(ZeroDivisionError())):
            rendered: Deferred[tuple[int, str, bytes]] = Deferred()
            with mock.patch.object(Metrics, "_render", return_value=rendered):
                client = self.connect()
                client.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
                client.close()
            rendered.callback(outcome)
            self.reactor.settle()

        assert 1 == len(self.flushLoggedErrors())

    def test_nothing_is_read_after_the_end(self) -> None:
        """
        And the caller still owns its socket.
        """
        self.reactor.advance(1)
        before = len(self.site._history.samples)
        self.close()
        self.reactor.advance(5)

        assert 1 <= before == len(self.site._history.samples)
        assert -1 != self.group.members[0].fileno()

    def test_a_new_connection_replaces_the_longest_idle_one(self) -> None:
        """
        The one that was answered or opened longest ago.
        """
        self.patch(answering, "MAX_CONNECTIONS", 3)
        answered, silent, begun = self.connect(), self.connect(), self.connect()
        get = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
        begun.send(b"GET /health HTTP/1.1\r\n")
        assert answered.send(get).receive().endswith(b"ok\n")

        for number, gone in enumerate((silent, begun)):
            assert self.connect().send(get).receive().endswith(b"ok\n"), number
            gone.receive()
            assert gone.ended or gone.reset
            assert answered.send(get).receive().endswith(b"ok\n")

    def test_idle_connections_block_no_client(self) -> None:
        """
        Even if there are as many as permitted, or more.
        """
        idle = [self.connect() for _ in range(answering.MAX_CONNECTIONS + 20)]
        for _ in range(3):
            assert 200 == self.ask("/health").status
        for client in idle:
            client.receive()
        closed = sum(client.ended or client.reset for client in idle)
        assert 20 <= closed <= 23

    def test_after_the_end_no_connection_is_accepted(self) -> None:
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
    The same on a Unix socket, whose file stays as it was created.
    """

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.address = UNIXAddress(f"{folder.name}/status", mode=0o640)
        super().setUp()

    def test_another_name_is_not_answered(self) -> None:
        """
        On a Unix socket, any host is accepted.
        """
        assert 200 == self.ask("/health", host="kvd").status


class ReadinessTests(SynchronousTestCase):
    """
    Whether a load balancer should send connections.
    """

    def test_without_a_ready_worker_they_should_not(self) -> None:
        """
        They would have to wait.
        """
        workers = [{"state": "starting"}, {"state": "draining"}]

        assert (503, "0 of 2 workers are ready.\n") == readiness(
            {"draining": False, "workers": workers}, Space("It is full.")
        )

    def test_while_all_are_stalled_they_should_not(self) -> None:
        """
        None of them answers.
        """
        status = {"draining": False, "workers": [{"state": "stalled"}] * 2}

        assert (503, "0 of 2 workers are ready.\n") == readiness(status, None)

    def test_while_the_limit_of_the_store_is_reached_they_should_not(self) -> None:
        """
        Unless it makes room.
        """
        usage: dict[str, Any] = {"taken": 8192, "limit": 9000, "evicts": False}
        status = {"draining": False, "workers": [{"state": "ready"}], "usage": [usage]}
        expected = (
            "The store is full: its values take 8192 of at most 9000 bytes, and each"
            " takes 4096 at least.\n"
        )

        assert (503, expected) == readiness(status, Space(""))
        for change in ({"evicts": True}, {"limit": None}, {"taken": 4096}):
            open_one = {**status, "usage": [{**usage, **change}]}
            assert 200 == readiness(open_one, Space(""))[0], change

    def test_while_draining_they_should_not(self) -> None:
        """
        However many workers are still ready.
        """
        assert (503, "kvd is draining.\n") == readiness(
            {"draining": True, "workers": [{"state": "ready"}]}, Space("It is full.")
        )
