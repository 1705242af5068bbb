"""
The tests of `kvd.store.file` and `kvd.store.preparing`.
"""

import errno
import os
from unittest import mock

import pytest
from twisted.internet.defer import execute
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from zope.interface.verify import verifyObject

from kvd.errors import (
    BadSetting,
    MetadataTooLarge,
    StoreUnusable,
)
from kvd.interfaces import IStoreMaker
from kvd.model.conditions import UNCONDITIONAL
from kvd.store.file import FileStore
from kvd.store.file_maker import maker
from kvd.testing import StoreContract
from tests.descriptors import Descriptors
from tests.store.cases import (
    KEY,
    MANY_VALUES,
    FileStoreCase,
    FolderCase,
    making_in_python,
    placing_in_python,
    syncing_in_python,
)


class ProcessContractTests(StoreContract, FileStoreCase):
    """
    `FileStore` is a store, at durability ``process``.
    """

    durability = "process"
    many_values = MANY_VALUES


class ExchangingContractTests(StoreContract, FileStoreCase):
    """
    The same where names are exchanged.
    """

    durability = "process"
    exchanges = True
    many_values = MANY_VALUES


class DiskContractTests(StoreContract, FileStoreCase):
    """
    `FileStore` is a store, at durability ``disk``.
    """

    durability = "disk"
    many_values = MANY_VALUES


class SidecarProcessContractTests(StoreContract, FileStoreCase):
    """
    `FileStore` is a store where the file system keeps no extended attributes, at
    durability ``process``: on a disk, so that values are synced first.
    """

    durability = "process"
    keeps = True
    keeps_attributes = False
    many_values = MANY_VALUES


class SidecarDiskContractTests(StoreContract, FileStoreCase):
    """
    The same at durability ``disk``.
    """

    durability = "disk"
    keeps_attributes = False
    many_values = MANY_VALUES


