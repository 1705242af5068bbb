"""
Limits of addresses and users, with the fast path and without.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from kvd.access.counting import CountingMemory, clear_row, create_counting
from kvd.access.rights_file import parse_rights
from kvd.access.rules import AccessRules
from kvd.access.tokens import token_digest
from kvd.http.authorization import Authorization
from kvd.settings import Limits
from tests.http.fast_path.both import LIMITS, Worker
from tests.http.fast_path.cases import get, put
from tests.http.test_authorization import bearer, status

CLOSE = b"Connection: close\r\n"


class LimitsCase(SynchronousTestCase):
    """
    Workers with limits.
    """

    def worker(
        self,
        limits: Limits = LIMITS,
        rules: AccessRules | None = None,
        fast_path: bool = True,
        reports: bool = False,
        secure: bool = False,
        counting: CountingMemory | None = None,
        number: int = 0,
    ) -> Worker:
        """
        One of them; those with the same memory are of the same daemon.
        """
        worker = Worker(
            fast_path=fast_path,
            durability="process",
            rules=rules,
            limits=limits,
            counting=counting,
            number=number,
            reports=reports,
            secure=secure,
        )
        self.addCleanup(worker.clean_up)
        return worker


class AddressTests(LimitsCase):
    """
    What one address may do.
    """

    def test_an_address_has_so_many_connections(self) -> None:
        """
        Further ones get 429 and are closed, whatever they have sent; when one ends,
        another may come.
        """
        limits = replace(LIMITS, address_connections=2)
        for fast_path in (True, False):
            for reports in (True, False):
                worker = self.worker(limits, None, fast_path, reports)
                worker.connect(b"")
                worker.connect(get("k"))
                for request in (b"", b"GET /k", get("k"), get("k", CLOSE)):
                    worker.connect(request)
                    assert 429 == status(worker._replies[-1])
                    assert b"Connection: close" in worker._replies[-1]
                    assert worker._clients[-1].ended
                worker._clients[0].close()
                worker._clients[0].ended = True
                worker.connect(get("k"))
                assert 404 == status(worker._replies[-1])
                entries = worker.end().entries
                refused = [line for line in entries if '"status": 429' in line]
                assert (4 if reports else 0) == len(refused)

    def test_connections_that_end_at_once_do_not_count(self) -> None:
        """
        Each is over before the next one comes.
        """
        worker = self.worker(replace(LIMITS, address_connections=1))
        for _ in range(5):
            worker.connect(get("k", CLOSE))
            assert 404 == status(worker._replies[-1])
        worker.end()

    def test_an_address_may_ask_so_often(self) -> None:
        """
        Also over one connection, and whatever it asks.
        """
        worker = self.worker(replace(LIMITS, address_rate=3))
        worker.connect(put("k", b"value"))
        for request in (get("k"), get("none"), get("k"), put("k", b"value"), get("")):
            worker.send(0, request)
        statuses = worker._replies[0].split(b"HTTP/1.1 ")[1:]
        assert [201, 200, 404, 429, 429, 429] == [int(each[:3]) for each in statuses]
        assert b"Retry-After: 1\r\n" in worker._replies[0]
        worker.wait(0.4)
        worker.send(0, get("k") * 2)
        statuses = worker._replies[0].split(b"HTTP/1.1 ")[-2:]
        assert [200, 429] == [int(each[:3]) for each in statuses]
        worker.end()


class DaemonTests(LimitsCase):
    """
    All workers of a daemon count together.
    """

    def setUp(self) -> None:
        self.memory = create_counting(2)
        self.addCleanup(os.close, self.memory)

    def of_daemon(
        self,
        number: int,
        limits: Limits = LIMITS,
        rules: AccessRules | None = None,
        secure: bool = False,
    ) -> Worker:
        """
        A worker of it.
        """
        return self.worker(
            limits,
            rules,
            secure=secure,
            # As another fork server has it, after a change of the settings.
            counting=CountingMemory(self.memory),
            number=number,
        )

    def test_a_connection_counts_before_its_client_has_a_reply(self) -> None:
        """
        So a client that has one finds no room at another worker. One that ends with its
        request counts no more.
        """
        limits = replace(LIMITS, address_connections=1)
        first, second = self.of_daemon(0, limits), self.of_daemon(1, limits)
        watched = first.watched
        assert watched is not None
        serve_new = watched.serve_new
        meanwhile = []

        def ask_another(sockets: Sequence[int]) -> int:
            second.connect(get("k"))
            meanwhile.append(status(second._replies[-1]))
            return serve_new(sockets)

        with mock.patch.object(watched, "serve_new", ask_another):
            first.connect(get("k", CLOSE))
            first.connect(get("k"))
        assert [429, 429] == meanwhile
        assert [404, 404] == [status(reply) for reply in first._replies]
        second.connect(get("k"))
        assert 429 == status(second._replies[-1])
        first._clients[1].close()
        first._clients[1].ended = True
        second.connect(get("k"))
        assert 404 == status(second._replies[-1])
        for worker in (first, second):
            worker.end()

    def test_an_address_has_so_many_connections_at_all_workers(self) -> None:
        """
        In plain and over TLS; what a killed worker had does not count.
        """
        limits = replace(LIMITS, address_connections=2)
        plain, secure = self.of_daemon(0, limits), self.of_daemon(1, limits, None, True)
        plain.connect(get("k"))
        secure.connect(get("k"))
        assert 404 == status(plain._replies[-1]) == status(secure._replies[-1])
        for _ in range(2):
            plain.connect(get("k"))
            assert 429 == status(plain._replies[-1])
            by_address = secure._server.process.by_address
            assert by_address is not None
            assert not by_address.has_room("unix")

        clear_row(self.memory, 1)
        another = self.of_daemon(1, limits)
        another.connect(get("k"))
        assert 404 == status(another._replies[-1])
        another.connect(get("k"))
        assert 429 == status(another._replies[-1])
        plain._clients[0].close()
        plain._clients[0].ended = True
        another.connect(get("k"))
        assert 404 == status(another._replies[-1])
        for worker in (plain, another, secure):
            worker.end()

    def test_a_user_has_so_many_requests_at_all_workers(self) -> None:
        """
        In a second, and at once.
        """
        rules = parse_rights(
            f"""
            [users.ci]
            requests-at-once = 2
            rights = {{ "/" = ["read", "write"] }}
            tokens = [{{sha256 = "{token_digest("kvd_ci").hex()}"}}]
            [users.bob]
            requests-per-second = 2
            rights = {{ "/" = ["read"] }}
            tokens = [{{sha256 = "{token_digest("kvd_bob").hex()}"}}]
            """,
            "file",
        )
        workers = [self.of_daemon(number, LIMITS, rules) for number in range(2)]
        upload = put("k", b"value", bearer("kvd_ci"))
        for worker in workers:
            worker.connect(upload[:-1])
        for worker in workers:
            worker.connect(get("k", bearer("kvd_ci")))
            assert 429 == status(worker._replies[-1])
        workers[0].send(1, upload[-1:])
        workers[1].connect(get("k", bearer("kvd_ci")))
        assert 404 == status(workers[1]._replies[-1])
        found = []
        for worker in [*workers, *workers]:
            worker.connect(get("k", bearer("kvd_bob")))
            found.append(status(worker._replies[-1]))
        assert [429, 429] == found[2:]
        assert 429 not in found[:2]
        for worker in workers:
            worker.end()


class UserTests(LimitsCase):
    """
    What one user may do.
    """

    def test_a_user_may_ask_so_often(self) -> None:
        """
        Others, and clients without credentials, may ask more often.
        """
        digests = [token_digest(f"kvd_{name}").hex() for name in ("ci", "bob")]
        rules = parse_rights(
            f"""
            [anonymous.rights]
            "/" = ["read"]
            [users.ci]
            requests-per-second = 2
            tokens = [{{sha256 = "{digests[0]}"}}]
            [users.bob]
            tokens = [{{sha256 = "{digests[1]}"}}]
            """,
            "file",
        )
        worker = self.worker(rules=rules)
        statuses = []
        for _ in range(4):
            for who in (bearer("kvd_ci"), bearer("kvd_bob"), b""):
                worker.connect(get("k", who))
                statuses.append(status(worker._replies[-1]))
        worker.end()

        assert [404, 404, 429, 429] == statuses[::3]
        assert [404] * 8 == [s for n, s in enumerate(statuses) if n % 3]

    def test_so_many_requests_of_a_user_are_served_at_once(self) -> None:
        """
        Whatever ends one makes room: its reply, a refusal, or a client that leaves.
        """
        rules = parse_rights(
            f"""
            [users.ci]
            requests-at-once = 2
            rights = {{ "/" = ["read", "write"] }}
            tokens = [{{sha256 = "{token_digest("kvd_ci").hex()}"}}]
            """,
            "file",
        )
        who = bearer("kvd_ci")
        upload = put("k", b"value", who)
        for fast_path in (True, False):
            worker = self.worker(rules=rules, fast_path=fast_path)
            for _ in range(3):
                for _ in range(2):
                    worker.connect(upload[:-1])
                    assert b"" == worker._replies[-1]
                for request in (get("k", who), upload):
                    worker.connect(request)
                    assert 429 == status(worker._replies[-1])
                worker._clients[-3].send(upload[-1:])
                worker._receive(len(worker._clients) - 3)
                assert status(worker._replies[-3]) in (201, 204)
                worker.connect(get("k", who))
                assert 200 == status(worker._replies[-1])
                worker._clients[-5].close()
                worker._clients[-5].ended = True
                for _ in range(3):
                    worker.connect(get("none", who))
                    assert 404 == status(worker._replies[-1])
            authorization = worker._server.process.authorization
            worker.end()
            assert isinstance(authorization, Authorization)
            assert {} == authorization._serving._open
