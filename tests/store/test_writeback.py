"""
The tests of `kvd.store.writeback`.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import nullcontext
from unittest import mock

from twisted.internet.defer import CancelledError, Deferred, execute
from twisted.logger import capturedLogs

from kvd.errors import NoThread, StoreFault, StoreFull, SyncFailed
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.model.values import Published
from kvd.store.file import FileStore
from kvd.store.placing import is_scarce
from kvd.store.uploads import key_of
from kvd.store.writeback import MAX_KEPT
from kvd.testing import StoreContract
from tests.store.cases import KEY, MANY_VALUES, FileStoreCase, placing_in_python
from tests.store.stepped import SteppedPool

INNER = Key(b"a/b.c/d")


class KeepingContractTests(StoreContract, FileStoreCase):
    """
    `FileStore` meets the contract while it keeps replaced values.
    """

    keeps = True
    many_values = MANY_VALUES


class ExchangingContractTests(StoreContract, FileStoreCase):
    """
    The same where names are exchanged.
    """

    keeps = True
    exchanges = True
    many_values = MANY_VALUES


class WritebackCase(FileStoreCase):
    """
    A test case with a store that keeps replaced values, whose syncs are noted.
    """

    keeps = True

    def setUp(self) -> None:
        super().setUp()
        self.synced: list[int] = []
        self.patch_sync(lambda folder: self.synced.append(len(self.kept())))

    def patch_sync(self, sync: object) -> None:
        """
        Replace the sync by something else.
        """
        patched = mock.patch("kvd.store.writeback.sync_all", sync)
        patched.start()
        self.addCleanup(patched.stop)

    def kept(self) -> dict[str, list[bytes]]:
        """
        The kept values by their keys, from all upload folders.
        """
        kept: dict[str, list[bytes]] = {}
        for folder, _, names in os.walk(os.path.join(self.path, ".kvd")):
            for name in names:
                key = key_of(os.fsencode(name))
                if key is not None:
                    with open(os.path.join(folder, name), "rb") as file:
                        kept.setdefault(key.decode(), []).append(file.read())
        return kept

    def pass_seconds(self, seconds: int) -> None:
        """
        Let seconds pass, one after the other.
        """
        self.clock.pump([1.0] * seconds)


class KeptTests(WritebackCase):
    """
    A replaced value is kept until its replacement is on the disk.
    """

    def test_until_the_sync(self) -> None:
        """
        Within five seconds everything is synced; then the kept values are removed, and
        there is no further sync until something changes.
        """
        store = self.open_store()
        self.publish(store, INNER, b"old")
        self.pass_seconds(5)
        assert [0] == self.synced
        self.publish(store, INNER, b"new")
        assert {"a/b.c/d": [b"old"]} == self.kept()
        self.pass_seconds(5)
        assert [0, 1] == self.synced
        assert {} == self.kept()
        self.pass_seconds(60)

        assert [0, 1] == self.synced
        assert b"new" == self.get(store, INNER)

    def test_the_first_one_only(self) -> None:
        """
        Values between two syncs were never on the disk.
        """
        store = self.open_store()
        for body in (b"1", b"2", b"3"):
            self.publish(store, body=body)
        assert {"key": [b"1"]} == self.kept()
        self.pass_seconds(5)
        self.publish(store, body=b"4")

        assert {"key": [b"3"]} == self.kept()

    def test_everything_that_changes_is_synced(self) -> None:
        """
        New values and removals too; reading causes no sync.
        """
        store = self.open_store()
        self.publish(store)
        self.pass_seconds(5)
        assert 1 == len(self.synced)
        store.remove(KEY, UNCONDITIONAL)
        self.pass_seconds(5)
        assert 2 == len(self.synced)
        self.error(Exception, lambda: store.remove(KEY, UNCONDITIONAL))
        self.result(store.begin(KEY, None)).discard()
        self.pass_seconds(60)

        assert 2 == len(self.synced)

    def test_what_is_published_during_a_sync_is_for_the_next(self) -> None:
        """
        It may have been too late for this one. Only one sync is active at a time.
        """
        pool = SteppedPool()
        store = self.open_store(off_reactor=pool)
        self.publish(store, body=b"1")
        self.publish(store, body=b"2")
        self.pass_seconds(5)
        assert 1 == pool.waiting()
        self.publish(store, body=b"3")
        self.pass_seconds(60)
        assert 1 == pool.waiting()
        assert [b"1", b"2"] == sorted(self.kept()["key"])
        pool.step()
        assert {"key": [b"2"]} == self.kept()
        self.pass_seconds(5)
        pool.step()

        assert {} == self.kept()
        assert 0 == pool.waiting()

    def test_many_are_synced_earlier(self) -> None:
        """
        Kept values take room.
        """
        store = self.open_store()
        self.publish(store)
        kept = store.fast_path_state.kept
        assert kept is not None
        kept.update((Key(b"%d" % number), b"gone") for number in range(MAX_KEPT))
        self.pass_seconds(1)

        assert 1 == len(self.synced)

    def test_a_value_waits_for_the_room_that_is_kept(self) -> None:
        """
        If there is no room for a length or an inode, the value is refused only if there
        is none after a sync either.
        """
        pool = SteppedPool()
        store = self.open_store(off_reactor=pool)
        full = OSError(errno.ENOSPC, "full")
        for shortage in (
            mock.patch("kvd.store.uploads.UploadFolder.create", side_effect=full),
            mock.patch("kvd.store.file.FileStore._expect_space", side_effect=full),
        ):
            self.publish(store, INNER, b"1")
            self.publish(store, INNER, b"2")
            with shortage:
                room = store.begin(KEY, 3)
                none = store.begin(KEY, 3)
                assert isinstance(room, Deferred)
                assert isinstance(none, Deferred)
                assert 1 == pool.waiting()
            pool.step()
            assert {} == self.kept()
            self.successResultOf(room).discard()
            self.successResultOf(none).discard()

            self.publish(store, INNER, b"4")
            with shortage:
                left = store.begin(KEY, 3)
                assert isinstance(left, Deferred)
            left.cancel()
            self.failureResultOf(left, CancelledError)
            pool.step()
            assert [] == self.debris()

            self.publish(store, INNER, b"3")
            with shortage:
                none = store.begin(KEY, 3)
                assert isinstance(none, Deferred)
                pool.step()
                self.failureResultOf(none, StoreFull)
                # Nothing is kept: nothing is waited for.
                self.error(StoreFull, lambda: store.begin(KEY, 3))
            assert 0 == pool.waiting()
            assert {} == self.kept()

    def test_room_is_waited_for_twice_at_most(self) -> None:
        """
        Values that are replaced during a sync are kept for the next one.
        """
        pool = SteppedPool()
        store = self.open_store(off_reactor=pool)
        self.publish(store, INNER)
        self.publish(store, INNER)
        self.pass_seconds(5)
        with mock.patch(
            "kvd.store.file.FileStore._expect_space",
            side_effect=OSError(errno.ENOSPC, "full"),
        ):
            answer = store.begin(KEY, 3)
        assert isinstance(answer, Deferred)
        self.publish(store, INNER)
        with mock.patch(
            "kvd.store.uploads.UploadFolder.create",
            side_effect=OSError(errno.ENOSPC, "full"),
        ):
            pool.step()
            self.assertNoResult(answer)
            pool.step()
            self.failureResultOf(answer, StoreFull)
        assert 0 == pool.waiting()

    def test_a_disk_that_becomes_full_is_synced_earlier(self) -> None:
        """
        The next attempt may find the room of the kept values.
        """
        store = self.open_store()
        self.publish(store)
        self.publish(store)
        upload = self.result(store.begin(INNER, None))
        with mock.patch("os.write", side_effect=OSError(errno.ENOSPC, "full")):
            self.error(StoreFull, lambda: upload.write(b"v"))
        upload.discard()
        self.pass_seconds(1)

        assert {} == self.kept()

    def test_closing_syncs(self) -> None:
        """
        Afterwards nothing is left to sync, and nothing is kept.
        """
        store = self.open_store()
        self.publish(store)
        self.publish(store)
        self.result(store.close())

        assert [1] == self.synced
        assert ["attributes", "lock"] == sorted(
            os.listdir(os.path.join(self.path, ".kvd"))
        )

    def test_closing_waits_for_a_sync(self) -> None:
        """
        And syncs what changed during it.
        """
        pool = SteppedPool()
        store = self.open_store(off_reactor=pool)
        self.publish(store)
        self.pass_seconds(5)
        self.publish(store)
        closed = store.close()
        assert isinstance(closed, Deferred)
        self.assertNoResult(closed)
        pool.step()
        self.assertNoResult(closed)
        pool.step()

        self.successResultOf(closed)
        assert ["attributes", "lock"] == sorted(
            os.listdir(os.path.join(self.path, ".kvd"))
        )

    def test_a_publication_that_fails_keeps_nothing(self) -> None:
        """
        The old value stays.
        """
        store = self.open_store()
        self.publish(store, body=b"old")
        change = "kvd.store.placing.exchange_names" if self.exchanges else "os.rename"
        broken = mock.patch(change, side_effect=OSError(errno.EIO, "broken"))
        with placing_in_python(), broken:
            self.error(StoreFault, lambda: self.publish(store, body=b"new"))

        assert {} == self.kept()
        assert b"old" == self.get(store)

    def test_what_cannot_be_kept_is_replaced_by_what_is_synced(self) -> None:
        """
        A key may be too long for a file name, the file system or the owner may not
        permit a link, or there may be too many: then the new value is synced before it
        is published, each time. Only its own client waits for that.
        """
        pool = SteppedPool()
        store = self.open_store(off_reactor=pool)
        long = Key(b"long/" * 60 + b"key")
        forbidden = mock.patch("os.link", side_effect=OSError(errno.EPERM, "no"))
        many = mock.patch("kvd.store.tree.MOST_KEPT", 1)
        for key, how in ((long, nullcontext()), (KEY, forbidden), (INNER, many)):
            self.publish(store, key, b"old")
            for body in (b"new", b"newer"):
                with (
                    placing_in_python(),
                    mock.patch("kvd.store.sync.sync") as sync,
                    how,
                ):
                    answer = self.begin_to_publish(store, key, body)
                    assert 0 == sync.call_count
                    assert body != self.get(store, key)
                    pool.step()
                    assert 1 == sync.call_count
                assert not self.successResultOf(answer).created
                assert body == self.get(store, key)
            broken = mock.patch("kvd.store.sync.sync", side_effect=OSError(5, "broken"))
            with placing_in_python(), broken, how:
                answer = self.begin_to_publish(store, key, b"newest")
                pool.step()
                self.failureResultOf(answer, SyncFailed)
            assert b"newer" == self.get(store, key)
            assert [] == self.debris()
        assert {} == self.kept()

    def test_what_would_take_most_of_the_room_is_not_kept(self) -> None:
        """
        Nothing is kept if there is little room; values kept by other processes take
        some too.
        """
        unit, blocks = 4096, 1600
        for free, size, scarce in (
            (100, 1, False),
            (99, 1, True),
            (100, 25 * unit, False),
            (100, 25 * unit + 1, True),
        ):
            assert scarce is is_scarce(size, free * unit, blocks * unit), (free, size)
        # Of a large disk, a gigabyte is enough.
        assert not is_scarce(1, unit << 18, unit << 30)

        pool = SteppedPool()
        store = self.open_store(off_reactor=pool)
        self.publish(store, body=b"old")
        with (
            placing_in_python(),
            mock.patch("kvd.store.placing.is_scarce", return_value=True) as is_asked,
        ):
            answer = self.begin_to_publish(store, KEY, b"new")
            pool.step()
        assert not self.successResultOf(answer).created
        assert 3 == is_asked.call_args.args[0]
        assert {} == self.kept()
        assert b"new" == self.get(store)

    def test_the_same_after_a_wait_for_a_lock(self) -> None:
        """
        Another process held the lock; a replacement that was synced needs no kept
        value, whatever happened meanwhile.
        """
        pool = SteppedPool()
        store = self.open_store(off_reactor=pool)
        self.publish(store, body=b"old")
        forbidden = mock.patch("os.link", side_effect=OSError(errno.EPERM, "no"))
        with placing_in_python(), forbidden:
            answer = self.while_locked(
                KEY, lambda: self.begin_to_publish(store, KEY, b"new")
            )
            self.clock.advance(0.001)
            assert b"old" == self.get(store)
            pool.step()

        assert not self.successResultOf(answer).created
        assert b"new" == self.get(store)
        assert [] == self.debris()

    def begin_to_publish(
        self, store: FileStore, key: Key, body: bytes
    ) -> Deferred[Published]:
        """
        Begin to store a value that is not stored yet when this returns.
        """
        upload = self.result(store.begin(key, len(body)))
        upload.write(body)
        answer = upload.commit(UNCONDITIONAL)
        assert isinstance(answer, Deferred)
        return answer

    def test_a_failed_sync_is_logged(self) -> None:
        """
        Kept values stay: the next process that opens the store may need them.
        """
        self.patch_sync(mock.Mock(side_effect=OSError(errno.EIO, "broken")))
        store = self.open_store()
        self.publish(store)
        self.publish(store)
        with capturedLogs() as events:
            self.pass_seconds(5)

        (event,) = events
        assert "error" == event["log_level"].name
        assert "may lose them" in event["log_format"]
        assert {"key": [b"v"]} == self.kept()

    def test_what_stays_after_a_failed_sync_outlives_the_process(self) -> None:
        """
        However it ends. The next process removes it after a successful sync.
        """
        sync = mock.Mock(side_effect=OSError(errno.EIO, "broken"))
        self.patch_sync(sync)
        store = self.open_store()
        self.publish(store)
        self.publish(store, body=b"new")
        self.result(store.close())
        assert {"key": [b"v"]} == self.kept()
        sync.side_effect = None
        store = self.open_store()
        assert {"key": [b"v"]} == self.kept()
        self.pass_seconds(5)

        assert {} == self.kept()
        assert b"new" == self.get(store)

    def test_a_disk_that_fails_for_long_is_not_filled(self) -> None:
        """
        The number of files that stay is bounded.
        """
        self.patch_sync(mock.Mock(side_effect=OSError(errno.EIO, "broken")))
        store = self.open_store()
        with mock.patch("kvd.store.writeback.MAX_KEPT", 2):
            for body in (b"1", b"2", b"3", b"4", b"5"):
                self.publish(store, body=body)
                self.pass_seconds(5)

        assert [b"1", b"2"] == sorted(self.kept()["key"])

    def test_without_a_thread_it_is_tried_again(self) -> None:
        """
        The process may have no free thread at the moment.
        """
        pool = mock.Mock(side_effect=NoThread())
        store = self.open_store(off_reactor=pool)
        self.publish(store)
        self.publish(store)
        with capturedLogs() as events:
            self.pass_seconds(5)
        assert "a sync cannot be started" in events[0]["log_format"]
        assert {"key": [b"v"]} == self.kept()
        self.result(store.close())
        assert {"key": [b"v"]} == self.kept()
        pool.side_effect = None
        store = self.open_store(off_reactor=pool)
        self.publish(store, INNER)
        pool.side_effect = NoThread()
        self.pass_seconds(5)
        pool.side_effect = execute
        self.pass_seconds(1)

        assert {} == self.kept()
        assert [1] == self.synced

    def test_at_durability_disk_nothing_is_kept(self) -> None:
        """
        The new value is on the disk before it gets its name.
        """
        store = self.open_store("disk")
        self.put(store)
        self.put(store)
        self.pass_seconds(60)

        assert {} == self.kept()
        assert [] == self.synced


class ExchangingKeptTests(KeptTests):
    """
    The same where names are exchanged.
    """

    exchanges = True


class LeftTests(WritebackCase):
    """
    Values kept by a process that was killed.
    """

    def setUp(self) -> None:
        super().setUp()
        # Holes are what any file system has; `tests.integration.store_power_cuts` has
        # the true ones.
        patched = mock.patch(
            "kvd.store.value.has_unwritten_parts",
            lambda descriptor, status: (
                os.lseek(descriptor, 0, os.SEEK_HOLE) < status.st_size
            ),
        )
        patched.start()
        self.addCleanup(patched.stop)

    def leave(self, key: Key, body: bytes, name: bytes) -> str:
        """
        Leave a kept value of another process for a key; return its path.
        """
        self.write(key, body)
        path = os.path.join(self.path, ".kvd", "4711-dead", os.fsdecode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.rename(os.path.join(self.path, key.decode()), path)
        return path

    def write(self, key: Key, body: bytes) -> None:
        """
        Store a value, and touch nothing that was left.
        """
        with mock.patch("kvd.store.file.sweep", return_value=[]):
            store = self.open_store("disk")
        self.put(store, key, body)
        store.close()

    def tear(self, path: str, size: int) -> None:
        """
        Tear a file as a power cut does: none of its content is written.
        """
        status = os.stat(path)
        os.truncate(path, 0)
        os.truncate(path, size)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    def open_again(self, key: Key, torn_to: int | None) -> FileStore:
        """
        Open the store, in which the key has a new value that may be torn.
        """
        self.write(key, b"newer")
        if torn_to is not None:
            self.tear(os.path.join(self.path, key.decode()), torn_to)
        return self.open_store()

    def test_a_torn_value_is_replaced_by_it(self) -> None:
        """
        Whether it is too short, or has its length but no content; this is logged.
        """
        for size in (0, 5):
            self.leave(INNER, b"older", b"k0.a\x1fb.c\x1fd")
            with capturedLogs() as events:
                store = self.open_again(INNER, size)
            assert b"older" == self.get(store, INNER)
            assert "older value again" in events[-1]["log_format"]
            assert {} == self.kept()
            self.pass_seconds(5)
            assert ["attributes", "lock"] == sorted(
                os.listdir(os.path.join(self.path, ".kvd"))
            )
            store.close()

    def test_a_whole_value_stays(self) -> None:
        """
        The kept value is removed, but only after a sync: the process may have been
        killed, and the machine may crash next.
        """
        self.leave(INNER, b"older", b"k0.a\x1fb.c\x1fd")
        store = self.open_again(INNER, None)
        assert b"newer" == self.get(store, INNER)
        assert {"a/b.c/d": [b"older"]} == self.kept()
        self.pass_seconds(5)

        assert {} == self.kept()
        assert [1] == self.synced

    def test_an_absent_value_stays_absent(self) -> None:
        """
        It was removed since.
        """
        self.leave(INNER, b"older", b"k0.a\x1fb.c\x1fd")
        store = self.open_store()

        assert [] == self.keys(store)

    def test_what_others_have_put_there_stays(self) -> None:
        """
        It is not kvd's, however short it is.
        """
        self.leave(KEY, b"older", b"k0.key")
        self.place("key", b"")
        store = self.open_store()

        assert b"" == self.get(store)

    def test_the_last_one_that_is_whole(self) -> None:
        """
        Several processes may have kept a value of a key.
        """
        self.leave(KEY, b"oldest", b"k0.key")
        self.leave(KEY, b"older", b"k1.key")
        torn = self.leave(KEY, b"torn too", b"c2.key")
        self.tear(torn, 8)
        store = self.open_again(KEY, 0)

        assert b"older" == self.get(store)

    def test_an_upload_that_was_not_finished_is_no_value(self) -> None:
        """
        The fast path writes an upload under the name for the value that it will keep:
        it has no attribute yet, but is not a foreign file.
        """
        self.write(KEY, b"newer")
        self.tear(os.path.join(self.path, "key"), 0)
        self.place(".kvd/4711-dead/c7.key", b"unfini")
        store = self.open_store()

        assert [] == self.keys(store)
        assert ["key"] == self.found()

    def test_a_foreign_file_is_kept_as_well(self) -> None:
        """
        The request handler replaces it and keeps it, though it has no attribute.
        """
        self.write(KEY, b"newer")
        self.tear(os.path.join(self.path, "key"), 0)
        self.place(".kvd/4711-dead/k7.key", b"by others")
        store = self.open_store()

        assert b"by others" == self.get(store)

    def test_the_last_one_of_all_processes(self) -> None:
        """
        In whatever order the folders are found.
        """
        for number, body in enumerate((b"oldest", b"older", b"old", b"elder")):
            path = self.leave(KEY, body, b"k%d.key" % number)
            folder = os.path.join(self.path, ".kvd", f"{number}-dead")
            os.mkdir(folder)
            os.utime(path, ns=(0, os.stat(path).st_mtime_ns))
            os.rename(path, os.path.join(folder, os.path.basename(path)))
        store = self.open_again(KEY, 0)

        assert b"elder" == self.get(store)

    def test_what_is_neither_value_nor_file_stays(self) -> None:
        """
        For example a FIFO at the path of the value.
        """
        self.leave(KEY, b"older", b"k0.key")
        os.mkfifo(os.path.join(self.path, "key"))
        self.open_store()

        assert stat.S_ISFIFO(os.stat(os.path.join(self.path, "key")).st_mode)

    def test_a_probe_leaves_it_to_workers(self) -> None:
        """
        It restores values, but waits for no sync.
        """
        self.leave(KEY, b"older", b"k0.key")
        self.write(KEY, b"newer")
        with mock.patch("kvd.store.file.is_on_a_disk", return_value=True):
            FileStore(
                self.path, "process", self.clock, SteppedPool(), writes_back=False
            ).close()

        assert [] == self.synced
        assert {"key": [b"older"]} == self.kept()

    def test_names_that_lead_elsewhere_are_no_keys(self) -> None:
        """
        Another program may have made them. They are removed with everything else.
        """
        for name in (
            "k0...\x1fx",
            "k1..kvd\x1flock",
            "k2.a\x1f\x1fb",
            "k3.",
            "c4..",
            "5",
        ):
            self.place(f".kvd/4711-dead/{name}")
        store = self.open_store()

        assert [] == self.keys(store)
        assert ["attributes", "lock"] == sorted(
            os.listdir(os.path.join(self.path, ".kvd"))
        )

    def test_a_locked_key_is_logged(self) -> None:
        """
        By a process that does not release it; kvd starts all the same.
        """
        self.leave(KEY, b"older", b"k0.key")
        with mock.patch("time.sleep"), capturedLogs() as events:
            self.while_locked(KEY, self.open_store)

        assert "/{key} is locked by another process" == events[0]["log_format"]
