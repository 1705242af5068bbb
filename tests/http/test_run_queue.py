"""
Tests for `kvd.http.run_queue`, and that connections keep to it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from twisted.trial.unittest import SynchronousTestCase

from kvd.http.run_queue import QUEUE_SECONDS, SLICE_SECONDS, TURN_SECONDS, RunQueue
from kvd.interfaces import Answer, IUpload, IValue
from kvd.ipc.row import WORDS_OF_REQUESTS, lone_row
from kvd.model.conditions import UNCONDITIONAL, Conditions
from kvd.model.keys import Key
from kvd.model.values import NO_METADATA, Metadata
from kvd.store.memory import MemoryStore, MemoryUpload
from kvd.workers.http_server import FRESH_SECONDS
from tests.http.test_connection import HOST, ConnectionCase, status


class Turns:
    """
    A reactor that has turns, and nothing else.
    """

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def call_later(self, delay: float, call: Callable[[], None]) -> None:
        """
        See `IReactorTime.callLater`.
        """
        assert delay == 0
        self.calls.append(call)

    def turn(self) -> None:
        """
        Call what was there before it.
        """
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class RunQueueTests(SynchronousTestCase):
    """
    `RunQueue` gives time to each in its turn.
    """

    def setUp(self) -> None:
        self.now = 50.0
        self.reactor = Turns()
        self.row = lone_row()
        self.queue = RunQueue(self.reactor.call_later, self.row, lambda: self.now)
        self.ran: list[str] = []

    def work(self, name: str, seconds: float, slices: int = 1) -> Callable[[], None]:
        """
        Something that takes a while, so many times.
        """
        left = itertools.count(slices - 1, -1)

        def run() -> None:
            self.ran.append(name)
            self.now += seconds
            if next(left) > 0:
                self.queue.add(run)

        return run

    def turn(self) -> list[str]:
        """
        What runs in one turn of the reactor.
        """
        self.ran = []
        self.reactor.turn()
        return self.ran

    def test_nothing_runs_at_once(self) -> None:
        """
        But in the next turn, and no more after.
        """
        self.queue.add(self.work("a", 0.0))

        assert [] == self.ran
        assert ["a"] == self.turn()
        assert [] == self.turn()
        assert [] == self.reactor.calls

    def test_a_task_that_is_not_done_goes_to_the_end(self) -> None:
        """
        And runs once in a turn.
        """
        self.queue.add(self.work("a", 0.0, slices=3))
        self.queue.add(self.work("b", 0.0, slices=2))

        assert ["a", "b"] == self.turn()
        assert ["a", "b"] == self.turn()
        assert ["a"] == self.turn()

    def test_addresses_take_turns(self) -> None:
        """
        Whoever has how many connections, and whichever of them leave.
        """
        many = [self.work(f"a{number}", QUEUE_SECONDS * 0.3) for number in range(9)]
        for run in many:
            self.queue.add(run, "a")
        self.queue.add(self.work("b", QUEUE_SECONDS * 0.3, slices=3), "b")
        self.queue.add(self.work("c", 0.0), "c")
        self.queue.discard(many[1])

        assert ["a0", "b", "c", "a2", "a3"] == self.turn()
        # Now it waits with others that have no address.
        assert ["a4", "", "a5", "a6"] == [n.strip("b") for n in self.turn()]

    def test_a_turn_ends_with_its_time(self) -> None:
        """
        Whoever had none of it is first in the next one.
        """
        for name in "abcde":
            self.queue.add(self.work(name, QUEUE_SECONDS * 0.6, slices=2))

        assert ["a", "b"] == self.turn()
        assert ["c", "d"] == self.turn()
        assert ["e", "a"] == self.turn()

    def test_a_task_that_leaves_is_not_run(self) -> None:
        """
        Also if it leaves while another runs.
        """
        first, second = self.work("a", 0.0), self.work("b", 0.0)
        self.queue.add(lambda: self.queue.discard(second))
        self.queue.add(first)
        self.queue.add(second)
        self.queue.discard(first)
        self.queue.discard(first)

        assert [] == self.turn()
        assert [] == self.reactor.calls

    def test_a_mistake_of_one_does_not_stop_the_others(self) -> None:
        """
        Their turn comes.
        """
        self.queue.add(lambda: self.fail("a mistake"))
        self.queue.add(self.work("b", 0.0))
        with pytest.raises(self.failureException):
            self.turn()

        assert ["b"] == self.turn()

    def test_a_slice_has_its_time(self) -> None:
        """
        By its own clock.
        """
        assert self.now + SLICE_SECONDS == self.queue.slice_end()

    def test_a_slice_is_over_when_the_turn_has_lasted(self) -> None:
        """
        However little of it this one has had.
        """
        self.row.woke()
        turn_began = self.row.turn * 1e-9
        for passed in (0.0, TURN_SECONDS - SLICE_SECONDS / 2, TURN_SECONDS * 2):
            self.now = turn_began + passed
            expected = turn_began + min(passed + SLICE_SECONDS, TURN_SECONDS)
            assert abs(expected - self.queue.slice_end()) < 1e-9


class CountingStore(MemoryStore):
    """
    Counts how often it is asked for something.
    """

    calls = 0

    def begin(
        self,
        key: Key,
        length: int | None,
        metadata: Metadata = NO_METADATA,
        conditions: Conditions = UNCONDITIONAL,
    ) -> Answer[IUpload]:
        self.calls += 1
        return CountingUpload(self, key, length, metadata)

    def open(self, key: Key, whole: bool = False) -> Answer[IValue]:
        self.calls += 1
        return super().open(key, whole)


class CountingUpload(MemoryUpload):
    """
    An upload to a `CountingStore`.
    """

    def __init__(
        self, store: CountingStore, key: Key, length: int | None, metadata: Metadata
    ) -> None:
        super().__init__(store, key, length, metadata)
        self._counting = store

    def write(self, chunk: bytes) -> Answer[None]:
        self._counting.calls += 1
        return super().write(chunk)


def request(method: bytes, value: bytes = b"") -> bytes:
    """
    One with a body, if one is given.
    """
    length = b"Content-Length: %d\r\n" % len(value) if value else b""
    return method + b" /k HTTP/1.1\r\n" + HOST + length + b"\r\n" + value


CHUNKED = b"PUT /k HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
GET = request(b"GET")
ONE_BYTE = b"1\r\nz\r\n"
EXTENDED = b"1;a=b\r\nz\r\n"
TRAILERS = b"".join(b"t%d: x\r\n" % number for number in range(50))

HOSTILE = {
    "chunks": (CHUNKED + ONE_BYTE * 8000 + b"0\r\n\r\n", 1),
    "extensions": (CHUNKED + EXTENDED * 5000 + b"0\r\n\r\n", 1),
    "trailers": ((CHUNKED + b"0\r\n" + TRAILERS + b"\r\n") * 100, 100),
    "requests": (GET * 1000, 1000),
    "empty lines": ((b"\r\n" + GET) * 1000, 1000),
    "values": (request(b"PUT", b"z") * 800, 800),
    "removals": (request(b"DELETE") * 1000, 1000),
    "refused bodies": (request(b"PATCH", b"z") * 800, 800),
}
"""
What makes much work, of no more bytes than one read takes; and the number of replies.
"""


class TimeSliceTests(ConnectionCase):
    """
    A connection that sends much work gives way.

    The time of `RunQueue` is counted: each look at the clock takes half of a slice.
    """

    def make_store(self) -> MemoryStore:
        return CountingStore()

    def setUp(self) -> None:
        super().setUp()
        looks = itertools.count()
        self.process.run_queue.seconds = lambda: next(looks) * SLICE_SECONDS / 2
        self.put(b"k", b"v")

    @property
    def done(self) -> int:
        """
        A measure of what was done, which grows with every step.
        """
        assert isinstance(self.store, CountingStore)
        return self.store.calls + self.process.row.words[WORDS_OF_REQUESTS.done]

    def attack(self, data: bytes) -> None:
        """
        Send something that waits in the socket then.
        """
        assert len(data) == self.client.socket.send(data), len(data)

    def receive(self) -> bytes:
        """
        All that comes, however many turns that takes.
        """
        received = b""
        for _ in range(100):
            self.reactor.settle(20)
            received += self.client.receive()
        return received

    def test_one_turn_of_the_reactor_does_a_part_of_it(self) -> None:
        """
        Of whatever was sent. Another client is served in the next turn, while some of
        it is still to be done; and it is all done in the end.
        """
        for kind, (data, replies) in HOSTILE.items():
            self.client = self.connect()
            other = self.connect()
            before = self.done
            self.attack(data)
            self.reactor.settle(1)
            first = self.done - before
            other.socket.send(GET)
            self.reactor.settle(2)
            reply = other.socket.recv(1000)
            meanwhile = self.done - before
            received = self.receive()

            assert status(reply) in (200, 404), kind
            assert 0 < first <= 6, (kind, first)
            assert meanwhile < self.done - before, kind
            assert replies == received.count(b"HTTP/1.1 "), kind
            assert not self.client.ended, kind

    def test_what_one_read_brought_is_written_together(self) -> None:
        """
        And nothing of it is lost, whatever it came with.
        """
        assert isinstance(self.store, CountingStore)
        before = self.store.calls
        digits = b"0123456789abcdef" * 9
        chunks = b"".join(b"1;a=b\r\n%c\r\n" % digit for digit in digits)
        reply = self.ask(CHUNKED + chunks + b"3\r\nend\r\n0\r\nA: b\r\n\r\n")

        assert 204 == status(reply)
        assert 2 == self.store.calls - before, "an upload was begun, and written to"
        assert digits + b"end" == self.value(b"k")

    def test_a_connection_that_gave_way_reads_once_more_at_most(self) -> None:
        """
        So what it sends meanwhile waits at the client, and is done later.
        """
        self.attack(CHUNKED + ONE_BYTE * 8000)
        received = []
        for _ in range(3):
            self.reactor.settle(1)
            received.append(self.process.row.words[WORDS_OF_REQUESTS.bytes_in])
            self.attack(ONE_BYTE * 1000)
        self.attack(b"2\r\nyz\r\n0\r\n\r\n")
        once = received[0]
        assert [once, once + len(ONE_BYTE * 1000), received[1]] == received

        assert 204 == status(self.receive())
        assert b"z" * 11000 + b"yz" == self.value(b"k")

    def test_a_client_that_has_left_is_not_gone_on_with(self) -> None:
        """
        What it had begun is discarded, as ever.
        """
        self.attack(CHUNKED + ONE_BYTE * 8000)
        self.reactor.settle(1)
        (connection,) = self.process.connections
        connection.abort()
        self.reactor.settle(2)
        done = self.done
        self.reactor.settle(20)

        assert set() == self.process.connections
        assert done == self.done
        assert 0 == self.store.uploads

    def test_a_half_closed_connection_is_served_to_its_end(self) -> None:
        """
        All that came before the end of the stream is answered.
        """
        self.attack(GET * 500)
        self.reactor.settle(1)
        self.client.half_close()

        assert 500 == self.receive().count(b"HTTP/1.1 200 ")
        assert self.client.ended

    def test_no_time_runs_against_a_client_that_gave_way(self) -> None:
        """
        It is not the one who is slow.
        """
        self.attack(CHUNKED + ONE_BYTE * 8000 + b"0\r\n\r\n")
        self.reactor.settle(1)
        self.reactor.be_kept(10_000.0)
        for connection in list(self.process.connections):
            connection.check_time(self.reactor.seconds())

        assert 204 == status(self.receive())

    def test_what_was_read_before_the_end_of_the_worker_is_answered(self) -> None:
        """
        The next request, with the word that it was the last; the others, which are
        behind it, are for somebody else.
        """
        self.attack(GET * 500)
        self.reactor.settle(1)
        answered = self.done
        self.process.draining = True
        for connection in list(self.process.connections):
            connection.drain(FRESH_SECONDS)
        replies = self.receive()

        assert 1 < replies.count(b"HTTP/1.1 200 ") < 500
        assert 1 == replies.count(b"Connection: close\r\n"), answered
        assert self.client.ended
        assert not self.client.reset
