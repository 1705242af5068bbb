"""
The tests of `kvd.store.sync`.
"""

import errno
import os
from collections.abc import Iterable
from contextlib import ExitStack
from itertools import product
from unittest import mock

import pytest
from twisted.internet.defer import Deferred

from kvd.errors import NoThread, StoreExhausted, SyncFailed
from kvd.store.sync import (
    Syncs,
    share,
    sync,
    sync_folders,
    sync_folders_in_python,
    sync_in_python,
)
from tests.store.cases import FolderCase, few_descriptors, syncing_in_python
from tests.store.stepped import SteppedPool


class SyncsTests(FolderCase):
    """
    Folders are synced in batches.
    """

    def setUp(self) -> None:
        super().setUp()
        os.makedirs(os.path.join(self.path, "a/b"))
        os.makedirs(os.path.join(self.path, "c"))
        self.root = self.folder()
        self.pool = SteppedPool()
        self.syncs = Syncs(self.root, self.pool)
        self.synced: list[str] = []
        self.broken: set[str] = set()
        replaced = ExitStack()
        replaced.enter_context(syncing_in_python())
        replaced.enter_context(mock.patch("os.fsync", self.fsync))
        self.addCleanup(replaced.close)

    def fsync(self, descriptor: int) -> None:
        """
        Note which folder is synced.
        """
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        name = os.path.relpath(path.removesuffix(" (deleted)"), self.path)
        self.synced.append(name)
        if name in self.broken:
            raise OSError(errno.EIO, "broken")

    def sync(self, *path: bytes) -> Deferred[None]:
        """
        Sync the folders of a path.
        """
        return Deferred.fromCoroutine(self.syncs.folders(path))

    def test_all_folders_of_a_path_are_synced(self) -> None:
        """
        From the root to the last; immediately if no other sync is active.
        """
        done = self.sync(b"a", b"b")
        self.assertNoResult(done)
        self.pool.step()

        self.successResultOf(done)
        assert [".", "a", "a/b"] == self.synced

    def test_paths_that_arrive_meanwhile_are_in_the_next_batch(self) -> None:
        """
        While one batch is active the others wait, and are then synced together, each
        folder once.
        """
        first = self.sync(b"a")
        later = [self.sync(b"a", b"b"), self.sync(b"a"), self.sync(b"c"), self.sync()]
        assert 1 == self.pool.waiting()
        self.pool.step()
        self.successResultOf(first)
        for done in later:
            self.assertNoResult(done)
        self.synced.clear()
        self.pool.finish()

        for done in later:
            self.successResultOf(done)
        assert [".", "a", "a/b", "c"] == sorted(self.synced)

    def test_paths_that_are_asked_together_share_a_batch(self) -> None:
        """
        Each has its own answer.
        """
        self.broken = {"c"}
        one, other, root = self.syncs.folders_of([(b"a", b"b"), (b"c",), ()])
        assert 2 == self.pool.waiting()
        self.pool.finish()

        self.successResultOf(one)
        self.failureResultOf(other, SyncFailed)
        self.successResultOf(root)
        assert [".", "a", "a/b", "c"] == sorted(self.synced)
        assert [] == self.syncs.folders_of([])

    def test_paths_of_a_batch_do_not_wait_for_each_other(self) -> None:
        """
        Each path has a thread of its own, equal paths share one; the next batch waits
        for all of them.
        """
        self.sync()
        batch = [self.sync(b"a", b"b"), self.sync(b"c"), self.sync(b"c")]
        self.pool.step()
        assert 2 == self.pool.waiting()
        self.pool.step()
        self.sync()
        assert 1 == self.pool.waiting()
        for done in batch:
            self.assertNoResult(done)
        self.pool.step()

        for done in batch:
            self.successResultOf(done)
        assert 1 == self.pool.waiting()

    def test_files_do_not_wait(self) -> None:
        """
        The sync of a file begins immediately, whatever else is active, and only its own
        upload gets its error.
        """
        self.sync(b"a")
        places = [self.folder("a"), self.folder("a/b"), self.folder("c")]
        done = [Deferred.fromCoroutine(self.syncs.file(place)) for place in places]
        assert 4 == self.pool.waiting()
        self.broken.add("a/b")
        self.pool.finish()

        self.failureResultOf(done[1], SyncFailed)
        self.successResultOf(done[0])
        self.successResultOf(done[2])

    def test_failure_hits_those_on_its_path(self) -> None:
        """
        Commits that need a folder whose sync failed fail, and others do not. Commits
        that already wait for the folder fail too, since the next sync would not report
        what this one lost.
        """
        hit, spared = self.sync(b"a", b"b"), self.sync(b"c")
        self.pool.step()
        self.successResultOf(hit)
        waiting, next_one = self.sync(b"a"), self.sync(b"c")
        self.broken.add("a")
        self.pool.step()
        self.successResultOf(spared)
        self.assertNoResult(next_one)
        self.pool.finish()

        failure = self.failureResultOf(waiting, SyncFailed)
        assert "cannot be synced: Input/output error." in failure.value.sentence
        self.successResultOf(next_one)

    def test_commits_that_wait_during_a_failure_fail_too(self) -> None:
        """
        Changes made during a failed sync may be lost with it.
        """
        self.broken.add(".")
        first, second = self.sync(b"a"), self.sync()
        self.pool.step()

        self.failureResultOf(first, SyncFailed)
        self.failureResultOf(second, SyncFailed)
        assert 0 == self.pool.waiting()

    def paths(self, *paths: Iterable[bytes]) -> list[str]:
        """
        Sync paths now, and return the names of those that failed.
        """
        failed: dict[str, None] = {}
        for path, first in share(tuple(path) for path in paths):
            found = sync_folders_in_python(self.root, b"/".join(path), first)
            if found is not None:
                failed[b"/".join(path[: found[0]]).decode()] = None
        return list(failed)

    def test_pruned_folder_is_synced_by_the_one_around_it(self) -> None:
        """
        A removed folder cannot be synced, but its removal can.
        """
        assert [] == self.paths([b"a", b"gone", b"x"])
        assert [".", "a", "a"] == self.synced

        self.broken.add("a")
        assert ["a"] == self.paths([b"a"], [b"a", b"gone"])

    def test_a_file_system_that_ended_is_noticed(self) -> None:
        """
        Some file systems then report success for fsync (XFS for folders; f2fs when it
        became read-only); other calls show the error.
        """
        ended = OSError(errno.EIO, "ended")
        with mock.patch("os.fstat", side_effect=ended):
            assert [""] == self.paths([])
            done = Deferred.fromCoroutine(self.syncs.file(self.root))
            self.pool.finish()
            self.failureResultOf(done, SyncFailed)
        with mock.patch("os.fstatvfs", return_value=mock.Mock(f_flag=os.ST_RDONLY)):
            assert [""] == self.paths([])

    def test_lack_of_descriptors_is_no_failed_sync(self) -> None:
        """
        The disk was not asked: another attempt may succeed.
        """
        done = self.sync(b"a")
        with mock.patch("os.dup", side_effect=OSError(errno.EMFILE, "too many")):
            self.pool.finish()
        self.failureResultOf(done, StoreExhausted)
        again = self.sync(b"a")
        self.pool.finish()
        self.successResultOf(again)

    def test_lack_of_threads_is_no_failed_sync(self) -> None:
        """
        The reactor does not sync, and the next batch tries again.
        """
        without = mock.Mock(side_effect=NoThread)
        syncs = Syncs(self.root, without)
        for _ in range(2):
            done = Deferred.fromCoroutine(syncs.folders([b"a"]))
            self.failureResultOf(done, StoreExhausted)
        failed = Deferred.fromCoroutine(syncs.file(self.root))
        self.failureResultOf(failed, StoreExhausted)
        assert [] == self.synced

        without.side_effect = self.pool
        done = Deferred.fromCoroutine(syncs.folders([b"a"]))
        self.pool.finish()
        self.successResultOf(done)

    def test_a_mistake_fails_its_batch_only(self) -> None:
        """
        Nobody waits for ever, and the next batch begins.
        """
        syncs = Syncs(self.root, self.pool)
        with mock.patch("kvd.store.sync.sync_folders", side_effect=MemoryError):
            done = [
                Deferred.fromCoroutine(syncs.folders([name])) for name in (b"a", b"b")
            ]
            self.pool.finish()
        for each in done:
            self.failureResultOf(each, SyncFailed)
        assert self.flushLoggedErrors(MemoryError)
        again = Deferred.fromCoroutine(syncs.folders([b"a"]))
        self.pool.finish()
        self.successResultOf(again)

    def test_failing_to_reach_a_folder_fails(self) -> None:
        """
        A folder that cannot be opened cannot be synced.
        """
        broken = OSError(errno.EMFILE, "too many")
        with mock.patch("os.open", side_effect=broken):
            assert ["a"] == self.paths([b"a"])
        with mock.patch("os.dup", side_effect=broken):
            assert [""] == self.paths([b"a"])

    def test_folders_are_shared_out(self) -> None:
        """
        Each is synced for one path only, and a path that has none left for none.
        """
        a, ab, c = (b"a",), (b"a", b"b"), (b"c",)

        assert [(a, 0), (ab, 2), (c, 1)] == list(share([a, ab, a, c, ()]))
        assert [(ab, 0), (c, 1)] == list(share([ab, a, (), c, ab]))


class BothTests(FolderCase):
    """
    What is compiled does the same as Python.
    """

    def test_any_path(self) -> None:
        """
        From any depth on, whether or not all of it is there, or is a folder, and
        whatever number of descriptors is left.
        """
        os.makedirs(os.path.join(self.path, "a/b"))
        self.place("file")
        os.symlink("a", os.path.join(self.path, "link"))
        root = self.folder()
        for path in (b"", b"a", b"a/b", b"a/b/gone/x", b"gone", b"file", b"link/b"):
            for first, free in product(range(4), range(4)):
                outcomes = []
                for one in (sync_folders_in_python, sync_folders):
                    with few_descriptors(free):
                        outcomes.append(one(root, path, first))
                assert outcomes[0] == outcomes[1], (path, first, free)
                assert None is outcomes[0] or free < 3

    def test_a_descriptor(self) -> None:
        """
        Of a file or a folder; of another one, both fail.
        """
        for one in (sync_in_python, sync):
            one(self.folder())
            with pytest.raises(OSError, match="Bad file descriptor"):
                one(1 << 20)