class FileStoreMakerTests(FolderCase):
    """
    The plugin behind ``file:`` in the settings.
    """

    def test_provides_its_interface(self) -> None:
        """
        The maker is one.
        """
        assert verifyObject(IStoreMaker, maker)

    def test_location_becomes_absolute(self) -> None:
        """
        A relative path is below the current folder; an empty or impossible path is
        refused.
        """
        assert os.path.abspath("values") == maker.resolve("./values")
        for path in ("", "a\0b"):
            with pytest.raises(BadSetting, match="needs a folder"):
                maker.resolve(path)

    def test_folder_is_made_and_tested(self) -> None:
        """
        Preparing makes the folder and those around it, leaves nothing but kvd's own
        folder in it, and can be repeated.
        """
        path = os.path.join(self.path, "a/b")
        maker.prepare(path)
        maker.prepare(path)

        assert [".kvd"] == os.listdir(path)
        assert ["attributes", "lock"] == sorted(os.listdir(os.path.join(path, ".kvd")))

    def test_names_of_new_folders_are_synced(self) -> None:
        """
        The folder around each new folder is synced once it exists; nothing is synced if
        it existed before.
        """
        synced = []

        def fsync(descriptor: int) -> None:
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            synced.append((os.path.relpath(path, self.path), os.listdir(path)))

        with syncing_in_python(), mock.patch("os.fsync", fsync):
            maker.prepare(os.path.join(self.path, "a/b/c"))
            assert [("a/b", ["c"]), ("a", ["b"]), (".", ["a"])] == synced
            maker.prepare(os.path.join(self.path, "a/b/c"))
            assert 3 == len(synced)

    def test_names_that_cannot_be_synced_are_no_store(self) -> None:
        """
        If the disk fails, kvd does not start.
        """
        path = os.path.join(self.path, "a")
        with (
            syncing_in_python(),
            mock.patch("os.fsync", side_effect=OSError(errno.EIO, "broken")),
            pytest.raises(StoreUnusable, match="cannot be made: broken"),
        ):
            maker.prepare(path)

    def test_file_in_the_way_is_reported(self) -> None:
        """
        A store cannot be a file, or below one.
        """
        self.place("file")
        for name in ("file", "file/below"):
            with pytest.raises(StoreUnusable, match="there is a file of this name"):
                maker.prepare(os.path.join(self.path, name))

    def test_unusable_folders_are_reported(self) -> None:
        """
        If it cannot be made, opened or written, the message has the folder and the
        reason.
        """
        broken = OSError(errno.EROFS, "Read-only file system")
        for call in ("os.mkdir", "os.rename"):
            with (
                making_in_python(),
                placing_in_python(),
                mock.patch(call, side_effect=broken),
                pytest.raises(StoreUnusable, match=f"{self.path} .*Read-only"),
            ):
                maker.prepare(self.path)
        forbidden = OSError(errno.EACCES, "Permission denied", ".kvd")
        with (
            making_in_python(),
            mock.patch("os.mkdir", side_effect=forbidden),
            pytest.raises(StoreUnusable, match=r"opened: Permission denied \(\.kvd\)$"),
        ):
            maker.prepare(self.path)
        with (
            mock.patch("sys.platform", "plan9"),
            pytest.raises(StoreUnusable, match=r"needs Linux.* plan9"),
        ):
            maker.prepare(self.path)

    def test_store_that_cannot_be_opened_is_not_left_open(self) -> None:
        """
        Whatever fails: neither its own descriptors stay, nor the locks on folders that
        others left.
        """
        self.place(".kvd/4711-dead/k0.key")
        opened = Descriptors(self.path)
        failed = OSError(errno.EIO, "Input/output error")
        for broken in (
            "kvd.store.file.sweep",
            "kvd.store.file.UploadFolder",
            "kvd.store.uploads.Left.kept",
            "kvd.store.file.is_on_a_disk",
        ):
            with (
                mock.patch(broken, side_effect=failed),
                pytest.raises(StoreUnusable, match=r"Input/output error$"),
            ):
                FileStore(self.path, "process", Clock(), execute)
            assert 0 == opened.more, broken
        with (
            mock.patch("kvd.store.file.is_on_a_disk", return_value=True),
            mock.patch(
                "kvd.store.file.Writeback", side_effect=RuntimeError("a mistake")
            ),
            pytest.raises(RuntimeError, match="a mistake"),
        ):
            FileStore(self.path, "process", Clock(), execute)
        assert 0 == opened.more

    def test_full_disk_does_not_keep_it_from_starting(self) -> None:
        """
        Stored values can still be read and removed, so this is only logged.
        """
        full = OSError(errno.ENOSPC, "No space left on device")
        space = mock.Mock(f_bavail=0, f_blocks=9, f_frsize=4096)
        with (
            placing_in_python(),
            mock.patch("os.setxattr", side_effect=full),
            mock.patch("os.fstatvfs", return_value=space),
            capturedLogs() as events,
        ):
            maker.prepare(self.path)

        (event,) = events
        assert "the store {path} is full: {reason}" == event["log_format"]

    def test_little_room_for_metadata_does_not_keep_it_from_starting(self) -> None:
        """
        ext4 with blocks of 1 KiB has less than others; that is not a full disk.
        """
        setxattr = os.setxattr

        def small_block(
            descriptor: int, name: str, text: bytes, flags: int = 0
        ) -> None:
            if len(text) > 900:
                raise OSError(errno.ENOSPC, "No space left on device")
            setxattr(descriptor, name, text, flags)

        with (
            placing_in_python(),
            mock.patch("os.setxattr", small_block),
            capturedLogs() as events,
        ):
            maker.prepare(self.path)
            store = FileStore(self.path, "process", Clock(), execute)
            self.addCleanup(store.close)
            upload = store.begin_at_once(KEY, 0, {"content-type": "x" * 900})
            with pytest.raises(
                MetadataTooLarge, match="file system of the store keeps"
            ):
                upload.commit(UNCONDITIONAL)
            store.begin_at_once(KEY, 0, {"content-type": "x" * 800}).commit(
                UNCONDITIONAL
            )

        (event,) = events
        assert event["log_format"].startswith("the file system of the store {path}")
        assert ["key"] == self.found()

    def test_missing_folder_cannot_be_opened(self) -> None:
        """
        Opening does not make the root, and closes everything that it has opened.
        """
        opened = Descriptors(self.path)
        with pytest.raises(StoreUnusable, match="No such file"):
            FileStore(os.path.join(self.path, "missing"), "disk", Clock(), execute)
        self.place(".kvd")
        with pytest.raises(StoreUnusable, match="Not a directory"):
            FileStore(self.path, "disk", Clock(), execute)
        # Workers open it by a descriptor, which would tell nobody where it is.
        folder = os.open(self.path, os.O_PATH)
        with pytest.raises(StoreUnusable, match=f"^the store {self.path} cannot be op"):
            FileStore(folder, "disk", Clock(), execute)
        os.close(folder)

        assert 0 == opened.more

    def test_store_works_in_the_threads_of_the_reactor(self) -> None:
        """
        An opened store uses the reactor that runs.
        """
        maker.prepare(self.path)
        store = maker.open_store(self.path, "process")
        self.addCleanup(store.close)

        assert isinstance(store, FileStore)
        store.begin_at_once(KEY, 0).commit(UNCONDITIONAL)
