"""
The file store among files of other programs.
"""

import errno
import os
import socket
from collections.abc import Callable
from typing import TypeVar
from unittest import mock

import pytest
from twisted.internet.defer import Deferred, execute

from kvd.errors import (
    KeyAbsent,
    KeyConflict,
)
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.store.file import FileStore
from kvd.store.populated import MOST_FOUND, MOST_STEPS
from tests.privileges import take_root
from tests.store.cases import KEY, FileStoreCase

T = TypeVar("T")


class StrangersTests(FileStoreCase):
    """
    Other programs may put anything into the folder.
    """

    def setUp(self) -> None:
        super().setUp()
        self.store = self.open_store()

    def test_file_of_others_is_a_value(self) -> None:
        """
        A file without kvd's attribute is served, listed and removed; its entity tag
        stays until it changes. Its folder stays.
        """
        self.place("a/b", b"12345")
        info = self.store.stat(Key(b"a/b"))

        assert (5, {}) == (info.size, info.metadata)
        assert info == self.store.stat(Key(b"a/b"))
        assert [info] == [*self.walk(self.store)]
        self.place("a/b", b"other")
        os.utime(os.path.join(self.path, "a/b"), (1, 1))
        assert info.etag != self.store.stat(Key(b"a/b")).etag
        self.store.remove(Key(b"a/b"), UNCONDITIONAL)
        assert ["a"] == self.found()

    def test_what_is_there_is_never_said_to_be_lacking(self) -> None:
        """
        Whatever is no value is only looked at more closely.
        """
        key, inner = Key(b"a/b"), Key(b"a/b/c")
        assert self.store.lacks(key)
        assert self.store.lacks(inner)
        self.publish(self.store, key)
        assert not self.store.lacks(key)
        assert not self.store.lacks(inner)
        assert not self.store.lacks(Key(b"a"))
        os.symlink("nowhere", os.path.join(self.path, "link"))
        assert not self.store.lacks(Key(b"link"))
        self.store.remove(key, UNCONDITIONAL)
        assert self.store.lacks(key)

    def test_folder_of_others_has_no_values(self) -> None:
        """
        Unless there is a value in it: what is no value does not count, whatever its
        name.
        """
        assert not self.store.has_values(b"")
        os.makedirs(os.path.join(self.path, "a/b/c"))
        os.mkfifo(os.path.join(self.path, "a/fifo"))
        os.symlink("/etc", os.path.join(self.path, "a/link"))
        self.place("a/.nfs" + "0" * 24)
        self.place(b"a/\n")
        self.place("outside")

        for prefix in (b"a/", b"a/b/", b"a/link/", b"outside/", b".kvd/", b"../", b"a"):
            assert not self.store.has_values(prefix)
        self.place("a/b/c/d")
        for prefix in (b"", b"a/", b"a/b/", b"a/b/c/"):
            assert self.store.has_values(prefix)

    def test_look_for_values_waits_for_a_thread_where_it_takes_long(self) -> None:
        """
        The reactor looks at a few names itself. It keeps nothing open.
        """
        threads: list[Callable[[], object]] = []

        def off_reactor(work: Callable[[], T]) -> Deferred[T]:
            threads.append(work)
            return execute(work)

        store = self.open_store(off_reactor=off_reactor)
        for number in range(1000):
            os.makedirs(os.path.join(self.path, f"empty/{number}"))
            self.place(f"full/{number}")
        os.makedirs(os.path.join(self.path, *["deep"] * 5))
        before = len(os.listdir("/proc/self/fd"))

        assert self.has_values(store, b"full/")
        assert not self.has_values(store, b"deep/")
        assert not self.has_values(store, b"none/")
        assert [] == threads
        assert not self.has_values(store, b"empty/")
        assert threads
        self.place("empty/999/last")
        assert self.has_values(store, b"empty/")
        assert before == len(os.listdir("/proc/self/fd"))

    def test_look_for_values_opens_few_folders_without_a_thread(self) -> None:
        """
        Also where none can be opened.
        """
        opened: list[bytes] = []

        def refuse(folder: int, name: bytes, key: bytes) -> None:
            opened.append(key)

        threads: list[int] = []

        def off_reactor(work: Callable[[], T]) -> Deferred[T]:
            threads.append(len(opened))
            return execute(work)

        store = self.open_store(off_reactor=off_reactor)
        for number in range(500):
            os.makedirs(os.path.join(self.path, f"secret/{number}"))
        with mock.patch("kvd.store.walk._open_inner", refuse):
            assert not self.has_values(store, b"secret/")
        assert 500 == len(opened)
        assert threads[0] <= MOST_STEPS

    def test_value_of_a_folder_is_looked_at_again(self) -> None:
        """
        Where it was found last, there may be none now, and another one elsewhere. Of
        some folders no value is remembered.
        """
        for number in range(MOST_FOUND + 2):
            self.place(f"{number}/a")
            self.place(f"{number}/b")
        for _ in range(2):
            for number in range(MOST_FOUND + 2):
                assert self.store.has_values(b"%d/" % number)
        for name in ("a", "b"):
            assert self.store.has_values(b"7/")
            os.unlink(os.path.join(self.path, "7", name))
        assert not self.store.has_values(b"7/")
        os.makedirs(os.path.join(self.path, "7/a"))
        assert not self.store.has_values(b"7/")
        self.place("7/a/b")
        assert self.store.has_values(b"7/")

    def test_links_are_not_followed(self) -> None:
        """
        A link is absent for readers and listings. A value replaces it, and its target
        stays unchanged; a link to a folder is not a folder.
        """
        with open(self.path + "-outside", "wb") as outside:
            outside.write(b"secret")
        self.addCleanup(os.unlink, outside.name)
        os.symlink(outside.name, os.path.join(self.path, "key"))
        os.symlink("/tmp", os.path.join(self.path, "folder"))

        for key in (KEY, Key(b"folder"), Key(b"folder/x")):
            self.error(KeyAbsent, lambda: self.store.open(key))  # noqa: B023
            self.error(KeyAbsent, lambda: self.store.remove(key, UNCONDITIONAL))  # noqa: B023
        for prefix in (b"", b"folder/"):
            assert [] == [*self.walk(self.store, prefix)]
        with pytest.raises(KeyConflict):
            self.result(self.store.begin(Key(b"folder/x"), None))
        assert self.publish(self.store).created
        with open(outside.name, "rb") as untouched:
            assert b"secret" == untouched.read()

    def test_a_link_in_the_way_is_found_at_the_commit(self) -> None:
        """
        A link that was made after the upload had begun is not followed either.
        """
        upload = self.result(self.store.begin(Key(b"folder/x"), None))
        os.symlink("/tmp", os.path.join(self.path, "folder"))

        with pytest.raises(KeyConflict):
            upload.commit(UNCONDITIONAL)
        assert [] == self.debris()

    def test_links_above_a_value_are_not_followed(self) -> None:
        """
        Whether a worker has cached the value or not, and wherever in the path the link
        is; when the folder is back, so is the value.
        """
        for key, moved in (("a/k", "a"), ("b/c/d/k", "b"), ("e/f/g/k", "e/f")):
            name = Key(key.encode())
            self.publish(self.store, name, b"value")
            assert b"value" == self.get(self.store, name)
            path = os.path.join(self.path, moved)
            os.rename(path, path + "-moved")
            os.symlink(os.path.basename(path) + "-moved", path)
            for store in (self.store, self.open_store()):
                self.error(KeyAbsent, lambda: store.open(name))  # noqa: B023
                self.error(KeyAbsent, lambda: store.stat(name))  # noqa: B023
                self.error(KeyAbsent, lambda: store.remove(name, UNCONDITIONAL))  # noqa: B023
                assert [key.replace(moved, moved + "-moved", 1).encode()] == [
                    info.key for info in self.walk(store)
                ]
            os.unlink(path)
            os.rename(path + "-moved", path)
            assert b"value" == self.get(self.store, name)
            self.store.remove(name, UNCONDITIONAL)

    def test_the_refusal_names_what_is_in_the_way(self) -> None:
        """
        A link, a value, or another file; not always the first name in the path.
        """
        self.publish(self.store, Key(b"a/value"))
        os.symlink("a", os.path.join(self.path, "link"))
        os.symlink("nowhere", os.path.join(self.path, "a/dangling"))
        os.mkfifo(os.path.join(self.path, "fifo"))
        for key, sentence in (
            (b"a/value/k", "/a/value/k leads through /a/value, which is a value and"),
            (b"link/k", "/link/k leads through /link, which is a link, which kvd does"),
            (b"link/value/k", "leads through /link, which is a link"),
            (b"a/dangling/x/k", "leads through /a/dangling, which is a link"),
            (b"fifo/k", "leads through /fifo, which is neither a value nor a folder"),
        ):
            with pytest.raises(KeyConflict, match=sentence):
                self.result(self.store.begin(Key(key), None))

    def test_nothing_blocks(self) -> None:
        """
        FIFOs and sockets are absent without a wait, and can be replaced.
        """
        os.mkfifo(os.path.join(self.path, "fifo"))
        bound = socket.socket(socket.AF_UNIX)
        self.addCleanup(bound.close)
        bound.bind(os.path.join(self.path, "socket"))

        self.check_absent(Key(b"fifo"))
        self.check_absent(Key(b"socket"))

    def test_no_device_is_opened(self) -> None:
        """
        So it is with devices.
        """
        take_root("making a device")
        os.mknod(os.path.join(self.path, "null"), 0o020666, os.makedev(1, 3))
        self.check_absent(Key(b"null"))

    def check_absent(self, key: Key) -> None:
        """
        What has a key's name is no value, and one can take its place.
        """
        self.error(KeyAbsent, lambda: self.store.open(key))
        self.error(KeyAbsent, lambda: self.store.remove(key, UNCONDITIONAL))
        assert self.publish(self.store, key).created

    def test_empty_folders_are_replaced(self) -> None:
        """
        A value replaces folders that contain no files, at any depth.
        """
        os.makedirs(os.path.join(self.path, "key/a/b/c"))
        os.makedirs(os.path.join(self.path, "key/d"))
        upload = self.result(self.store.begin(KEY, None))
        os.makedirs(os.path.join(self.path, "key/late"))

        assert upload.commit(UNCONDITIONAL)
        assert ["key"] == self.found()

    def test_folder_that_contains_a_file_stays(self) -> None:
        """
        Even if the file is not a value.
        """
        os.makedirs(os.path.join(self.path, "key/a"))
        os.symlink("nowhere", os.path.join(self.path, "key/a/link"))

        with pytest.raises(KeyConflict):
            self.result(self.store.begin(KEY, None))
        assert ["key/a/link"] == self.found()

    def test_root_may_be_a_link(self) -> None:
        """
        The operator chooses the root, so a link is followed.
        """
        link = self.path + "-link"
        os.symlink(self.path, link)
        self.addCleanup(os.unlink, link)
        self.publish(self.store)
        store = FileStore(link, "process", self.clock, execute)
        self.addCleanup(store.close)

        assert b"v" == store.open(KEY).read(0, 10)

    def test_vanishing_between_check_and_removal_is_absence(self) -> None:
        """
        A program that takes no locks may remove it first.
        """
        self.publish(self.store)
        with mock.patch("os.unlink", side_effect=FileNotFoundError(errno.ENOENT, "")):
            self.error(KeyAbsent, lambda: self.store.remove(KEY, UNCONDITIONAL))
