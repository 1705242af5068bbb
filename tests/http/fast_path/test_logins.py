"""
Tests for ``kvd/native/logins.c``: from where the fast path serves requests with a
password.
"""

from __future__ import annotations

import socket
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from kvd.access.rights_file import parse_rights
from kvd.access.throttle import FIRST_DELAY_SECONDS, FREE_FAILURES
from kvd.http.authorization import Authorization
from kvd.http.fast_path import native
from tests.http.fast_path.both import Worker
from tests.http.fast_path.cases import get
from tests.http.test_authorization import PASSWORD_HASH, basic, status
from tests.stepped import Client

RIGHTS = f"""
[users.ci]
password = "{PASSWORD_HASH}"
rights = {{ "/" = ["read"] }}
"""

ASKED = get("k", basic("ci", "secret"))

OFFICE, GUESSER, OTHER = "127.0.0.2", "127.0.0.3", "127.0.0.4"


class LoginTests(SynchronousTestCase):
    """
    A password that is known, and whose head has a template.
    """

    def worker(self, **options: Any) -> Worker:
        """
        A new one.
        """
        rules = parse_rights(RIGHTS, "file")
        worker = Worker(
            fast_path=True, durability="process", rules=rules, reports=False, **options
        )
        self.addCleanup(worker.clean_up)
        return worker

    def connect(self, worker: Worker, source: str, said: bytes) -> Client:
        """
        A client at an address.

        Args:
            said: What it has said when it is accepted.
        """
        with socket.create_server(("127.0.0.1", 0)) as listener:
            far = socket.create_connection(
                listener.getsockname(), source_address=(source, 0)
            )
            near, _ = listener.accept()
        self.addCleanup(far.close)
        far.sendall(said)
        worker.adopt(near)
        return Client(worker._reactor, far)

    def reply(self, client: Client) -> int:
        """
        The status of the next one.
        """
        # Each has a body or a length of 0; none has an empty line in it.
        return status(client.receive_until(lambda data: b"\r\n\r\n" in data))

    def served(self, worker: Worker) -> int:
        """
        How many requests the fast path has served.
        """
        return 0 if worker.watched is None else worker.watched.served

    def guess(self, client: Client) -> None:
        """
        As often as that is not slowed down.
        """
        for number in range(FREE_FAILURES):
            client.send(get("k", basic("ci", f"guess {number}")))
            assert 401 == self.reply(client)

    def check(self, worker: Worker, source: str, other: str, header: str) -> None:
        """
        A known password waits at an address that is slowed down, on connections old and
        new, until it was right there once; at other addresses it does not.
        """
        one = int(native is not None)

        def connect(address: str) -> Client:
            return self.connect(worker, address, header.format(address).encode())

        office = connect(OFFICE)
        for _ in range(3):
            office.send(ASKED)
            assert 404 == self.reply(office)
        begun = self.served(worker)
        assert 2 * one == begun

        guessing = connect(GUESSER)
        self.guess(guessing)
        for client in (guessing, connect(GUESSER)):
            client.send(ASKED)
            assert b"" == client.receive()
        assert begun == self.served(worker)

        for client in (connect(OTHER), office, connect(OFFICE)):
            client.send(ASKED)
            assert 404 == self.reply(client)
        assert begun + 3 * one == self.served(worker)

        worker.wait(FIRST_DELAY_SECONDS)
        assert 404 == self.reply(guessing)
        for client in (guessing, connect(GUESSER)):
            client.send(ASKED)
            assert 404 == self.reply(client)
        assert begun + 5 * one == self.served(worker)

    def test_a_known_password_waits_where_passwords_are_guessed(self) -> None:
        """
        It is left to Python there, which has it wait.
        """
        self.check(self.worker(), GUESSER, OTHER, "")

    def test_so_it_does_behind_a_proxy(self) -> None:
        """
        The address is what the proxy says, not that of the proxy.
        """
        worker = self.worker(trusted=("127.0.0.0/8",), behind_proxy=True)
        self.check(
            worker, GUESSER, OTHER, "PROXY TCP4 192.0.2.{0[8]} 192.0.2.9 1 80\r\n"
        )

    def test_each_address_is_asked_about(self) -> None:
        """
        Also where there are so many that what is known of some is forgotten.
        """
        worker = self.worker()
        for _ in range(2):
            assert 404 == self.reply(self.connect(worker, OFFICE, ASKED))
        served = self.served(worker)

        def is_even(authorization: Authorization, peer: tuple[str, int]) -> bool:
            return int(peer[0].rpartition(".")[2]) % 2 == 0

        with mock.patch.object(Authorization, "logs_in_at_once", is_even):
            for number in [*range(400)] * 2:
                address = f"127.0.{1 + number // 100}.{1 + number % 100}"
                with self.connect(worker, address, ASKED).socket as client:
                    assert 404 == self.reply(Client(worker._reactor, client))
        assert served + (400 if native else 0) == self.served(worker)

    def test_the_first_request_of_a_connection(self) -> None:
        """
        It comes with the connection.
        """
        worker = self.worker()
        for _ in range(2):
            assert 404 == self.reply(self.connect(worker, OFFICE, ASKED))
        served = self.served(worker)
        self.guess(self.connect(worker, GUESSER, b""))
        waiting = self.connect(worker, GUESSER, ASKED)
        assert b"" == waiting.receive()
        assert served == self.served(worker)
        assert 404 == self.reply(self.connect(worker, OTHER, ASKED))
        worker.wait(FIRST_DELAY_SECONDS)
        assert 404 == self.reply(waiting)
