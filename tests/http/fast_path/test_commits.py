"""
Tests for `kvd.http.commits`: PUTs of the fast path at durability ``disk``.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred

from kvd.http.commits import Commits
from kvd.http.connection import HttpConnection
from kvd.http.context import ProcessContext
from kvd.http.dialects.choice import Dialects
from kvd.http.fast_path import COMMITS, Commit
from kvd.ipc.row import CLIENT_LEFT, SYNCS, WORDS_OF_REQUESTS, lone_row
from kvd.ipc.syncs import count_syncs
from kvd.model.keys import Key
from kvd.settings import Durability, Settings
from kvd.store import attribute
from kvd.store.file import FileStore
from kvd.store.sync import MAX_THREADS
from kvd.store.waiting import OffReactor
from kvd.workers.http_server import HttpServer
from tests.http.fast_path import test_connections as connections
from tests.http.fast_path.cases import FastPathCase, body_of, field, get, put
from tests.http.test_connection import LIMITS
from tests.one_second import within_a_second
from tests.patience import PATIENCE_SECONDS
from tests.store.stepped import SteppedPool

BEGUN, DONE = WORDS_OF_REQUESTS.begun, WORDS_OF_REQUESTS.done


class CommitCase(connections.ConnectionCase):
    """
    Connections to a store at durability ``disk``, whose folders are synced when a test
    says so.
    """

    durability = "disk"
    reports = False

    def setUp(self) -> None:
        self.pool = SteppedPool()
        super().setUp()
        self.reactor.serve_readable = self.watched.serve_idle
        commits = self.process.commits
        assert isinstance(commits, Commits)
        self.commits = commits
        self.reactor.addReader(commits)

    def open_store(
        self,
        durability: Durability | None = None,
        off_reactor: OffReactor | None = None,
    ) -> FileStore:
        return super().open_store(durability, off_reactor or self.pool)

    def make_process(self, store: FileStore) -> ProcessContext:
        log = self.notes if self.reports else None
        return ProcessContext(store, Dialects(()), self.limits, self.reactor, log)

    @contextmanager
    def files_unsynced(self) -> Iterator[None]:
        """
        A context in which nobody hears that a file is synced.
        """
        with mock.patch.object(Commits, "doRead", return_value=None):
            yield
        self.reactor.settle()

    def abort_all(self) -> None:
        """
        Lose all connections.
        """
        for connection in list(self.process.connections):
            connection.abort()
        self.reactor.settle()

    def finish(self) -> None:
        """
        Sync all folders, and let the replies be sent.
        """
        self.reactor.settle()
        self.pool.finish()
        self.reactor.settle()

    def stored(self, key: str) -> bytes:
        """
        The value of a key.
        """
        return self.body(self.result(self.store.open(Key(key.encode()))))

    def ask(self, request: bytes) -> bytes:
        self.client.send(request)
        self.finish()
        return self.client.receive()

    def assert_all_counted(self, requests: int) -> None:
        """
        Each request has begun and ended, and nothing is underway.
        """
        words = self.process.row.words
        assert [requests, requests] == [words[BEGUN], words[DONE]]
        assert 0 == self.process.answers_due
        assert None is self.store.fast_path_state.underway.ended()
        assert [] == self.debris()


class CommitTests(CommitCase):
    """
    What the client hears, and when.
    """

    @within_a_second
    def test_a_value_is_created_and_replaced(self) -> None:
        """
        The replies are those of the ordinary way, and the connection is not asked.
        """
        with mock.patch.object(HttpConnection, "after_fast_path") as asked:
            created = self.ask(put("k", b"value"))
            replaced = self.ask(put("k", b"other"))
        ordinary = self.ask(put("%6b", b"third"))

        assert not asked.called
        assert created.startswith(b"HTTP/1.1 201 Created\r\n")
        assert replaced.startswith(b"HTTP/1.1 204 No Content\r\n")
        assert "disk" == field(created, "Kvd-Durability")
        assert connections_tag(ordinary) == connections_tag(replaced)
        assert b"third" == self.stored("k")
        assert 2 == self.watched.idle
        self.assert_all_counted(3)

    @within_a_second
    def test_the_reply_waits_for_all_syncs(self) -> None:
        """
        Without its file synced a value has no name; without its folder synced there is
        no reply.
        """
        with self.files_unsynced():
            self.client.send(put("a/k", b"value"))
            assert [] == self.found()
        assert ["a/k"] == self.found()
        assert b"" == self.client.receive()
        assert 1 == self.pool.waiting()
        self.finish()

        assert self.client.receive().startswith(b"HTTP/1.1 201 ")
        assert b"value" == self.stored("a/k")

    @within_a_second
    def test_folders_are_synced_once_for_many(self) -> None:
        """
        All that were published meanwhile are synced in one batch, and each folder once.
        """
        clients = [self.connect() for _ in range(6)]
        with self.files_unsynced():
            for number, client in enumerate(clients):
                client.send(put(f"{'ab'[number % 2]}/{number}", b"value"))
        assert 2 == self.pool.waiting()
        self.finish()

        for client in clients:
            assert client.receive().startswith(b"HTTP/1.1 201 ")
        self.assert_all_counted(6)

    def test_the_connection_ends_as_the_client_asks(self) -> None:
        """
        Once the reply is sent.
        """
        reply = self.ask(put("k", b"value", b"Connection: close\r\n"))

        assert "close" == field(reply, "Connection")
        assert self.client.ended
        self.assert_all_counted(1)

    def test_a_value_is_not_older_than_the_one_before(self) -> None:
        """
        It is sealed and synced again, in the ordinary way.
        """
        self.ask(put("k", b"value"))
        path = os.path.join(self.path, "k")
        ahead_us = time.time_ns() // 1000 + 10_000_000
        text = attribute.encode("a" * 32, 5, ahead_us, b"")
        os.setxattr(path, attribute.NAME, text)
        os.utime(path, ns=(0, 1000 * ahead_us))
        reply = self.ask(put("k", b"other", b"Content-Type: text/plain\r\n"))

        assert reply.startswith(b"HTTP/1.1 204 ")
        info = self.result(self.store.stat(Key(b"k")))
        assert ahead_us == round(info.changed * 1_000_000)
        assert {"content-type": "text/plain"} == info.metadata
        assert f'"{info.etag}"' == field(reply, "ETag")
        self.assert_all_counted(2)

    @within_a_second
    def test_a_value_has_the_date_of_its_publication(self) -> None:
        """
        If its sync takes until the next second, it is sealed and synced again before it
        has its name, and the connection is not asked.
        """
        with (
            mock.patch.object(HttpConnection, "after_fast_path") as asked,
            mock.patch.object(HttpConnection, "continue_commit") as continued,
        ):
            with self.files_unsynced():
                self.client.send(put("k", b"value"))
                self.reactor.settle()
                sealed = int(time.time())
                time.sleep(1 - time.time() % 1)
            self.finish()

        assert not asked.called
        assert not continued.called
        assert self.client.receive().startswith(b"HTTP/1.1 201 ")
        assert sealed < self.result(self.store.stat(Key(b"k"))).changed
        assert b"value" == self.stored("k")
        self.assert_all_counted(1)

    def test_files_of_others_are_replaced(self) -> None:
        """
        In the ordinary way, which is told what was done already.
        """
        self.place("k")
        self.place("folder/k")
        assert self.ask(put("k", b"value")).startswith(b"HTTP/1.1 204 ")
        assert self.ask(put("folder", b"value")).startswith(b"HTTP/1.1 409 ")

        assert b"value" == self.stored("k")
        self.assert_all_counted(2)

    def test_a_lock_that_another_process_holds(self) -> None:
        """
        Is waited for, as ever.
        """

        def ask_in_vain() -> None:
            self.client.send(put("k", b"value"))
            self.reactor.settle()
            assert [] == self.found()

        self.while_locked(Key(b"k"), ask_in_vain)
        self.clock.advance(1)
        self.finish()

        assert self.client.receive().startswith(b"HTTP/1.1 201 ")
        self.assert_all_counted(1)


def connections_tag(reply: bytes) -> list[bytes]:
    """
    The lines of a reply that are the same for any value.
    """
    return [
        line
        for line in reply.split(b"\r\n")
        if not line.startswith((b"ETag:", b"Date:"))
    ]


class GatheredTests(CommitCase):
    """
    In a reactor that says when its turns end, files are synced together.
    """

    threads = MAX_THREADS

    def setUp(self) -> None:
        with mock.patch("kvd.store.file.threads_of", return_value=self.threads):
            super().setUp()
        self.watched.hand_over()

    def wait(self) -> None:
        """
        Wait for the event of something that is synced.
        """
        event = self.watched.sync_event()
        assert [event] == select.select([event], [], [], PATIENCE_SECONDS)[0]

    @within_a_second
    def test_files_of_a_turn_are_synced_and_published_together(self) -> None:
        """
        One event tells of all of them, when the last one is synced.
        """
        clients = [self.connect() for _ in range(5)]
        with mock.patch.object(Commits, "doRead", return_value=None):
            for number, client in enumerate(clients):
                client.send(put(f"k{number}", b"value"))
            event = self.watched.sync_event()
            assert [] == select.select([event], [], [], 0)[0]
            self.watched.hand_over()
            self.wait()
            published, left, folders = self.watched.publish_synced()
        assert {b"": 5} == {path: len(those) for path, those in published.items()}
        assert ([], []) == (left, folders)
        assert [f"k{number}" for number in range(5)] == self.found()
        assert [f"k{number}".encode() for number in range(5)] == [
            commit.key for commit in published[b""]
        ]

    @within_a_second
    def test_a_sync_that_fails_is_no_other_file_s(self) -> None:
        """
        The others of its turn are published, and each client hears of its own.
        """
        clients = [self.connect() for _ in range(3)]
        with mock.patch.object(Commits, "doRead", return_value=None):
            clients[0].send(put("k0", b"value"))
            before = self.descriptors()
            clients[1].send(put("k1", b"value"))
            (file,) = self.descriptors() - before
            cannot_be_synced(file)
            clients[2].send(put("k2", b"value"))
            self.watched.hand_over()
            self.wait()
        self.finish()

        heard = [client.receive().split(b" ", 2)[1] for client in clients]
        assert [b"201", b"500", b"201"] == heard
        assert ["k0", "k2"] == self.found()
        self.assert_all_counted(3)

    def descriptors(self) -> set[int]:
        """
        Those of files in the store.
        """
        links = {
            int(each): f"/proc/self/fd/{each}" for each in os.listdir("/proc/self/fd")
        }
        return {
            each
            for each, link in links.items()
            if os.path.lexists(link)
            and os.path.isfile(link)
            and os.readlink(link).startswith(os.path.realpath(self.path))
        }

    def test_as_many_as_there_are_threads_wait_for_no_end(self) -> None:
        """
        More than these would wait for a thread in any case.
        """
        self.send_at_once(self.threads)
        self.publish_all(self.threads)
        assert self.threads == len(self.found())

    def test_threads_that_wait_are_given_more(self) -> None:
        """
        Each of them finds what it was given, whichever others are woken with it.
        """
        for count in (self.threads, self.threads - 3, 1):
            self.send_at_once(count)
            self.watched.hand_over()
            self.publish_all(count)

    def send_at_once(self, count: int) -> None:
        """
        Send values, and have nobody hear that they are synced.
        """
        with mock.patch.object(Commits, "doRead", return_value=None):
            for number in range(count):
                self.connect().send(put(f"k{number}", b"value"))

    def publish_all(self, count: int) -> None:
        """
        Publish so many values.
        """
        while count > 0:
            self.wait()
            count -= len(self.watched.publish_synced()[0].get(b"", []))
            # Those that were sealed in an earlier second are gathered again.
            self.watched.hand_over()
        assert 0 == count

    def test_what_is_gathered_is_synced_before_the_store_is_closed(self) -> None:
        """
        Threads end when everything is done that they were asked for.
        """
        row = lone_row()
        count_syncs(row)
        self.addCleanup(count_syncs, None)
        with mock.patch.object(Commits, "doRead", return_value=None):
            self.client.send(put("k", b"value"))
            compiled: Any = self.fast_path
            compiled.upload_to(-1, (None, b""), 0)
        assert row.words[SYNCS] > 0
        self.abort_all()


class ManyThreadsTests(GatheredTests):
    """
    The same with more threads than one call can tell apart.
    """

    threads = 40


def cannot_be_synced(file: int) -> None:
    """
    Put a pipe in the place of a file.
    """
    for end in os.pipe():
        os.dup2(end, file)  # Its owner closes that, once.
        os.close(end)


class MeanwhileTests(CommitCase):
    """
    While a connection waits for a sync, it may learn of other things.
    """

    def test_what_is_sent_ahead_waits(self) -> None:
        """
        And is answered in order, whatever it is.
        """
        self.client.send(put("k", b"value"))
        self.client.send(get("k") + put("k", b"other"))
        self.client.send(get("k"))
        assert b"" == self.client.receive()
        self.finish()
        replies = self.client.receive()
        self.finish()
        replies += self.client.receive()

        statuses = [int(each[:3]) for each in replies.split(b"HTTP/1.1 ")[1:]]
        assert [201, 200, 204, 200] == statuses
        assert replies.endswith(b"\r\n\r\nother")
        self.assert_all_counted(4)

    def test_a_client_that_closed_its_half_is_answered(self) -> None:
        """
        It may still read.
        """
        self.client.send(put("k", b"value")).half_close()
        self.finish()

        assert self.client.receive().startswith(b"HTTP/1.1 201 ")
        assert self.client.ended
        self.assert_all_counted(1)

    def test_a_client_that_left_has_its_value_stored(self) -> None:
        """
        Wherever it was; and the next connection with its number hears nothing of it.
        """
        for number, where in enumerate(("file", "folder")):
            client = self.connect()
            with self.files_unsynced():
                client.send(put(where, b"value"))
                if where == "file":
                    self.abort_all()
            self.abort_all()
            other = self.connect()
            self.finish()
            assert b"" == other.receive()
            assert b"value" == self.stored(where)
            self.assert_all_counted(number + 1)

    def test_a_value_of_a_client_that_left_is_published_in_any_way(self) -> None:
        """
        Here, the ordinary one.
        """
        self.place("k")
        with self.files_unsynced():
            self.client.send(put("k", b"value"))
            self.abort_all()
        self.finish()

        assert b"value" == self.stored("k")
        self.assert_all_counted(1)

    @within_a_second
    def test_a_mistake_with_one(self) -> None:
        """
        Ends that one, and no other, now or later.
        """
        self.place("k")
        leaves, others = self.connect(), self.connect()
        adopting = mock.patch.object(Commits, "_adopt", side_effect=MemoryError)
        with adopting, self.files_unsynced():
            self.client.send(put("k", b"value"))
            leaves.send(put("k", b"value"))
            leaves.socket.close()
            others.send(put("other", b"value"))
        self.finish()

        assert self.client.receive().startswith(b"HTTP/1.1 500 ")
        assert others.receive().startswith(b"HTTP/1.1 201 ")
        assert self.ask(put("next", b"value")).startswith(b"HTTP/1.1 201 ")
        assert 2 == len(self.flushLoggedErrors(MemoryError))

    def test_time_passes(self) -> None:
        """
        A connection that waits is not idle, and is again afterwards.
        """
        self.client.send(put("k", b"value"))
        self.later(LIMITS.idle_seconds + 1)
        self.finish()
        assert self.client.receive().startswith(b"HTTP/1.1 201 ")
        self.later(LIMITS.idle_seconds - 1)
        assert b"value" == body_of(self.ask(get("k")))
        self.later(LIMITS.idle_seconds + 1)
        self.client.receive()

        assert self.client.ended

    def test_a_worker_is_drained(self) -> None:
        """
        The reply says that the connection ends; and the store is not closed before.
        """
        server = HttpServer(Settings(), 0, self.reactor)
        server.process = self.process
        self.process._released = server._released
        self.client.send(put("k", b"value"))
        drained: list[None] = []
        server.drain(10).addCallback(drained.append)
        self.reactor.settle()
        assert [] == drained
        closed = self.store.close()
        assert isinstance(closed, Deferred)
        self.assertNoResult(closed)
        self.finish()

        assert "close" == field(self.client.receive(), "Connection")
        assert self.client.ended
        self.successResultOf(closed)
        self.reactor.settle()
        assert [None] == drained

    def test_connections_are_aborted(self) -> None:
        """
        The value is stored all the same.
        """
        self.client.send(put("k", b"value"))
        self.abort_all()
        self.finish()

        assert b"" == self.client.receive()
        assert self.client.ended
        assert b"value" == self.stored("k")
        self.assert_all_counted(1)

    def test_a_socket_takes_no_more(self) -> None:
        """
        Then the reply follows when it does.
        """
        self.ask(put("big", bytes(2_000_000)))
        self.client.send(get("big"))
        with self.files_unsynced():
            near = next(iter(self.process.connections)).transport
            self.client.receive()
            self.client.send(put("k", b"value"))
            # As much as the peer does not read.
            filler = 0
            try:
                while True:
                    filler += near.socket.send(bytes(100))
            except BlockingIOError:
                pass
        self.finish()
        received = self.client.receive()
        self.reactor.settle()
        received += self.client.receive()

        assert received[filler:].startswith(b"HTTP/1.1 201 ")
        assert 0 == len(received[filler:].partition(b"\r\n\r\n")[2])


class ReportedCommitTests(CommitCase):
    """
    Where somebody hears of each request.
    """

    reports = True

    def test_each_is_noted(self) -> None:
        """
        With its status and size, and that the client left.
        """
        self.ask(put("k", b"value"))
        self.ask(put("k", b"longer"))
        self.client.send(put("left", b"four"))
        self.abort_all()
        self.finish()

        assert [
            ("PUT", "/k", 201, 5),
            ("PUT", "/k", 204, 6),
            ("PUT", "/left", CLIENT_LEFT, 4),
        ] == [
            (each.method, each.key, each.status, each.body_bytes)
            for each in self.notes.entries
        ]
        assert all(0 <= each.seconds < 60 for each in self.notes.entries)
        self.assert_all_counted(3)

    def test_what_was_sent_before_the_reply_is_counted(self) -> None:
        """
        That the body may come.
        """
        request = put("k", b"value", b"Expect: 100-continue\r\n")
        received = self.ask(request[:-5])
        assert received.startswith(b"HTTP/1.1 100 ")
        received += self.ask(request[-5:])
        (connection,) = self.process.connections
        assert isinstance(connection, HttpConnection)

        assert b"HTTP/1.1 201 " in received
        assert connection._joined is not None
        moved = connection._received + connection.transport.bytes_sent
        assert len(request) + len(received) == moved + connection._joined.bytes


class UncaredTests(FastPathCase):
    """
    Of a connection that nobody got to care for.
    """

    durability = "disk"

    def test_its_value_is_stored_and_counted(self) -> None:
        """
        And nobody is answered.
        """
        assert COMMITS == self.serve(put("k", b"value"))
        assert COMMITS == self.serve(put("other", b"value"))
        commits = self.process.commits
        assert isinstance(commits, Commits)
        taken: Commit = self.fast_path.take_commit(None)
        last = time.monotonic() + PATIENCE_SECONDS
        # One whose second changes before it is published is synced once more.
        while self.found() != ["k", "other"]:
            assert time.monotonic() < last
            commits.doRead()

        assert b"other" == taken.key
        assert b"" == self.reply()
        words = self.process.row.words
        assert [2, 1] == [words[BEGUN], words[DONE]]


class ThreadTests(CommitCase):
    """
    With the threads of a worker.
    """

    def open_store(
        self,
        durability: Durability | None = None,
        off_reactor: OffReactor | None = None,
    ) -> FileStore:
        threaded = mock.patch("kvd.store.file.threads_of", return_value=4)
        with threaded:
            return super().open_store(durability, off_reactor)

    def test_many_values(self) -> None:
        """
        Of many clients; all of them are stored.
        """
        clients = [self.connect() for _ in range(12)]
        for turn in range(10):
            for number, client in enumerate(clients):
                client.send(put(f"{turn % 3}/{number}", b"%d" % turn))
            waiting = list(clients)
            while waiting:
                # The sync of a file wakes it.
                self.reactor.doPoll(0.01)
                self.finish()
                waiting = [each for each in waiting if not each.receive()]

        for number in range(len(clients)):
            for turn in (7, 8, 9):
                assert b"%d" % turn == self.stored(f"{turn % 3}/{number}")
        self.assert_all_counted(120)


class PiecesTests(CommitCase):
    """
    Bodies that come later than their heads, or in pieces.
    """

    @within_a_second
    def test_a_body_in_pieces(self) -> None:
        """
        The last piece begins the syncs, and the connection is not asked.
        """
        request = put("a/k", b"value", b"Content-Type: text/plain\r\n")
        self.ask(request)
        with mock.patch.object(HttpConnection, "after_fast_path") as asked:
            for end in range(request.index(b"value"), len(request)):
                self.client.send(request[:end])
                assert 0 == self.pool.waiting()
                self.client.send(request[end:])
                assert b"" == self.client.receive()
                assert 1 == self.pool.waiting()
                self.finish()
                assert self.client.receive().startswith(b"HTTP/1.1 204 ")

        assert not asked.called
        assert b"value" == self.stored("a/k")
        self.assert_all_counted(6)

    @within_a_second
    def test_the_body_of_a_new_connection(self) -> None:
        """
        Comes later than its head.
        """
        request = put("k", b"value")
        self.ask(request)
        client = self.connect()
        client.send(request[:-5])
        client.send(request[-5:])
        assert 1 == self.pool.waiting()
        self.finish()

        assert client.receive().startswith(b"HTTP/1.1 204 ")
        self.assert_all_counted(2)
