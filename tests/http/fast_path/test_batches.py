"""
Tests for `FastPath.take_batches`: connections that are handed over to a worker.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from unittest import mock

import pytest

from kvd.ipc.messages import Batch, Drain, Message, send, understand
from kvd.ipc.row import BATCH_WORD
from kvd.settings import Settings
from kvd.workers.http_server import HttpServer
from tests.http.fast_path.cases import body_of, get
from tests.http.fast_path.test_idle import IdleCase
from tests.stepped import Client

CLOSE = b"Connection: close\r\n"


class BatchesCase(IdleCase):
    """
    A worker's end of a control socket, and the supervisor's.
    """

    def setUp(self) -> None:
        super().setUp()
        self.keep("k", b"value")
        self.server = HttpServer(Settings(), 0, self.reactor)
        self.server.process = self.process
        self.near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(self.near.close)
        self.addCleanup(self.far.close)
        flags = os.EFD_SEMAPHORE | os.EFD_NONBLOCK
        self.credits = os.eventfd(0, flags)
        self.addCleanup(os.close, self.credits)
        self.adopted: list[int] = []
        self.came: list[tuple[Message, list[int]]] = []
        self.server.take_batches(
            self.near.fileno(), self.credits, self.adopt, self.understand
        )

    def adopt(self, descriptor: int, group: int) -> None:
        """
        As a worker's `Adopting` does.
        """
        self.adopted.append(descriptor)
        family, factory = socket.AF_UNIX, self.server.factory
        self.reactor.take_connection(descriptor, family, factory)

    def understand(self, data: bytes, descriptors: list[int], flags: int) -> None:
        """
        As its channel does.
        """
        came = understand(data, descriptors, flags)
        assert came is not None
        self.came.append(came)
        for descriptor in came[1]:
            os.close(descriptor)

    def hand_over(
        self,
        *requests: bytes,
        number: int = 7,
        asks: bool = False,
        credits: int = 1,
        more: int = 0,
    ) -> list[Client]:
        """
        Clients that have sent something already are handed over in one batch.
        """
        clients, theirs = [], []
        for request in requests:
            accepted, far = socket.socketpair()
            self.addCleanup(far.close)
            self.addCleanup(accepted.close)
            accepted.setblocking(False)
            far.sendall(request)
            clients.append(Client(self.reactor, far))
            theirs.append(accepted)
        if credits:
            os.eventfd_write(self.credits, credits)
        batch = Batch(number, len(requests) + more, 0, asks)
        send(self.far, batch, [accepted.fileno() for accepted in theirs])
        return clients

    def serve_channel(self) -> bool:
        """
        What the reactor does if the control socket can be read.
        """
        return self.watched.serve_idle(self.near.fileno())

    def done(self) -> int:
        """
        The batch that the row says is done.
        """
        return int(self.process.row.words[BATCH_WORD])

    def bodies(self, clients: Sequence[Client]) -> list[bytes]:
        """
        What the clients got.
        """
        return [body_of(client.receive()) for client in clients]


class BatchesTests(BatchesCase):
    """
    A worker's fast path takes them.
    """

    def test_a_batch_is_served_in_one_call(self) -> None:
        """
        Each connection that ends with its request is closed, and counts.
        """
        accepted, open_now = self.process.row.words[:2]
        clients = self.hand_over(get("k", CLOSE), get("k", CLOSE))
        assert self.serve_channel()
        self.reactor.settle()

        assert [b"value", b"value"] == self.bodies(clients)
        # Though the supervisor still has a descriptor of each.
        assert [True, True] == [client.ended for client in clients]
        assert 7 == self.done()
        assert [accepted + 2, open_now] == list(self.process.row.words[:2])
        assert ([], []) == (self.adopted, self.came)
        with pytest.raises(BlockingIOError):
            os.eventfd_read(self.credits)

    def test_one_that_stays_is_adopted(self) -> None:
        """
        And so is one that has said nothing yet; the others are not held up.
        """
        clients = self.hand_over(get("k"), b"", get("k", CLOSE))
        assert self.serve_channel()
        self.reactor.settle()

        assert 2 == len(self.adopted)
        assert [b"value", b"", b"value"] == self.bodies(clients)
        assert b"value" == body_of(clients[1].send(get("k")).receive())
        assert b"value" == body_of(clients[0].send(get("k")).receive())
        assert 7 == self.done()

    def test_a_mistake_with_one_harms_no_other(self) -> None:
        """
        It is a bug of ours.
        """
        with mock.patch("sys.unraisablehook") as hook:
            self.adopt_with_a_mistake()
        assert 1 == hook.call_count

    def adopt_with_a_mistake(self) -> None:
        """
        The first connection cannot be adopted.
        """

        def fail(descriptor: int, group: int) -> None:
            os.close(descriptor)
            raise ZeroDivisionError

        self.server.take_batches(
            self.near.fileno(), self.credits, fail, self.understand
        )
        clients = self.hand_over(b"", get("k", CLOSE))
        assert self.serve_channel()
        self.reactor.settle()
        assert b"value" == body_of(clients[1].receive())
        assert 7 == self.done()

    def test_several_wait(self) -> None:
        """
        Each is served, the last ones perhaps in the next event.
        """
        clients = [
            *self.hand_over(get("k", CLOSE), get("k", CLOSE), number=7),
            *self.hand_over(get("k", CLOSE), get("k", CLOSE), number=8),
            *self.hand_over(get("k", CLOSE), number=9),
        ]
        assert self.serve_channel()
        self.reactor.settle()
        assert 5 * [b"value"] == self.bodies(clients)
        assert 9 == self.done()
        # None waits now.
        assert self.serve_channel()

    def test_the_end_is_pythons(self) -> None:
        """
        It meets it again.
        """
        self.far.close()
        assert not self.serve_channel()
        assert b"" == self.near.recv(10)

    def test_others_are_not_read(self) -> None:
        """
        Such as the control socket once the worker drains.
        """
        self.hand_over(get("k", CLOSE))
        assert not self.watched.serve_idle(self.far.fileno())
        self.server.drain(10)
        assert not self.serve_channel()
        assert 0 == self.done()


class UnusualTests(BatchesCase):
    """
    Python gets whatever is not a whole batch with a credit, with what came with it.
    """

    def test_another_message(self) -> None:
        """
        As it is.
        """
        send(self.far, Drain(2.5))
        assert self.serve_channel()
        assert [(Drain(2.5), [])] == self.came

    def test_a_batch_without_a_credit(self) -> None:
        """
        It was revoked.
        """
        self.hand_over(get("k", CLOSE), credits=0)
        assert self.serve_channel()
        ((message, descriptors),) = self.came
        assert Batch(7, 1, 0, False) == message
        assert 1 == len(descriptors)
        assert 0 == self.done()

    def test_a_batch_that_is_to_be_acknowledged(self) -> None:
        """
        It has its credit still.
        """
        self.hand_over(get("k", CLOSE), asks=True)
        assert self.serve_channel()
        ((message, _),) = self.came
        assert Batch(7, 1, 0, True) == message
        assert 1 == os.eventfd_read(self.credits)

    def test_a_batch_that_lacks_descriptors(self) -> None:
        """
        This process has no room for them.
        """
        self.hand_over(get("k", CLOSE), more=1)
        assert self.serve_channel()
        ((message, descriptors),) = self.came
        assert Batch(7, 2, 0, False) == message
        assert 1 == len(descriptors)
        assert 1 == os.eventfd_read(self.credits)

    def test_what_is_no_message(self) -> None:
        """
        The channel copes with it.
        """
        came = mock.Mock()
        self.server.take_batches(self.near.fileno(), self.credits, self.adopt, came)
        self.far.send(b"\x01" + bytes(20))
        self.far.send(b"?")
        assert self.serve_channel()
        assert self.serve_channel()
        assert [
            mock.call(b"\x01" + bytes(20), [], mock.ANY),
            mock.call(b"?", [], mock.ANY),
        ] == came.call_args_list

    def test_what_python_fails_with_is_raised(self) -> None:
        """
        The reactor logs it.
        """
        came = mock.Mock(side_effect=ZeroDivisionError)
        self.server.take_batches(self.near.fileno(), self.credits, self.adopt, came)
        self.far.send(b"?")
        with pytest.raises(ZeroDivisionError):
            self.serve_channel()

    def test_those_that_speak_tls_stay(self) -> None:
        """
        Their bytes are no requests.
        """
        self.watched.take_batches(
            self.near.fileno(),
            self.credits,
            BATCH_WORD,
            b"\0",
            self.adopt,
            self.understand,
        )
        self.hand_over(get("k", CLOSE))
        assert self.serve_channel()

        assert 1 == len(self.adopted)

    def test_a_row_must_have_the_word(self) -> None:
        """
        A mistake here must not write into somebody else's memory.
        """
        for word in (-1, 10**6):
            with pytest.raises(ValueError, match="no such word"):
                self.watched.take_batches(
                    self.near.fileno(),
                    self.credits,
                    word,
                    b"\1",
                    self.adopt,
                    self.understand,
                )
