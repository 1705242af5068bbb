"""
Tests of `kvd.near`: a cache on a disk, in front of a store that is far away.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from errno import EIO, EMFILE
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from zope.interface import directlyProvides

from kvd.errors import KeyAbsent, StoreFault, StoreFull
from kvd.interfaces import (
    Answer,
    ICachedValue,
    IStore,
    IStreamedUpload,
    IUpload,
    IValue,
)
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.model.values import ValueInfo
from kvd.near.filling import AHEAD_BYTES, CHUNK_BYTES
from kvd.near.store import FAULT_SECONDS, MOST_KNOWN, NearStore
from kvd.net.transport import ServerTransport
from kvd.store.contract.asking import T
from kvd.store.file import FileStore
from kvd.store.memory import SLICE_VALUES
from kvd.testing import MemoryStore, StoreContract
from tests.http.test_connection import HOST, ConnectionCase, body, field
from tests.moving.test_mirror import put
from tests.stepped import inline
from tests.store.cases import FileStoreCase

KEY = Key(b"key")
HIT = "kvd; hit"
ASKED = "kvd; fwd=stale; fwd-status=304"
MISS = "kvd; fwd=uri-miss"


class Far(MemoryStore):
    """
    A store that counts what it is asked.
    """

    opened = described = 0

    def open(self, key: Key, whole: bool = False) -> Answer[IValue]:
        self.opened += 1
        return super().open(key, whole)

    def stat(self, key: Key) -> Any:
        self.described += 1
        return super().stat(key)


def streamed_upload() -> Any:
    """
    An upload that goes on over a connection.
    """
    upload = mock.Mock()
    directlyProvides(upload, IUpload, IStreamedUpload)
    return upload


class NearStoreTests(StoreContract, FileStoreCase):
    """
    `NearStore` is a store like the others.
    """

    has_descriptors = False
    many_values = 3 * SLICE_VALUES

    far_delay: float | None = None
    """After how many seconds the store answers; None: at once."""

    def make_store(self) -> IStore:
        self.far_clock = Clock()
        far = MemoryStore()
        if self.far_delay is not None:
            far = MemoryStore(self.far_clock, self.far_delay)
        return NearStore(far, self.open_store(), 0.0, self.far_clock)

    def wait_for(self, answer: Deferred[T]) -> None:
        for _ in range(200):
            if answer.called:
                break
            self.far_clock.advance(self.far_delay or 0.0)

    def debris(self) -> list[str]:
        return []


class LaterNearStoreTests(NearStoreTests):
    """
    The same, where the store answers later.
    """

    far_delay = 1.0


class CacheCase(FileStoreCase):
    """
    A store with a cache.
    """

    fresh_seconds = 0.0

    def setUp(self) -> None:
        super().setUp()
        self.time = Clock()
        self.far = Far()
        self.near = self.open_near()

    def wait_for(self, answer: Deferred[T]) -> None:
        for _ in range(60):
            if answer.called:
                break
            self.time.advance(0.0)

    def open_near(self) -> NearStore:
        """
        As another process does.
        """
        return NearStore(self.far, self.open_store(), self.fresh_seconds, self.time)

    def read(self, store: IStore | None = None) -> tuple[bytes, str]:
        """
        The value, and where it came from.
        """
        value = self.result((store or self.near).open(KEY))
        body = b""
        while len(body) < value.info.size:
            body += self.result(value.read(len(body), 100_000))
        status = ICachedValue(value).cache_status
        value.close()
        return body, status

    def files(self) -> list[Path]:
        """
        What the cache contains.
        """
        return [
            path
            for path in Path(self.path).rglob("*")
            if path.is_file() and ".kvd" not in path.parts
        ]


class CacheTests(CacheCase):
    """
    What was read comes from the cache.
    """

    def test_a_value_is_read_once(self) -> None:
        """
        Then the store only says that it is still the same; to another process too.
        """
        body = random.Random(1).randbytes(1_000_000)
        put(self.far, b"key", body)

        assert (body, MISS) == self.read()
        assert 1 == self.far.opened
        assert (body, ASKED) == self.read()
        assert (1, 1) == (self.far.opened, self.far.described)
        assert (body, ASKED) == self.read(self.open_near())
        value = self.result(self.near.open(KEY))
        descriptor = value.fileno()
        assert descriptor is not None
        assert body == os.pread(descriptor, len(body), 0)
        assert self.far.values[KEY][0] == value.info
        value.close()

    def test_a_replaced_value_is_not_found(self) -> None:
        """
        Whoever replaced it; nor a removed one.
        """
        put(self.far, b"key", b"1")
        self.read()
        put(self.far, b"key", b"2")
        assert (b"2", MISS) == self.read()
        upload = self.result(self.near.begin(KEY, 1))
        self.result(upload.write(b"3"))
        self.result(upload.commit(UNCONDITIONAL))
        assert (b"3", MISS) == self.read()
        del self.far.values[KEY]
        with pytest.raises(KeyAbsent):
            self.result(self.near.open(KEY))
        with pytest.raises(KeyAbsent):
            self.result(self.near.stat(KEY))

    def test_what_another_program_changed_is_not_used(self) -> None:
        """
        Nor what it put there, or left of it.
        """
        body = b"value" * 1000
        put(self.far, b"key", body)
        self.read()
        [file] = self.files()
        damages = (
            lambda: file.write_bytes(b"wrong" * 1000),
            lambda: file.write_bytes(b"short"),
            lambda: self.place(str(file.relative_to(self.path)), b"wrong" * 1000),
            file.unlink,
        )
        for damage in damages:
            damage()
            assert (body, MISS) == self.read()
            assert (body, ASKED) == self.read()

    def test_a_store_that_answers_at_once(self) -> None:
        """
        A folder on a file server, for example. The process does other work between the
        parts of a long value.
        """
        body = random.Random(3).randbytes(3 * CHUNK_BYTES)
        put(self.far, b"key", body)
        value = self.result(self.near.open(KEY))
        assert body[:9] == self.result(value.read(0, 9))
        read = value.read(2 * CHUNK_BYTES, 9)
        self.assertNoResult(read)
        assert body[-CHUNK_BYTES:][:9] == self.result(read)
        assert [body] == [file.read_bytes() for file in self.files()]
        value.close()

    def test_one_upload_asks_for_room(self) -> None:
        """
        If the cache has none, however many values are read; then another one may.
        """
        for name in (b"1", b"2", b"3"):
            put(self.far, name, b"value")
        waiting: list[Deferred[IUpload]] = []

        def wait(*_: object) -> Deferred[IUpload]:
            waiting.append(Deferred())
            return waiting[-1]

        with mock.patch.object(self.near.cache, "begin", wait):
            for name in (b"1", b"2", b"3"):
                value = self.result(self.near.open(Key(name)))
                assert b"value" == self.result(value.read(0, 9))
                value.close()
            assert [False, True, True] == [each.called for each in waiting]
            waiting[0].errback(StoreFull("There is no room."))
            value = self.result(self.near.open(Key(b"1")))
            assert b"value" == self.result(value.read(0, 9))
            value.close()
        assert not waiting[3].called
        assert [] == self.files()

    def test_many_keys_are_forgotten(self) -> None:
        """
        A process remembers only so many; the values stay in the cache.
        """
        put(self.far, b"key", b"1")
        self.read()
        for number in range(MOST_KNOWN):
            self.near.changed(Key(b"%d" % number))
        assert (b"1", ASKED) == self.read()
        assert 2 == self.far.opened

    def test_an_upload_goes_on_as_it_would_without_a_cache(self) -> None:
        """
        Inside the kernel, if it can.
        """
        upload = self.result(self.near.begin(KEY, 5))
        assert IStreamedUpload(upload, None) is None
        upload.discard()
        begun = streamed_upload()
        with mock.patch.object(self.far, "begin", return_value=begun):
            upload = self.result(self.near.begin(KEY, 5))

        assert begun is IStreamedUpload(upload)


class FreshTests(CacheCase):
    """
    The store is asked again only after a while.
    """

    fresh_seconds = 10.0

    def test_nobody_is_asked_for_a_while(self) -> None:
        """
        What this process writes is read at once all the same.
        """
        put(self.far, b"key", b"1")
        self.read()
        put(self.far, b"key", b"2")
        assert (b"1", HIT) == self.read()
        assert (1, 0) == (self.far.opened, self.far.described)
        self.time.advance(10)
        assert (b"2", MISS) == self.read()
        put(self.far, b"key", b"3")
        # For the conditions of a PUT, for example.
        assert self.far.values[KEY][0] == self.result(self.near.stat(KEY))
        assert (b"3", MISS) == self.read()

        upload = self.result(self.near.begin(KEY, 1))
        self.result(upload.write(b"4"))
        self.result(upload.commit(UNCONDITIONAL))
        assert (b"4", MISS) == self.read()
        assert (b"4", HIT) == self.read()
        self.result(self.near.remove(KEY, UNCONDITIONAL))
        with pytest.raises(KeyAbsent):
            self.result(self.near.open(KEY))

    def test_an_answer_that_comes_late(self) -> None:
        """
        What the store said before a value was written, or removed, is not remembered.
        """
        put(self.far, b"key", b"old")
        for known in (False, True):
            old = self.far.values[KEY][0]
            if known:
                self.read()
                self.time.advance(10)
            for change in (self.write, self.remove):
                late: Deferred[ValueInfo] = Deferred()
                with mock.patch.object(self.far, "stat", return_value=late):
                    asked = self.near.stat(KEY)
                assert isinstance(asked, Deferred)
                change()
                late.callback(old)
                assert old == self.successResultOf(asked)
                if change == self.write:
                    assert b"new" == self.read()[0]
                else:
                    with pytest.raises(KeyAbsent):
                        self.read()
            put(self.far, b"key", b"old")

    def write(self) -> None:
        """
        As a client of this process.
        """
        upload = self.result(self.near.begin(KEY, 3))
        self.result(upload.write(b"new"))
        self.result(upload.commit(UNCONDITIONAL))

    def remove(self) -> None:
        """
        Likewise.
        """
        self.result(self.near.remove(KEY, UNCONDITIONAL))


class StaleTests(CacheCase):
    """
    A store that cannot be asked.
    """

    fresh_seconds = 10.0

    def open_near(self) -> NearStore:
        return NearStore(self.far, self.open_store(), 10.0, self.time, 100.0)

    def test_older_values_are_served_for_a_while(self) -> None:
        """
        The store is asked again every few seconds, and says which value there is once
        it can. What was not read before cannot be served.
        """
        put(self.far, b"key", b"old")
        self.read()
        self.time.advance(20)
        fail_with = StoreFault("it is down")
        asked = 0

        def fail(key: Key) -> Any:
            nonlocal asked
            asked += 1
            raise fail_with

        with mock.patch.object(self.far, "stat", fail):
            for _ in range(3):
                expected = b"old", "kvd; hit; ttl=-11; detail=unreachable"
                assert expected == self.read()
            assert 1 == asked
            self.time.advance(FAULT_SECONDS)
            assert b"old" == self.read()[0]
            assert 2 == asked
            self.time.advance(100)
            with pytest.raises(StoreFault):
                self.result(self.near.open(KEY))
        put(self.far, b"key", b"new")
        assert b"new" == self.read()[0]

    def test_a_removed_value_is_not_served(self) -> None:
        """
        The store has answered.
        """
        put(self.far, b"key", b"old")
        self.read()
        self.time.advance(20)
        del self.far.values[KEY]
        with pytest.raises(KeyAbsent):
            self.result(self.near.open(KEY))


class LostFileTests(CacheCase):
    """
    A file of the cache that cannot be read any more.
    """

    def test_the_rest_comes_from_the_store(self) -> None:
        """
        And the file is removed, so that it is read again into the cache.
        """
        body = random.Random(2).randbytes(300_000)
        put(self.far, b"key", body)
        self.read()
        value = self.result(self.near.open(KEY))
        start = self.result(value.read(0, 100_000))
        [file] = self.files()
        os.truncate(file, 100_000)
        rest = b""
        while len(start + rest) < len(body):
            rest += self.result(value.read(len(start + rest), 150_000))
        assert body == start + rest
        assert None is value.fileno()
        value.close()
        assert [] == self.files()
        assert (body, MISS) == self.read()

    def test_a_replaced_value_has_no_rest(self) -> None:
        """
        The bytes of two are not mixed.
        """
        put(self.far, b"key", b"x" * 300_000)
        self.read()
        value = self.result(self.near.open(KEY))
        put(self.far, b"key", b"y" * 300_000)
        assert ICachedValue(value).lose_file()
        with pytest.raises(StoreFault):
            self.result(value.read(100_000, 100))
        value.close()


class SentFileTests(ConnectionCase):
    """
    A reply that the kernel sends from a file of the cache.
    """

    def test_file_that_cannot_be_read_in_the_middle(self) -> None:
        """
        The client gets the rest from the store, and notices nothing.
        """
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        cache = FileStore(folder, "process", self.reactor, inline)
        near = NearStore(self.store, cache, 60.0, self.reactor)
        self.process.store = near
        body_sent = random.Random(4).randbytes(3_000_000)
        self.put(b"k", body_sent)
        ask = b"GET /k HTTP/1.1\r\n" + HOST + b"\r\n"
        assert body_sent == body(self.ask(ask))
        send_file = ServerTransport.send_file
        for fault in (OSError(EIO, "Input/output error"), None):
            calls = 0

            def fail(*args: Any, fault: OSError | None = fault) -> int | None:
                nonlocal calls
                calls += 1
                if calls < 3:
                    return send_file(*args)
                if fault is not None:
                    raise fault
                return None

            with mock.patch.object(ServerTransport, "send_file", fail):
                reply = self.ask(ask)
            assert 3 == calls
            assert b"kvd; hit" == field(reply, b"Cache-Status")
            assert body_sent == body(reply)
            # The next one fills the cache again.
            assert body_sent == body(self.ask(ask))
        closed = near.close()
        assert isinstance(closed, Deferred)
        self.successResultOf(closed)


class FillingTests(CacheCase):
    """
    One reads, and others read what is there already.
    """

    def setUp(self) -> None:
        super().setUp()
        self.far = Far(self.time, 1.0)
        self.near = self.open_near()
        self.content = random.Random(2).randbytes(6 * AHEAD_BYTES)
        put(self.far, b"key", self.content)

    def opened(self) -> IValue:
        """
        The value, for one more reader.
        """
        answer = self.near.open(KEY)
        assert isinstance(answer, Deferred)
        self.pass_chunks(2)
        value: IValue = self.successResultOf(answer)
        return value

    def start(self, value: IValue, offset: int = 0) -> Deferred[bytes]:
        """
        Begin to read.
        """
        answer = value.read(offset, 1000)
        assert isinstance(answer, Deferred)
        return answer

    def pass_chunks(self, count: int) -> None:
        """
        Let some chunks come.
        """
        for _ in range(count):
            self.time.advance(1.0)

    def test_readers_share_one_reading(self) -> None:
        """
        Each gets all of it, while it comes.
        """
        first, second = self.opened(), self.opened()
        reads = [self.start(first), self.start(second), self.start(second, 5000)]
        self.pass_chunks(1)
        for read, offset in zip(reads, (0, 0, 5000), strict=True):
            assert self.content[offset : offset + 1000] == self.successResultOf(read)
        self.pass_chunks(30)
        assert [len(self.content)] == [path.stat().st_size for path in self.files()]
        at_the_end = self.start(second, len(self.content) - 10)
        assert self.content[-10:] == self.successResultOf(at_the_end)
        assert 2 == self.far.opened
        first.close()
        second.close()

    def test_readers_that_come_later_ask_for_no_byte(self) -> None:
        """
        Only whether the value is still the same. The readers may leave in any order,
        and the filling may fail: they get the value all the same.
        """
        for leaves_first, fails in ((False, False), (True, False), (False, True)):
            self.near = self.open_near()
            shutil.rmtree(self.path)
            os.mkdir(self.path)
            self.near.cache = self.open_store()
            first = self.opened()
            self.start(first)
            self.pass_chunks(2)
            asked = self.far.opened, self.far.described
            others = [self.opened() for _ in range(3)]
            assert (asked[0], asked[1] + 3) == (self.far.opened, self.far.described)
            assert [f"{MISS}; collapsed"] * 3 == [
                ICachedValue(each).cache_status for each in others
            ]
            others.pop().close()
            if leaves_first:
                first.close()
            if fails:
                self.far.break_reads_at = 0
            self.pass_chunks(3)
            self.far.break_reads_at = None
            self.pass_chunks(40)
            for each, offset in zip(others, (0, len(self.content) - 1000), strict=True):
                read = self.start(each, offset)
                self.pass_chunks(2)
                assert self.content[offset:][:1000] == self.successResultOf(read)
                each.close()
            if not leaves_first:
                first.close()
            assert [] == os.listdir(self.uploads())

    def test_a_part_that_is_far_away_comes_from_the_store(self) -> None:
        """
        And begins no filling.
        """
        value = self.opened()
        read = self.start(value, 3 * AHEAD_BYTES)
        self.pass_chunks(1)
        assert self.content[3 * AHEAD_BYTES :][:1000] == self.successResultOf(read)
        value.close()
        self.pass_chunks(30)
        assert [] == self.files()

        value = self.opened()
        self.start(value)
        other = self.opened()
        read = self.start(other, 3 * AHEAD_BYTES)
        self.pass_chunks(2)
        assert self.content[3 * AHEAD_BYTES :][:1000] == self.successResultOf(read)
        value.close()
        other.close()

    def test_it_ends_if_nobody_reads_any_more(self) -> None:
        """
        Unless most of it is there.
        """
        chunks = len(self.content) // CHUNK_BYTES
        for passed, files in ((3, 0), (chunks // 2 + 2, 1)):
            value = self.opened()
            self.start(value)
            self.pass_chunks(passed)
            value.close()
            self.pass_chunks(40)
            assert files == len(self.files())
            assert [] == os.listdir(self.uploads())

    def test_store_that_answers_nobody_is_not_waited_for(self) -> None:
        """
        When the last reader leaves, before it has answered.
        """
        first, last = self.opened(), self.opened()
        reads = [self.start(first), self.start(last)]
        first.close()
        assert 1 == len(self.time.getDelayedCalls()), "the answer of the store"
        last.close()

        assert [] == self.time.getDelayedCalls()
        assert [] == os.listdir(self.uploads())
        for read in reads:
            self.failureResultOf(read, CancelledError)
        again = self.opened()
        read = self.start(again)
        self.pass_chunks(2)
        assert self.content[:1000] == self.successResultOf(read)
        again.close()

    def uploads(self) -> str:
        """
        The folder in which the cache's uploads are.
        """
        hidden = os.path.join(self.path, ".kvd")
        [folder] = [
            name
            for name in os.listdir(hidden)
            if os.path.isdir(os.path.join(hidden, name))
        ][-1:]
        return os.path.join(hidden, folder)

    def test_a_cache_that_cannot_be_written(self) -> None:
        """
        Readers do not notice.
        """
        value = self.opened()
        read = self.start(value)
        with (
            mock.patch(
                "kvd.store.upload.FileUpload.write", side_effect=StoreFault("It broke.")
            ),
            capturedLogs() as logs,
        ):
            self.pass_chunks(4)
        assert self.content[:1000] == self.successResultOf(read)
        read = self.start(value, 1000)
        self.pass_chunks(1)
        assert self.content[1000:2000] == self.successResultOf(read)
        value.close()
        assert ["It broke."] == [event["reason"] for event in logs]
        assert [] == self.files()

    def test_a_value_that_is_larger_than_the_cache(self) -> None:
        """
        It is read from the store, again and again.
        """
        with mock.patch(
            "kvd.store.file.FileStore.begin", side_effect=StoreFull("Too large.")
        ):
            value = self.opened()
            read = self.start(value)
            self.pass_chunks(4)
        assert self.content[:1000] == self.successResultOf(read)
        value.close()
        assert [] == self.files()

    def test_a_store_that_breaks_off(self) -> None:
        """
        Readers get its fault, and nothing of it stays.
        """
        self.far.break_reads_at = CHUNK_BYTES
        value = self.opened()
        read = self.start(value)
        self.pass_chunks(2)
        assert self.content[:1000] == self.successResultOf(read)
        with capturedLogs():
            read = self.start(value, CHUNK_BYTES)
            self.pass_chunks(4)
        self.failureResultOf(read, StoreFault)
        value.close()
        assert [] == self.files()

    def test_a_client_leaves_while_it_waits(self) -> None:
        """
        What it waited for is not asked for again on its behalf: nobody would close it.
        """
        self.far.break_reads_at = 0
        value, other = self.opened(), self.opened()
        waiting = self.start(value)
        read = self.start(other)
        opened = self.far.opened
        value.close()
        with capturedLogs() as logs:
            self.pass_chunks(1)
        assert ["/key does not get into the near cache: {reason}"] == [
            event["log_format"].replace("{key}", "key") for event in logs
        ]
        self.failureResultOf(waiting, CancelledError)
        assert opened + 1 == self.far.opened, "for the other one"
        other.close()
        self.pass_chunks(3)
        self.failureResultOf(read, CancelledError)

    def test_a_client_leaves_while_the_store_is_asked_again(self) -> None:
        """
        What has been opened on its behalf is closed.
        """
        with mock.patch(
            "kvd.store.memory.MemoryValue.close", autospec=True
        ) as closings:
            value = self.opened()
            self.start(value)
            other = self.opened()
            read = self.start(other, 3 * AHEAD_BYTES)
            assert 2 == self.far.opened
            other.close()
            value.close()
            self.pass_chunks(3)
        self.failureResultOf(read, CancelledError)
        closed = {id(each.args[0]) for each in closings.call_args_list}
        assert self.far.opened == len(closed)

    def test_a_process_without_descriptors(self) -> None:
        """
        Readers get the value from the store, and nothing stays behind.
        """
        value = self.opened()
        with (
            mock.patch("kvd.near.filling.os") as system,
            capturedLogs() as logs,
        ):
            system.open.side_effect = OSError(EMFILE, "Too many")
            read = self.start(value)
            self.pass_chunks(2)
        assert self.content[:1000] == self.successResultOf(read)
        assert ["[Errno 24] Too many"] == [event["reason"] for event in logs]
        value.close()
        assert [] == os.listdir(self.uploads())

    def test_a_store_that_does_not_answer_at_the_end(self) -> None:
        """
        The process does not wait for it.
        """
        value = self.opened()
        with mock.patch(
            "kvd.store.memory.MemoryValue.read", side_effect=lambda *_: Deferred()
        ):
            read = self.start(value)
            value.close()
            closed = self.near.close()
        assert isinstance(closed, Deferred)
        self.pass_chunks(1)
        self.successResultOf(closed)
        self.failureResultOf(read, CancelledError)
        assert [] == list(Path(self.path, ".kvd").glob("*/*"))

    def test_the_end_of_the_process(self) -> None:
        """
        It waits for no long value.
        """
        value = self.opened()
        self.start(value)
        self.pass_chunks(1)
        closed = self.near.close()
        assert isinstance(closed, Deferred)
        self.pass_chunks(3)
        self.successResultOf(closed)
        value.close()
        assert [] == self.files()
