"""
The tests of `kvd.store.epochs`: several processes replace each other's values.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Thread
from typing import Any
from unittest import mock

import pytest
from twisted.internet.defer import Deferred, execute
from twisted.logger import capturedLogs

from kvd.errors import KeyAbsent, NoThread
from kvd.model.conditions import UNCONDITIONAL
from kvd.store.epochs import (
    Epochs,
    SharedSync,
    begin_epoch,
    epoch_of,
    is_of,
    stamp_in_python,
)
from kvd.store.file import FileStore
from kvd.store.locks import LockFile
from kvd.store.waiting import OffReactor
from kvd.testing import StoreContract
from tests.descriptors import Descriptors
from tests.store.cases import KEY, MANY_VALUES, FileStoreCase, placing_in_python
from tests.store.replacing import Replacing
from tests.store.stepped import SteppedPool
from tests.store.test_writeback import INNER, WritebackCase


def fake_note(note: bytes) -> Callable[..., bytes]:
    """
    An ``os.getxattr`` that reads this of the file of locks.
    """
    getxattr = os.getxattr

    def get(path: int, name: str) -> bytes:
        return note if name.endswith("synced") else getxattr(path, name)

    return get


class SharingContractTests(StoreContract, FileStoreCase):
    """
    `FileStore` meets the contract where processes share their syncs.
    """

    keeps = True
    exchanges = True
    has_epochs = True
    many_values = MANY_VALUES


class EpochCase(WritebackCase):
    """
    A test case with stores that share their syncs, which wait for `step`.
    """

    has_epochs = True

    def setUp(self) -> None:
        super().setUp()
        self.pool = SteppedPool()
        for patched in (
            mock.patch("kvd.store.epochs.BATCH_SECONDS", 0.0),
            mock.patch("kvd.store.epochs.HOLD_SECONDS", -1.0),
            mock.patch("kvd.store.placing.has_no_place", self.has_no_place),
            placing_in_python(),
        ):
            patched.__enter__()
            self.addCleanup(patched.__exit__, None, None, None)
        self.addCleanup(lambda: self.pool.finish())

    def has_no_place(self, descriptor: int, size: int) -> bool:
        """
        Whether a value has no place on the disk, so that nobody has written it.
        """
        return True

    def open_stores(self, count: int) -> list[FileStore]:
        """
        Open the store as several processes do.
        """
        return [self.open_store(off_reactor=self.pool) for _ in range(count)]

    def sync(self) -> None:
        """
        Let everything be synced.
        """
        self.pass_seconds(5)
        self.pool.finish()


class UnsyncedTests(EpochCase):
    """
    What was never synced is not kept.
    """

    def test_one_value_is_kept_however_many_processes_replace_it(self) -> None:
        """
        The one that is on the disk. After the next sync it is the last one.
        """
        stores = self.open_stores(8)
        self.publish(stores[0], body=b"synced")
        self.sync()
        for times in range(3):
            for number, store in enumerate(stores):
                self.publish(store, body=b"%d of %d" % (times, number))
        assert {"key": [b"synced"]} == self.kept()
        self.sync()
        assert {} == self.kept()
        for store in reversed(stores):
            self.publish(store)

        assert {"key": [b"2 of 7"]} == self.kept()

    def test_what_a_sync_may_have_reached_is_kept(self) -> None:
        """
        It began after the publication, whoever did it, and may not have ended.
        """
        one, other = self.open_stores(2)
        self.publish(one, body=b"1")
        self.publish(other, body=b"2")
        assert {} == self.kept()

        def publish(_: int) -> None:
            self.publish(other, body=b"3")

        self.patch_sync(publish)
        self.pass_seconds(5)
        assert 2 == self.pool.waiting()
        self.pool.step()

        assert {"key": [b"2"]} == self.kept()
        self.patch_sync(lambda folder: None)
        self.pool.finish()
        assert {"key": [b"2"]} == self.kept()
        self.sync()
        assert {} == self.kept()

    def test_what_is_taken_is_covered_until_the_sync_begins(self) -> None:
        """
        What is replaced between these two moments need not be kept.
        """
        one, other = self.open_stores(2)
        self.publish(one, body=b"old")
        self.sync()
        self.publish(one, body=b"1")
        self.pass_seconds(5)
        assert 1 == self.pool.waiting()
        self.publish(other, body=b"2")
        self.publish(one, body=b"3")
        assert {"key": [b"old"]} == self.kept()
        self.pool.step()

        assert {} == self.kept()

    def test_reading_changes_nothing(self) -> None:
        """
        A value is of the epoch in which it was published, also after it was read.
        """
        one, other = self.open_stores(2)
        self.publish(one, body=b"synced")
        self.sync()
        self.publish(one, body=b"1")
        with open(os.path.join(self.path, "key"), "rb") as file:
            assert b"1" == file.read()
        assert b"1" == self.get(other)
        self.publish(other, body=b"2")

        assert {"key": [b"synced"]} == self.kept()

    def test_a_value_of_no_epoch_is_kept(self) -> None:
        """
        Its access time is another one; or another program has changed it or put it
        there.
        """
        path = os.path.join(self.path, "key")
        store, other = self.open_stores(2)

        def touch() -> None:
            os.utime(path, ns=(1, os.stat(path).st_mtime_ns))

        def write() -> None:
            status = os.stat(path)
            with open(path, "wb") as file:
                file.write(b"1")
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))

        for act in (touch, write, lambda: self.place("key", b"1")):
            self.publish(store, body=b"0")
            self.sync()
            self.publish(store, body=b"1")
            act()
            # By a process that has not kept anything of the key.
            self.publish(other, body=b"2")
            assert [b"0", b"1"] == sorted(self.kept()["key"]), act
            self.sync()

    def test_what_somebody_else_has_written_is_kept(self) -> None:
        """
        Another program may have synced it, or a process was killed before its sync, and
        the file system wrote it by itself.
        """
        one, other = self.open_stores(2)
        self.publish(one, body=b"1")
        is_written = mock.patch("kvd.store.placing.has_no_place", return_value=False)
        with is_written as is_asked:
            self.publish(other, body=b"2")

        assert 1 == is_asked.call_args.args[1]
        assert {"key": [b"1"]} == self.kept()

    def test_a_value_that_was_synced_first_is_kept(self) -> None:
        """
        The one before it could not be kept, so there is nothing else to go back to.
        """
        one, other = self.open_stores(2)
        self.publish(one, body=b"old")
        self.sync()
        forbidden = mock.patch("os.link", side_effect=OSError(errno.EPERM, "no"))
        with forbidden:
            upload = self.result(one.begin(KEY, 6))
            upload.write(b"synced")
            answer = upload.commit(UNCONDITIONAL)
            assert isinstance(answer, Deferred)
            self.pool.step()
            self.successResultOf(answer)
        self.publish(other, body=b"new")

        assert {"key": [b"synced"]} == self.kept()

    def test_another_file_of_locks_has_other_epochs(self) -> None:
        """
        And when a process turns to another file, those that still have the old one
        open see an epoch begin, in case it comes back.
        """
        one, other = self.open_stores(2)
        lock = os.path.join(self.path, ".kvd", "lock")
        self.publish(one, body=b"0")
        self.sync()
        self.publish(other, body=b"1")
        os.rename(lock, f"{lock}-away")
        self.publish(one, body=b"2")
        assert [b"0", b"1"] == sorted(self.kept()["key"])
        self.publish(other, INNER)
        self.sync()

        self.publish(one, body=b"3")
        os.rename(lock, f"{lock}-away")
        self.publish(one, INNER)
        os.rename(f"{lock}-away", lock)
        self.publish(other, body=b"4")
        assert [b"2", b"3"] == sorted(self.kept()["key"])

    def test_a_file_system_without_fractions_has_no_epochs(self) -> None:
        """
        There, each process keeps the first value that it replaces.
        """
        utime = os.utime

        def coarse(path: int, ns: tuple[int, int]) -> None:
            utime(path, ns=(ns[0] // 10**9 * 10**9, ns[1] // 10**9 * 10**9))

        stores = self.open_stores(2)
        with (
            mock.patch("os.utime", coarse),
            mock.patch("kvd.store.placing.stamp", stamp_in_python),
        ):
            self.publish(stores[0], body=b"0")
            self.sync()
            self.publish(stores[0], body=b"1")
            self.publish(stores[1], body=b"2")
            assert [b"0", b"1"] == sorted(self.kept()["key"])
            self.sync()
        assert {} == self.kept()

    def test_the_file_of_locks_may_be_another_user_s(self) -> None:
        """
        Who may not set its time to any other may set it to the present.
        """
        self.open_store().close()
        lock = os.open(os.path.join(self.path, ".kvd", "lock"), os.O_RDWR)
        self.addCleanup(os.close, lock)
        begun = begin_epoch(lock)
        utime = os.utime

        def forbid(path: int, ns: tuple[int, int] | None = None) -> None:
            if ns is not None:
                raise PermissionError(errno.EPERM, "not the owner")
            utime(path)

        with mock.patch("os.utime", forbid):
            assert begun != begin_epoch(lock)

    def test_numbers(self) -> None:
        """
        An epoch is no whole number of microseconds, and no value belongs to none.
        """
        lock = LockFile(self.folder())
        self.addCleanup(lock.close)
        for _ in range(1000):
            epoch = begin_epoch(lock.descriptor)
            status = os.fstat(lock.descriptor)
            assert 0 < epoch < 10**9
            assert epoch % 1000
            assert epoch == epoch_of(status)
            assert not is_of(0, status)
        os.utime(lock.descriptor, ns=(5000, 5000))
        assert 0 == epoch_of(os.fstat(lock.descriptor))

    def test_a_new_file_of_locks_has_an_epoch(self) -> None:
        """
        Even if the file system, or its clock, knows whole microseconds only.
        """
        make = os.open

        def make_at_a_round_time(*args: Any, **named: Any) -> int:
            descriptor = make(*args, **named)
            if args[0] == "lock":
                os.utime(descriptor, ns=(5000, 5000))
            return descriptor

        with mock.patch("os.open", make_at_a_round_time):
            lock = LockFile(self.folder())
        self.addCleanup(lock.close)

        assert epoch_of(os.fstat(lock.descriptor))


class SharedSyncTests(EpochCase):
    """
    One sync does for all processes that have taken their files before it.
    """

    def test_one_for_all(self) -> None:
        """
        In each period, however many there are.
        """
        stores = self.open_stores(32)
        for times in range(1, 4):
            for store in stores:
                self.publish(store)
            self.pass_seconds(5)
            assert 32 == self.pool.waiting()
            self.pool.finish()
            assert times == len(self.synced)
            assert {} == self.kept()

    def test_at_the_same_moment(self) -> None:
        """
        Whenever each of them was opened.
        """
        for _ in range(7):
            self.publish(self.open_store(off_reactor=self.pool))
            self.clock.advance(0.33)
        assert 0 == self.pool.waiting()
        while not self.pool.waiting():
            self.clock.advance(0.01)
        self.clock.advance(0.01)

        assert 7 == self.pool.waiting()
        self.pool.finish()

    def test_not_one_that_began_earlier(self) -> None:
        """
        It may have missed what was published meanwhile.
        """
        one, other = self.open_stores(2)
        self.publish(one)

        def publish(_: int) -> None:
            self.synced.append(0)
            if len(self.synced) == 1:
                self.publish(other, body=b"late")
                self.pass_seconds(5)

        self.patch_sync(publish)
        self.sync()

        assert 2 == len(self.synced)

    def test_not_one_that_failed(self) -> None:
        """
        Each gets its own error; nor is the next one relied on by those whose
        publications the error may have reached.
        """
        stores = self.open_stores(3)
        errors = iter([OSError(errno.EIO, "broken"), None, None])

        def sync(_: int) -> None:
            self.synced.append(0)
            error = next(errors)
            if error is not None:
                raise error

        self.patch_sync(sync)
        for store in stores:
            self.publish(store)
        with capturedLogs() as events:
            self.sync()

        # The third relies on the second.
        assert 2 == len(self.synced)
        assert 1 == len(events)

    def test_not_that_of_a_process_which_may_have_missed_an_error(self) -> None:
        """
        It was opened after the publication, and an error in between is not reported to
        it.
        """
        one = self.open_store(off_reactor=self.pool)
        self.publish(one)
        self.clock.advance(1.0)
        other = self.open_store(off_reactor=self.pool)
        self.publish(other)
        self.pass_seconds(4)
        # The later one is first.
        self.pool._steps.reverse()
        self.pool.finish()
        assert 2 == len(self.synced)
        self.publish(one)
        self.publish(other)
        self.pass_seconds(5)
        self.pool._steps.reverse()
        self.pool.finish()

        assert 3 == len(self.synced)

    def test_a_process_that_is_stopped_does_not_stop_others(self) -> None:
        """
        Nor does a file system without such locks. Then each syncs by itself.
        """
        stores = self.open_stores(2)
        stopped = os.open(os.path.join(self.path, ".kvd", "lock"), os.O_RDWR)
        self.addCleanup(os.close, stopped)
        fcntl.flock(stopped, fcntl.LOCK_EX)
        broken = mock.patch("fcntl.flock", side_effect=OSError(errno.ENOLCK, "no"))
        hows: tuple[AbstractContextManager[object], ...] = (nullcontext(), broken)
        for times, how in enumerate(hows, 1):
            for store in stores:
                self.publish(store)
            with how:
                self.sync()
            assert 2 * times == len(self.synced)
            assert {} == self.kept()

    def test_in_threads(self) -> None:
        """
        As processes do: they wait for each other, and the others have nothing to do.
        """
        locks = [LockFile(self.folder()) for _ in range(8)]
        shared = [Epochs(lock.descriptor).take(1.0, 0.0) for lock in locks]
        synced: list[int] = []
        failed: list[BaseException] = []

        def run(one: SharedSync) -> None:
            try:
                one.run(lambda: synced.append(0), batched=True)
            except BaseException as error:
                failed.append(error)

        with mock.patch("kvd.store.epochs.HOLD_SECONDS", 60.0):
            threads = [Thread(target=run, args=(one,)) for one in shared]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        for lock in locks:
            lock.close()

        assert [] == failed
        assert [0] == synced

    def test_without_a_note_each_syncs(self) -> None:
        """
        The file of locks may keep no attributes, or somebody else's.
        """
        stores = self.open_stores(2)
        for note in (b"", b"1 2 3", b"x y", b"1 nan"):
            del self.synced[:]
            for store in stores:
                self.publish(store)
            with mock.patch("os.getxattr", fake_note(note)):
                self.sync()
            assert 2 == len(self.synced), note
        del self.synced[:]
        for store in stores:
            self.publish(store)
        with mock.patch("kvd.store.epochs.os.setxattr", side_effect=OSError(95, "no")):
            self.sync()
        assert 2 == len(self.synced)

    def test_without_a_thread_or_a_descriptor_it_is_tried_again(self) -> None:
        """
        And nothing stays open.
        """
        start = mock.Mock()
        store = self.open_store(off_reactor=start)
        self.publish(store, INNER)  # Makes the folder of uploads.
        files = Descriptors(self.path)
        for error, descriptors in (
            (NoThread(), nullcontext()),
            (None, mock.patch("os.dup", side_effect=OSError(errno.EMFILE, "none"))),
        ):
            del self.synced[:]
            self.publish(store)
            start.side_effect = error or execute
            with descriptors, capturedLogs() as events:
                self.pass_seconds(10)
            assert "cannot be started" in events[0]["log_format"]
            assert [] == self.synced
            start.side_effect = execute
            self.pass_seconds(1)
            assert 1 == len(self.synced)
            assert {} == self.kept()
        assert 0 == files.more


@pytest.mark.untraced
class CutTests(EpochCase):
    """
    After a power cut at any moment a key has a value that is no older than the one
    before the first publication that is not synced.
    """

    def test_at_any_moment(self) -> None:
        """
        Whatever several processes do, also during a sync.
        """
        seed = random.randrange(1 << 32)
        print("seed", seed)
        for number in range(30):
            self.choose = random.Random(seed + number)
            self.on_disk: set[int] = set()  # Inodes.
            self.syncs = False
            self.patch_sync(self.write_all)
            count = self.choose.randrange(1, 4)
            self.replacing = Replacing(KEY, self.clock, self.open_one, count)
            for _ in range(12):
                if self.choose.random() < 0.1:
                    self.read()
                self.syncs = True
                self.replacing.do_something(self.choose)
                self.syncs = False
                self.cut()
            self.replacing.close()

    def open_one(self, off_reactor: OffReactor) -> FileStore:
        """
        One of them, with exchanged names or not.
        """
        store = self.open_store(off_reactor=off_reactor)
        store._tree.exchanges = self.choose.random() < 0.5
        return store

    def read(self) -> None:
        """
        Change the access time, as the file system may for a program that reads.
        """
        path = os.path.join(self.path, "key")
        if os.path.exists(path):
            os.utime(path, ns=(time.time_ns(), os.stat(path).st_mtime_ns))

    def write_all(self, _: int) -> None:
        """
        Write everything to the disk; meanwhile the others continue.
        """
        self.replace_meanwhile()
        self.on_disk |= {os.stat(path).st_ino for path in self.files()}
        self.replace_meanwhile()

    def has_no_place(self, descriptor: int, size: int) -> bool:
        return os.fstat(descriptor).st_ino not in self.on_disk

    def replace_meanwhile(self) -> None:
        """
        Replace the value some times.
        """
        if self.syncs:
            for _ in range(self.choose.randrange(3)):
                self.replacing.publish(self.choose.randrange(self.replacing.count))
                self.cut()

    def files(self) -> Iterator[str]:
        """
        All values, kept or not.
        """
        for folder, _, names in os.walk(self.path):
            yield from (
                os.path.join(folder, name)
                for name in names
                if name not in ("attributes", "lock")
            )

    def cut(self) -> None:
        """
        All names are on the disk, but of the files only those that were synced, and
        some others by chance.
        """
        pool = SteppedPool()
        with self.left() as path:
            store = FileStore(path, "disk", self.clock, pool)
            try:
                value = store.open(KEY)
                body = value.read(0, 100)
                value.close()
            except KeyAbsent:
                body = b"0"
            # What this process syncs is another store's.
            with mock.patch("kvd.store.writeback.sync_all"):
                closed = store.close()
                pool.finish()
        assert not isinstance(closed, Deferred) or closed.called
        assert isinstance(body, bytes)
        assert self.replacing.least() <= int(body)

    @contextmanager
    def left(self) -> Iterator[str]:
        """
        A copy of what is left.
        """
        copy = tempfile.mkdtemp(prefix="kvd-test-")
        try:
            for path in self.files():
                other = os.path.join(copy, os.path.relpath(path, self.path))
                os.makedirs(os.path.dirname(other), exist_ok=True)
                shutil.copy2(path, other)
                status = os.stat(path)
                if status.st_ino not in self.on_disk and self.choose.random() < 0.8:
                    os.truncate(other, 0)
                    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
            yield copy
        finally:
            shutil.rmtree(copy)
