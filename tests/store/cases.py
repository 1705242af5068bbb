"""
A folder for each test, and file stores in it.
"""

import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final, TypeVar
from unittest import mock

from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kvd.interfaces import IStore
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.model.values import Published
from kvd.settings import Durability
from kvd.store import listing
from kvd.store.conferring import make_folder_in_python
from kvd.store.contract.asking import Asking
from kvd.store.file import FileStore
from kvd.store.folders import open_nearest_by_names, open_path_by_names
from kvd.store.locks import KeyLocks, LockFile
from kvd.store.placing import place_in_python, seal_in_python
from kvd.store.sidecars import path_of
from kvd.store.sync import sync_folders_in_python, sync_in_python
from kvd.store.uploads import key_of
from kvd.store.waiting import OffReactor, Underway

T = TypeVar("T")

KEY = Key(b"key")

SLICE_VALUES = 16
"""
A slice of a listing in these tests. It has more else, and each value is a file or two.
"""

MANY_VALUES = SLICE_VALUES + 8
"""
A slice and a part of the next one: tests learn no more from more.
"""


@contextmanager
def opening_by_names() -> Iterator[None]:
    """
    A context in which folders are opened and made by Python, whose calls a test can
    replace, even if kvd was installed with a C compiler.
    """
    with (
        mock.patch("kvd.store.folders.open_path", open_path_by_names),
        mock.patch("kvd.store.tree.open_nearest", open_nearest_by_names),
    ):
        yield


@contextmanager
def making_in_python() -> Iterator[None]:
    """
    A context in which Python makes folders, other than those of keys
    (`opening_by_names`), whose calls a test can replace.
    """
    with ExitStack() as patched:
        for user in ("hidden", "keeping", "preparing", "resuming", "uploads"):
            patched.enter_context(
                mock.patch(f"kvd.store.{user}.make_folder", make_folder_in_python)
            )
        yield


@contextmanager
def placing_in_python() -> Iterator[None]:
    """
    A context in which Python seals and publishes, whose calls a test can replace; see
    `opening_by_names`.
    """
    with (
        mock.patch("kvd.store.tree.place", place_in_python),
        mock.patch("kvd.store.upload.seal_file", seal_in_python),
    ):
        yield


@contextmanager
def syncing_in_python() -> Iterator[None]:
    """
    A context in which Python syncs, whose calls a test can replace; see
    `opening_by_names`.
    """
    with (
        mock.patch("kvd.store.preparing.sync", sync_in_python),
        mock.patch("kvd.store.sync.sync", sync_in_python),
        mock.patch("kvd.store.sync.sync_folders", sync_folders_in_python),
    ):
        yield


@contextmanager
def few_descriptors(free: int) -> Iterator[None]:
    """
    Permit only this many more descriptors.
    """
    _, hard = limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(map(int, os.listdir("/proc/self/fd"))) + 10
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        with ExitStack() as opened:
            taken = []
            while True:
                try:
                    taken.append(opened.enter_context(open(os.devnull)))
                except OSError:
                    break
            for file in taken[:free]:
                file.close()
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


DISK: Final = "/var/tmp"
"""
A folder on a disk, which that for temporary files may not be.
"""


class FolderCase(SynchronousTestCase):
    """
    A test case with a folder.
    """

    needs_disk = False

    def setUp(self) -> None:
        within = DISK if self.needs_disk else None
        self.path = tempfile.mkdtemp(prefix="kvd-test-", dir=within)
        self.addCleanup(shutil.rmtree, self.path)

    def folder(self, *names: str) -> int:
        """
        Open the folder, or one below it, until the test ends.
        """
        descriptor = os.open(os.path.join(self.path, *names), os.O_RDONLY)
        self.addCleanup(os.close, descriptor)
        return descriptor

    def place(self, name: str | bytes, body: bytes = b"placed by others") -> None:
        """
        Write a file there, as another program could.
        """
        path = os.path.join(os.fsencode(self.path), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(body)

    def found(self) -> list[str]:
        """
        All files and empty folders there, except kvd's own.
        """
        found = []
        for folder, folders, files in os.walk(self.path):
            if folder == self.path and ".kvd" in folders:
                folders.remove(".kvd")
            if files or (not folders and folder != self.path):
                found += [os.path.join(folder, name) for name in files or [""]]
        return sorted(os.path.relpath(path, self.path) for path in found)


class FileStoreCase(Asking, FolderCase):
    """
    A test case with file stores in its folder.
    """

    has_descriptors = True

    durability: Durability = "process"

    exchanges = False
    """Whether the file system is one in which names are exchanged."""

    keeps = False
    """Whether it is one on a disk, so that what is replaced is kept for a while."""

    has_epochs = False
    """Whether it is one of a single machine, whose processes share their syncs."""

    keeps_attributes = True
    """Whether the file system keeps extended attributes."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(listing, "SLICE_VALUES", SLICE_VALUES)
        self.clock = Clock()

    def freeze(self) -> None:
        """
        Date all values of this test in the same second: one that is published in
        another second than it was sealed in is sealed, and synced, once more.
        """
        now = time.time_ns()
        self.patch(time, "time_ns", lambda: now)

    def make_store(self) -> IStore:
        return self.open_store()

    def open_store(
        self,
        durability: Durability | None = None,
        off_reactor: OffReactor = execute,
    ) -> FileStore:
        """
        Open the store in the folder, like another process.
        """
        choice = "kvd.store.tree.exchange_is_cheaper"
        disk = "kvd.store.file.is_on_a_disk"
        single = "kvd.store.file.is_of_one_machine"
        attributes = "kvd.store.keeping.keeps_attributes"
        with (
            mock.patch(choice, return_value=self.exchanges),
            mock.patch(disk, return_value=self.keeps),
            mock.patch(single, return_value=self.has_epochs),
            mock.patch(attributes, return_value=self.keeps_attributes),
        ):
            store = FileStore(
                self.path, durability or self.durability, self.clock, off_reactor
            )
        self.addCleanup(store.close)
        return store

    def publish(
        self, store: FileStore, key: Key = KEY, body: bytes = b"v"
    ) -> Published:
        """
        Store a value and return the result.
        """
        upload = self.result(store.begin(key, len(body)))
        upload.write(body)
        published = upload.commit(UNCONDITIONAL)
        assert not isinstance(published, Deferred)
        return published

    def while_locked(self, key: Key, act: Callable[[], T]) -> T:
        """
        Do something while another process has locked a key.
        """
        root = os.open(self.path, os.O_RDONLY)
        lock = LockFile(root)
        try:
            results: list[T] = []
            locks = KeyLocks(lock, self.clock, Underway())
            locks.holding(key, lambda: results.append(act()))
            return results[0]
        finally:
            lock.close()
            os.close(root)

    def debris(self) -> list[str]:
        """
        What uploads have left behind, apart from kept values and the sidecars of
        values.
        """
        hidden = os.path.join(self.path, ".kvd")
        needed = {os.path.join(self.path, path) for path in self.sidecars()}
        found = {
            os.path.join(folder, file)
            for folder, _, files in os.walk(hidden)
            for file in files
            if file not in ("attributes", "lock") and key_of(os.fsencode(file)) is None
        }
        return sorted(found - needed)

    def sidecars(self) -> list[str]:
        """
        Where the sidecars of all files would be.
        """
        return [
            os.fsdecode(path_of(Key(os.fsencode(name)), status))
            for name in self.found()
            for status in [os.lstat(os.path.join(self.path, name))]
        ]
