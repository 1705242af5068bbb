"""
The tests of `kvd.store.exchange`.
"""

import errno
import os
import sys
from unittest import mock

import pytest

from kvd.model.conditions import UNCONDITIONAL
from kvd.store.exchange import (
    _magic_of,
    exchange_by_ctypes,
    exchange_is_cheaper,
    exchange_names,
    magic_by_ctypes,
)
from tests.store import test_file_faults
from tests.store.cases import KEY, FileStoreCase, FolderCase, placing_in_python


class ExchangeTests(FolderCase):
    """
    `exchange_names` exchanges two names.
    """

    exchange = staticmethod(exchange_names)

    def test_each_name_gets_what_the_other_had(self) -> None:
        """
        Also in different folders.
        """
        self.place("here/a", b"one")
        self.place("there/b", b"two")

        self.exchange(self.folder("here"), b"a", self.folder("there"), b"b")

        for name, body in (("here/a", b"two"), ("there/b", b"one")):
            with open(os.path.join(self.path, name), "rb") as file:
                assert body == file.read()

    def test_a_missing_name_is_an_error(self) -> None:
        """
        And nothing changes.
        """
        self.place("a")
        folder = self.folder()

        with pytest.raises(FileNotFoundError, match="'a' -> b'b'"):
            self.exchange(folder, b"a", folder, b"b")

        assert ["a"] == self.found()


class ExchangeFallbackTests(ExchangeTests):
    """
    The same by ctypes.
    """

    exchange = staticmethod(exchange_by_ctypes)


class ChoiceTests(FolderCase):
    """
    `exchange_is_cheaper` recognises the file system.
    """

    def test_only_ext4_gains(self) -> None:
        """
        /proc and /sys are not ext4; if the call fails, names are not exchanged.
        """
        for path in ("/proc", "/sys"):
            folder = os.open(path, os.O_RDONLY)
            self.addCleanup(os.close, folder)
            assert not exchange_is_cheaper(folder)
        assert not exchange_is_cheaper(-1)

    def test_ext4_is_recognised_by_its_number(self) -> None:
        """
        The first word of the result of fstatfs(2).
        """

        def fstatfs(folder: int, found: bytearray) -> int:
            found[:8] = (0xEF53).to_bytes(8, sys.byteorder)
            return 0

        with (
            mock.patch("kvd.store.exchange._libc") as libc,
            mock.patch("kvd.store.exchange._magic_of", magic_by_ctypes),
        ):
            libc.fstatfs = fstatfs
            assert exchange_is_cheaper(self.folder())

    def test_both_ways_find_the_same_number(self) -> None:
        """
        Compiled or not; 0 where there is no folder.
        """
        folders = [self.folder(), *(os.open(p, os.O_RDONLY) for p in ("/proc", "/sys"))]
        self.addCleanup(os.close, folders[1])
        self.addCleanup(os.close, folders[2])
        magics = [_magic_of(folder) for folder in folders]

        assert magics == [magic_by_ctypes(folder) for folder in folders]
        assert 0 not in magics
        assert 3 == len(set(magics))
        assert [0, 0] == [_magic_of(-1), magic_by_ctypes(-1)]


class ExchangingRoomTests(test_file_faults.RoomTests):
    """
    Faults where names are exchanged.
    """

    exchanges = True


class ExchangedValueTests(FileStoreCase):
    """
    Publication by exchange.
    """

    exchanges = True

    def test_the_replaced_file_is_removed(self) -> None:
        """
        It does not stay in the upload folder.
        """
        store = self.open_store()
        self.publish(store, body=b"old")
        with placing_in_python(), mock.patch("os.rename") as rename:
            assert not self.publish(store, body=b"new").created

        assert not rename.called
        assert b"new" == store.open(KEY).read(0, 10)
        assert [] == self.debris()

    def test_a_replaced_value_that_cannot_be_removed_is_left(self) -> None:
        """
        The publication has succeeded; the next start removes the file.
        """
        store = self.open_store()
        self.publish(store, body=b"old")
        upload = self.result(store.begin(KEY, None))
        upload.write(b"new")
        broken = mock.patch("os.unlink", side_effect=OSError(errno.EIO, "broken"))
        with placing_in_python(), broken:
            upload.commit(UNCONDITIONAL)

        assert b"new" == store.open(KEY).read(0, 10)
        assert 1 == len(self.debris())
