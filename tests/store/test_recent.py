"""
Tests of `kvd.store.recent`, through the store.
"""

from __future__ import annotations

import os
import resource
from unittest import mock

from kvd.errors import KeyAbsent
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.store import recent
from kvd.store.recent import MAX_BYTES, RecentValue
from tests.store.cases import FileStoreCase

NESTED = Key(b"some/folders/key")


class RecentValueTests(FileStoreCase):
    """
    Small values that were read recently are read again without opening them, and
    readers notice every change at once.
    """

    def setUp(self) -> None:
        super().setUp()
        self.store = self.open_store()
        self.publish(self.store, NESTED, b"first")
        self.file = os.path.join(self.path, os.fsdecode(NESTED))
        assert b"first" == self.get(self.store, NESTED)

    def test_it_is_not_opened_again(self) -> None:
        """
        And nothing of it is read.
        """
        nothing = AssertionError("it was opened again")
        with (
            mock.patch("os.open", side_effect=nothing),
            mock.patch("os.pread", side_effect=nothing),
            mock.patch("os.getxattr", side_effect=nothing),
        ):
            value = self.store.open(NESTED)
            assert b"first" == self.body(value)
            assert value.info is self.store.stat(NESTED)

    def test_a_replacement_is_seen(self) -> None:
        """
        By this process or another.
        """
        others = self.open_store()
        kept = len(os.listdir("/proc/self/fd"))
        self.publish(self.store, NESTED, b"other")
        assert b"other" == self.get(self.store, NESTED)
        self.publish(others, NESTED, b"third")
        assert b"third" == self.get(self.store, NESTED)
        # The other store's folder of uploads.
        assert kept + 1 == len(os.listdir("/proc/self/fd"))

    def test_an_open_value_stays_as_it_was(self) -> None:
        """
        As with an open file.
        """
        value = self.store.open(NESTED)
        self.publish(self.store, NESTED, b"other")
        self.get(self.store, NESTED)

        assert b"first" == self.body(value)

    def test_a_removal_is_seen(self) -> None:
        """
        With its folders, or by a program that takes no locks.
        """
        kept = len(os.listdir("/proc/self/fd"))
        self.store.remove(NESTED, UNCONDITIONAL)
        self.error(KeyAbsent, lambda: self.store.open(NESTED))
        # Its bytes are free again on the disk, too.
        assert kept - 1 == len(os.listdir("/proc/self/fd"))

        self.publish(self.store, NESTED, b"again")
        self.get(self.store, NESTED)
        os.unlink(self.file)
        self.error(KeyAbsent, lambda: self.store.open(NESTED))

    def test_what_took_its_name_is_no_value(self) -> None:
        """
        A folder or a link, even a link to a copy of it.
        """
        os.rename(self.file, self.file + "-moved")
        os.symlink(self.file + "-moved", self.file)
        self.error(KeyAbsent, lambda: self.store.open(NESTED))
        os.unlink(self.file)
        os.mkdir(self.file)
        self.error(KeyAbsent, lambda: self.store.open(NESTED))

    def test_a_file_that_was_written_to_is_read_again(self) -> None:
        """
        It has another time, and another entity tag.
        """
        etag = self.store.stat(NESTED).etag
        with open(self.file, "r+b") as file:
            file.write(b"FIRST")
        assert b"FIRST" == self.get(self.store, NESTED)
        assert etag != self.store.stat(NESTED).etag
        os.truncate(self.file, 3)
        assert b"FIR" == self.get(self.store, NESTED)

    def test_what_changes_while_it_is_read_is_not_kept(self) -> None:
        """
        If it is shorter or longer than when it was opened, or has other bytes.
        """
        pread = os.pread
        for change in (-1, 0, 1):

            def change_and_read(
                descriptor: int, count: int, offset: int, change: int = change
            ) -> bytes:
                if change:
                    os.truncate(self.file, len(b"value") + change)
                else:
                    self.place(os.fsdecode(NESTED), b"VALUE")
                return pread(descriptor, count, offset)

            self.publish(self.store, NESTED, b"value")
            with mock.patch("os.pread", change_and_read):
                value = self.store.open(NESTED)
            assert not isinstance(value, RecentValue)
            value.close()

    def test_a_part_can_be_read(self) -> None:
        """
        As of any value.
        """
        value = self.store.open(NESTED)

        assert b"irs" == value.read(1, 3)

    def test_foreign_files_are_not_kept(self) -> None:
        """
        Another program may be writing to them.
        """
        self.place("placed", b"by others")
        self.get(self.store, Key(b"placed"))

        assert not isinstance(self.store.open(Key(b"placed")), RecentValue)
        self.value(self.store, Key(b"placed")).close()

    def test_large_values_are_not_kept(self) -> None:
        """
        The memory is bounded.
        """
        for size, kept in ((MAX_BYTES, True), (MAX_BYTES + 1, False)):
            self.publish(self.store, Key(b"large"), b"x" * size)
            value = self.store.open(Key(b"large"))
            assert kept == isinstance(value, RecentValue)
            assert size == len(self.body(value))

    def test_the_number_of_kept_values_is_bounded(self) -> None:
        """
        The others are closed, and all of them at the end.
        """
        self.patch(recent, "MAX_VALUES", 10)
        self.assert_kept(10, b"x")

    def test_the_bytes_of_kept_values_are_bounded(self) -> None:
        """
        Fewer values are kept if they are larger.
        """
        self.patch(recent, "MAX_TOTAL_BYTES", 100)
        self.assert_kept(5, b"x" * 20)

    def test_few_are_kept_where_descriptors_are_few(self) -> None:
        """
        Connections need them more.
        """
        limits = (80, 80)
        with mock.patch.object(resource, "getrlimit", return_value=limits):
            self.assert_kept(10, b"x")

    def assert_kept(self, most: int, body: bytes) -> None:
        """
        Check how many values a store holds open, whatever is read.
        """
        store = self.open_store()
        before = len(os.listdir("/proc/self/fd"))
        for number in range(3 * most):
            key = Key(b"many/%d" % number)
            self.publish(store, key, body)
            assert body == self.get(store, key)
        # The folder of uploads is one more.
        assert before + most + 1 == len(os.listdir("/proc/self/fd"))

    def test_nothing_is_held_where_it_would_stay_in_its_folder(self) -> None:
        """
        On file systems that rename a file that is removed while it is open.
        """
        self.patch(recent, "renames_removed_files", lambda folder: True)
        store = self.open_store()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(2):
            value = store.open(NESTED)
            assert not isinstance(value, RecentValue)
            value.close()

        assert before == len(os.listdir("/proc/self/fd"))

    def test_a_closed_store_holds_nothing(self) -> None:
        """
        None of the cached values either.
        """
        before = len(os.listdir("/proc/self/fd"))
        store = self.open_store()
        self.get(store, NESTED)
        store.close()

        assert before == len(os.listdir("/proc/self/fd"))
