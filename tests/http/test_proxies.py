"""
Clients behind proxies: what is logged of them, and what is counted for them.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from kvd.access.permit import Permit
from kvd.settings import Limits
from tests import tls
from tests.http.fast_path.both import LIMITS, Worker
from tests.http.fast_path.cases import get, put
from tests.http.test_authorization import status
from tests.net.test_proxy_header import EXTRA, PORTS, RIGHT, TCP4, WRONG, binary
from tests.stepped import Client

CLOSE: Final = b"Connection: close\r\n"
LINE: Final = b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 443\r\n"
BINARY: Final = binary(0x21, 0x11, TCP4 + PORTS + EXTRA)
LOCAL: Final = binary(0x20, 0x00, b"")


def header_of(host: str) -> bytes:
    """
    What a proxy says of a connection from a host.
    """
    return b"PROXY TCP4 %b 10.0.0.1 4711 443\r\n" % host.encode()


def forwarded(*hosts: str) -> bytes:
    """
    A field that names hosts.
    """
    return b"X-Forwarded-For: " + ", ".join(hosts).encode() + b"\r\n"


class ProxyCase(SynchronousTestCase):
    """
    Workers whose clients all come over Unix sockets.
    """

    def worker(
        self,
        *,
        trusted: tuple[str, ...] = ("unix",),
        behind_proxy: bool = True,
        fast_path: bool = True,
        limits: Limits = LIMITS,
        reports: bool = True,
        secure: bool = False,
    ) -> Worker:
        """
        One of them.
        """
        worker = Worker(
            fast_path=fast_path,
            durability="process",
            limits=limits,
            reports=reports,
            secure=secure,
            trusted=trusted,
            behind_proxy=behind_proxy,
        )
        self.addCleanup(worker.clean_up)
        return worker

    def captured(self) -> Sequence[LogEvent]:
        """
        What is logged from now on.
        """
        capture = capturedLogs()
        events = capture.__enter__()
        self.addCleanup(capture.__exit__, None, None, None)
        return events


class HeaderTests(ProxyCase):
    """
    An address whose connections begin with the header of a proxy.
    """

    def test_client_is_the_one_that_the_proxy_names(self) -> None:
        """
        Wherever the header is cut, for the first request and for those after it, on
        the fast path and without.
        """
        for fast_path in (True, False):
            worker = self.worker(fast_path=fast_path)
            for header in (LINE, BINARY):
                for cut in range(len(header) + 1):
                    worker.connect(header[:cut])
                    worker.send(0, header[cut:] + get("k"))
                    worker.send(0, get("k", CLOSE))
            assert all(2 == reply.count(b" 404 ") for reply in worker.replies())
            clients = {(e["client"], e["proxy"]) for e in worker.entries()}
            assert {("203.0.113.9:4711", "unix")} == clients
            outcome = worker.end()
            assert 2 * (len(LINE) + len(BINARY) + 2) == len(outcome.entries)

    def test_headers_of_all_kinds(self) -> None:
        """
        Where the proxy names nobody, it is the client.
        """
        worker = self.worker()
        for data, source in RIGHT:
            worker.connect(data + put("k", b"value", CLOSE))
            expected = "unix"
            if isinstance(source, tuple):
                host, port = source[:2]
                expected = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            assert expected == worker.entries()[-1]["client"], data
            assert b"HTTP/1.1 2" in worker._replies[-1]
        worker.end()

    def test_fast_path_serves_clients_of_proxies(self) -> None:
        """
        From the header on.
        """
        worker = self.worker(reports=False)
        assert worker.watched is not None
        for _ in range(3):
            worker.connect(LINE + get("k"))
        before = worker.watched.served
        for _ in range(3):
            worker.send(0, get("k"))
        assert before + 3 <= worker.watched.served
        worker.end()

    def test_a_connection_without_a_header_is_refused(self) -> None:
        """
        Or with a wrong one: in words that a client of HTTP can read.
        """
        events = self.captured()
        worker = self.worker()
        for data in WRONG:
            worker.connect(data)
            assert 400 == status(worker._replies[-1]), data
            assert b"PROXY protocol" in worker._replies[-1]
            worker.wait(60)
            assert worker._clients[-1].ended or worker._clients[-1].reset
        assert len(WRONG) == len(events)
        assert 400 == worker.entries()[-1]["status"]
        worker.end()

    def test_a_header_has_to_come_in_time(self) -> None:
        """
        All of it, however often a byte of it comes.
        """
        events = self.captured()
        worker = self.worker()
        worker.connect(b"")
        worker.connect(LINE[:20])
        for number in range(3):
            worker.wait(LIMITS.head_seconds / 4)
            worker.send(0, LINE[20 + number : 21 + number])
        worker.wait(LIMITS.head_seconds / 4)
        for number in (0, 1):
            worker._receive(number)
            assert b"was not complete after" in worker._replies[number]
            assert worker._clients[number].ended
        assert 2 == len(events)
        worker.end()

    def test_whoever_leaves_within_the_header_costs_nothing(self) -> None:
        """
        As a check of whether somebody listens. Nothing is logged.
        """
        events = self.captured()
        worker = self.worker()
        for begun in (b"", LINE[:-1], LINE, LOCAL):
            worker.connect(begun)
            worker.leave(0)
            worker.connect(begun)
            worker.half_close(0)
        outcome = worker.end()

        assert [] == outcome.entries
        assert [] == list(events)

    def test_others_need_no_header_and_theirs_is_ignored(self) -> None:
        """
        They are clients of their own; also where their request begins like a header.
        """
        events = self.captured()
        worker = self.worker(trusted=("10.0.0.0/8",))
        worker.connect(get("k", CLOSE))
        assert 404 == status(worker._replies[-1])
        assert [] == list(events)
        for header in (LINE, BINARY, LOCAL):
            worker.connect(header + get("k", CLOSE))
            assert 404 == status(worker._replies[-1])
        assert 3 == len(events)
        request = b"PROPFIND /k HTTP/1.1\r\nHost: kvd\r\n\r\n"
        for cut in range(len(request)):
            worker.connect(request[:cut])
            worker.send(0, request[cut:])
            assert 405 == status(worker._replies[-1])
        assert {("unix", None)} == {(e["client"], e["proxy"]) for e in worker.entries()}
        worker.end()

    def test_tls_begins_behind_the_header(self) -> None:
        """
        The proxy passes on what the client encrypts.
        """
        worker = self.worker(secure=True)
        for header in (LINE, BINARY, LOCAL):
            near, far = socket.socketpair()
            far.sendall(header)
            worker.adopt(near)
            far.setblocking(False)
            client = tls.client_context().wrap_socket(
                far, do_handshake_on_connect=False, server_hostname="localhost"
            )
            tls.shake_hands(worker._reactor, client)
            peer = Client(worker._reactor, client)
            peer.send(get("k", CLOSE))
            assert 404 == status(peer.receive())
            client.close()
        clients = [entry["client"] for entry in worker.entries()]
        assert ["203.0.113.9:4711", "203.0.113.9:4711", "unix"] == clients
        worker.end()

    def test_connections_are_counted_for_the_client(self) -> None:
        """
        Not for the proxy, which has many.
        """
        limits = replace(LIMITS, address_connections=2)
        for fast_path in (True, False):
            worker = self.worker(limits=limits, fast_path=fast_path)
            for host in ("203.0.113.1", "203.0.113.2", "203.0.113.3"):
                for _ in range(2):
                    worker.connect(header_of(host) + get("k"))
                    assert 404 == status(worker._replies[-1])
            worker.connect(header_of("203.0.113.3") + get("k"))
            assert 429 == status(worker._replies[-1])
            assert worker._clients[-1].ended
            for _ in range(5):
                worker.connect(LOCAL + get("k"))
                assert 404 == status(worker._replies[-1])
            worker._clients[5].close()
            worker._clients[5].ended = True
            worker.connect(header_of("203.0.113.3") + get("k"))
            assert 404 == status(worker._replies[-1])
            worker.end()

    def test_any_bytes_end_in_a_reply_or_a_close(self) -> None:
        """
        And nothing fails.
        """
        seed = random.randrange(2**32)
        print("seed", seed)
        source = random.Random(seed)
        events = self.captured()
        worker = self.worker()
        for _ in range(150):
            data = bytearray(source.choice(RIGHT)[0][:300] + get("k"))
            for _ in range(source.randrange(3)):
                data[source.randrange(len(data))] = source.randrange(256)
            cut = source.randrange(len(data))
            worker.connect(bytes(data[:cut]))
            worker.send(0, bytes(data[cut:]))
        worker.wait(1000)
        worker.end()
        assert not [event for event in events if "log_failure" in event]


class FieldTests(ProxyCase):
    """
    Requests whose clients a proxy names in a field.
    """

    def test_each_request_has_its_own_client(self) -> None:
        """
        A proxy sends those of many clients over one connection.
        """
        worker = self.worker(behind_proxy=False)
        worker.connect(get("k", forwarded("203.0.113.1")))
        worker.send(0, get("k", forwarded("203.0.113.2, 203.0.113.3")))
        worker.send(0, get("k"))
        worker.send(0, get("k", forwarded("2001:db8::9")))
        expected = ["203.0.113.1", "203.0.113.3", "unix", "[2001:db8::9]"]
        assert expected == [entry["client"] for entry in worker.entries()]
        proxies = [entry["proxy"] for entry in worker.entries()]
        assert ["unix", "unix", None, "unix"] == proxies
        worker.end()

    def test_a_field_counts_behind_the_header_too(self) -> None:
        """
        If the header names a trusted proxy, as where one stands before another.
        """
        worker = self.worker(trusted=("unix", "10.0.0.0/8"))
        worker.connect(header_of("10.0.0.7") + get("k", forwarded("203.0.113.1")))
        worker.connect(header_of("203.0.113.2") + get("k", forwarded("203.0.113.1")))
        clients = [entry["client"] for entry in worker.entries()]
        assert ["203.0.113.1", "203.0.113.2:4711"] == clients
        worker.end()

    def test_rates_are_counted_for_the_client(self) -> None:
        """
        Of each request.
        """
        limits = replace(LIMITS, address_rate=2)
        worker = self.worker(behind_proxy=False, limits=limits)
        worker.connect(get("k", forwarded("203.0.113.1")))
        for host, expected in [(1, 404), (1, 429), (2, 404), (2, 404), (2, 429)]:
            before = len(worker._replies[0])
            worker.send(0, get("k", forwarded(f"203.0.113.{host}")))
            assert expected == status(worker._replies[0][before:])
        worker.end()

    def test_requests_in_service_are_counted_for_the_client(self) -> None:
        """
        In place of connections, of which the proxy has as many as it likes.
        """
        limits = replace(LIMITS, address_connections=2)
        begun = b"PUT /k HTTP/1.1\r\nHost: kvd\r\nContent-Length: 5\r\n%b\r\nab"
        for fast_path in (True, False):
            worker = self.worker(behind_proxy=False, limits=limits, fast_path=fast_path)
            for host in ("203.0.113.1", "203.0.113.2"):
                for _ in range(2):
                    worker.connect(begun % forwarded(host))
                worker.connect(get("k", forwarded(host)))
                assert 429 == status(worker._replies[-1])
                assert not worker._clients[-1].ended
            worker.connect(get("k", forwarded("203.0.113.3")))
            assert 404 == status(worker._replies[-1])
            worker._clients[0].send(b"cde")
            worker._clients[1].close()
            worker._clients[1].ended = True
            for _ in range(3):
                worker.connect(get("k", forwarded("203.0.113.1")))
                assert 200 == status(worker._replies[-1])
            for number in (3, 4):
                worker._clients[number].close()
                worker._clients[number].ended = True
            worker.end()

    def test_rights_are_asked_for_the_client(self) -> None:
        """
        Wrong passwords of one do not slow down others behind the same proxy.
        """
        asked: list[Any] = []

        class Authorization:
            """
            Notes for whom it is asked.
            """

            def authorize(
                self,
                request: object,
                operation: Any,
                peer: Any,
                certified: object,
                *,
                may_be_signed: bool,
            ) -> Permit | Deferred[Permit]:
                """
                Permit everything.
                """
                asked.append(peer)
                return Permit(operation, also=lambda other: other)

            def user_of(self, request: object, certified: object) -> None:
                """
                Nobody.
                """

        worker = self.worker(behind_proxy=False, fast_path=False)
        worker._server.process.authorization = Authorization()  # type: ignore[assignment]  # a double
        worker.connect(get("k", forwarded("203.0.113.1")))
        worker.send(0, get("k"))
        assert [("203.0.113.1", None), ""] == asked
        worker.end()

    def test_fast_path_serves_those_that_are_no_proxies(self) -> None:
        """
        A field of theirs says nothing.
        """
        worker = self.worker(behind_proxy=False, trusted=("10.0.0.0/8",))
        assert worker.watched is not None
        for _ in range(3):
            worker.connect(get("k", forwarded("203.0.113.1")))
            worker.send(0, get("k", CLOSE))
        assert worker.watched.served
        assert {"unix"} == {entry["client"] for entry in worker.entries()}
        worker.end()

    def test_a_field_of_others_is_ignored_and_said_once(self) -> None:
        """
        Where Python sees it.
        """
        events = self.captured()
        worker = self.worker(
            behind_proxy=False, trusted=("10.0.0.0/8",), fast_path=False
        )
        for _ in range(3):
            worker.connect(get("k", forwarded("203.0.113.1")))
        assert {"unix"} == {entry["client"] for entry in worker.entries()}
        texts = [formatEvent(event) for event in events]
        assert 1 == len(texts)
        assert "not among --trusted-proxies" in texts[0]
        worker.end()
