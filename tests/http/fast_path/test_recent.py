"""
Tests for `kvd.http.fast_path`: small values that are kept in memory.
"""

from __future__ import annotations

import os
import resource
from unittest import mock

from kvd.http import templates
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from tests.descriptors import open_now
from tests.http.fast_path.cases import FastPathCase, body_of, get, head, without_date

MAX_VALUE_BYTES = 16 * 1024
MOST_BYTES = 8 * 1024 * 1024
"""
What the compiled module keeps: of one value, and in all.
"""


class RecentValueTests(FastPathCase):
    """
    A value that was read twice is sent from memory, and readers notice every change at
    once.
    """

    def setUp(self) -> None:
        super().setUp()
        self.keep("a/b", b"value")
        self.file = os.path.join(self.path, "a", "b")
        self.before = self.descriptors()

    def descriptors(self) -> int:
        """
        How many of the store are open. Each value in memory has one.
        """
        return open_now(self.path)

    def kept(self) -> int:
        """
        How many values are in memory.
        """
        return self.descriptors() - self.before

    def read(self, key: str) -> bytes:
        """
        A value as the fast path gives it.
        """
        return body_of(self.served(get(key)))

    def read_twice(self, key: str = "a/b") -> None:
        """
        Have it in memory.
        """
        assert self.read(key) == self.read(key)

    def test_it_is_kept_when_it_is_read_again(self) -> None:
        """
        Not before; nor does a HEAD count.
        """
        self.served(head("a/b"))
        self.read("a/b")
        assert 0 == self.kept()
        self.served(head("a/b"))
        assert 0 == self.kept()
        for _ in range(3):
            assert b"value" == self.read("a/b")
            assert 1 == self.kept()

    def test_it_gives_the_same_reply(self) -> None:
        """
        In all that is said of it.
        """
        for request in (get("a/b"), head("a/b"), get("a/b", minor=0)):
            replies = set()
            for _ in range(4):
                self.serve(request)
                replies.add(without_date(self.reply()))
            assert 1 == len(replies)

    def test_what_is_read_once_pushes_nothing_out(self) -> None:
        """
        However much there is of it.
        """
        self.read_twice()
        for number in range(1000):
            self.place_value(f"k{number}")
            self.read(f"k{number}")
        assert self.kept() <= 5

    def place_value(self, key: str) -> None:
        """
        A small value, sooner than by publishing it.
        """
        status, said = os.stat(self.file), os.getxattr(self.file, "user.kvd")
        self.place(key, b"value")
        path = os.path.join(self.path, key)
        os.setxattr(path, "user.kvd", said)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    def test_a_replacement_is_seen(self) -> None:
        """
        By this process or another; what was replaced is held no longer.
        """
        others = self.open_store()
        self.before = self.descriptors()
        for store, body in ((self.store, b"other"), (others, b"third")):
            self.read_twice()
            assert 1 == self.kept()
            self.publish(store, Key(b"a/b"), body)
            self.before = self.descriptors() - 1
            assert body == self.read("a/b")

    def test_a_removal_is_seen(self) -> None:
        """
        With its folders, or by a program that takes no locks.
        """
        for remove in (
            lambda: self.result(self.store.remove(Key(b"a/b"), UNCONDITIONAL)),
            lambda: os.unlink(self.file),
        ):
            self.read_twice()
            assert 1 == self.kept()
            remove()
            assert self.served(get("a/b")).startswith(b"HTTP/1.1 404 ")
            # Its bytes are free again on the disk, too.
            assert 0 == self.kept()
            self.keep("a/b", b"again")

    def test_what_took_its_name_is_no_value(self) -> None:
        """
        A folder or a link, even a link to the very file.
        """
        self.read_twice()
        os.rename(self.file, self.file + "-moved")
        os.symlink(self.file + "-moved", self.file)
        self.assert_left(get("a/b"))
        os.unlink(self.file)
        os.mkdir(self.file)
        self.assert_left(get("a/b"))

    def test_a_link_leads_to_it(self) -> None:
        """
        Whatever is remembered.
        """
        self.read_twice()
        folder = os.path.dirname(self.file)
        os.rename(folder, folder + "-away")
        os.symlink("a-away", folder)
        self.assert_left(get("a/b"))

    def test_others_have_written_to_it(self) -> None:
        """
        Its times show that; nobody can set all of them back.
        """
        self.read_twice()
        status = os.stat(self.file)
        with open(self.file, "r+b") as file:
            file.write(b"VALUE")
        os.utime(self.file, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert b"VALUE" == self.read("a/b")
        self.read_twice()
        os.utime(self.file, ns=(0, 0))
        self.assert_left(get("a/b"))
        assert 0 == self.kept()

    def test_large_values_are_not_kept(self) -> None:
        """
        The memory is bounded.
        """
        for size, kept in ((MAX_VALUE_BYTES, 1), (MAX_VALUE_BYTES + 1, 0)):
            key = f"large{size}"
            self.keep(key, b"x" * size)
            self.before = self.descriptors()
            for _ in range(3):
                assert b"x" * size == self.read(key)
            assert kept == self.kept()

    def assert_bounded(self, most: int, body: bytes) -> None:
        """
        Check how many values are held, whatever is read.
        """
        for number in range(2 * most + 1):
            self.keep(f"many/{number}", body)
        self.before = self.descriptors()
        for number in range(2 * most + 1):
            self.read_twice(f"many/{number}")
        assert most == self.kept()

    def test_those_that_were_read_last_are_kept(self) -> None:
        """
        The others are closed; one that changes again and again pushes none out.
        """
        with mock.patch.object(templates, "MOST_RECENT", 3):
            self.fast_path = self.make_fast_path(self.process)
        for number in range(5):
            self.keep(f"{number}", b"value")
            self.read_twice(f"{number}")
            self.read_twice("0")
        for number in range(10):
            self.keep("4", b"%d" % number)
            self.read_twice("4")
        kept = sorted(
            os.path.basename(os.readlink(f"/proc/self/fd/{name}"))
            for name in os.listdir("/proc/self/fd")
            if os.path.exists(f"/proc/self/fd/{name}")
        )
        assert ["0", "3", "4"] == [name for name in kept if name in "01234"]

    def test_the_number_of_kept_values_is_bounded(self) -> None:
        """
        The others are closed.
        """
        with mock.patch.object(templates, "MOST_RECENT", 10):
            self.fast_path = self.make_fast_path(self.process)
        self.assert_bounded(10, b"x")

    def test_the_bytes_of_kept_values_are_bounded(self) -> None:
        """
        Fewer values are kept if they are larger.
        """
        self.assert_bounded(MOST_BYTES // MAX_VALUE_BYTES, b"x" * MAX_VALUE_BYTES)

    def test_few_are_kept_where_descriptors_are_few(self) -> None:
        """
        Connections need them more.
        """
        with mock.patch.object(resource, "getrlimit", return_value=(80, 80)):
            self.fast_path = self.make_fast_path(self.process)
        self.assert_bounded(10, b"x")

    def test_nothing_is_held_where_it_would_stay_in_its_folder(self) -> None:
        """
        On file systems that rename a file that is removed while it is open.
        """
        with mock.patch.object(templates, "renames_removed_files", return_value=True):
            self.fast_path = self.make_fast_path(self.process)
        for _ in range(5):
            assert b"value" == self.read("a/b")
        assert 0 == self.kept()

    def test_a_closed_store_holds_nothing(self) -> None:
        """
        None of the values in memory either.
        """
        self.read_twice()
        assert 1 == self.kept()
        self.store.close()
        assert self.kept() < 0
