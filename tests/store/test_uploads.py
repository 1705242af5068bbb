"""
The tests of `kvd.store.uploads`.
"""

import errno
import os
from unittest import mock

import pytest
from twisted.logger import capturedLogs

from kvd.model.conditions import UNCONDITIONAL
from kvd.store.uploads import UploadFolder, sweep
from tests.descriptors import Descriptors
from tests.store.cases import KEY, FileStoreCase, FolderCase, making_in_python


class UploadFolderTests(FolderCase):
    """
    A process has a folder of its own for uploads.
    """

    def setUp(self) -> None:
        super().setUp()
        self.hidden = self.folder()

    def make(self) -> UploadFolder:
        """
        Make a folder with a file in it.
        """
        uploads = UploadFolder(self.hidden)
        self.addCleanup(uploads.close)
        descriptor, _ = uploads.create()
        os.close(descriptor)
        return uploads

    def test_folder_is_made_for_the_first_upload(self) -> None:
        """
        So a store on a full disk can be opened.
        """
        uploads = UploadFolder(self.hidden)
        uploads.close()

        assert [] == os.listdir(self.path)

    def test_files_have_names_of_their_own(self) -> None:
        """
        Uploads do not collide, in one process or two.
        """
        for uploads in (self.make(), self.make()):
            descriptor, _ = uploads.create()
            os.close(descriptor)

        assert 4 == len(self.found())

    def test_closing_removes_it(self) -> None:
        """
        With everything in it.
        """
        self.make().close()

        assert [] == os.listdir(self.path)

    def test_held_folder_is_not_swept(self) -> None:
        """
        The folder of a live process stays; an unlocked one is removed, and files beside
        the folders stay.
        """
        self.make()
        mine = self.found()
        self.place("4711-dead/0")
        self.place("4711-dead/1")
        os.mkdir(os.path.join(self.path, "4712-dead"))
        self.place("lock")
        sweep(self.hidden)

        assert sorted([*mine, "lock"]) == self.found()

    def test_folder_that_cannot_be_locked_is_not_left_open(self) -> None:
        """
        On a file server that has no locks left: neither a new one, nor one that would
        be swept, nor those that were found before it.
        """
        uploads = UploadFolder(self.hidden)
        for number in range(2):
            self.place(f"471{number}-dead/k0.key")
        opened = Descriptors(self.path)
        no_locks = OSError(errno.ENOLCK, "no locks")
        with mock.patch("fcntl.flock", side_effect=no_locks):
            for _ in range(2):
                with pytest.raises(OSError, match="no locks"):
                    uploads.create()
        with (
            mock.patch("fcntl.flock", side_effect=[None, no_locks]),
            pytest.raises(OSError, match="no locks"),
        ):
            sweep(self.hidden)

        assert 0 == opened.more

    def test_folder_that_another_replaces_is_not_left_open(self) -> None:
        """
        If it was removed, and what the new one confers cannot be read: neither of them,
        once the store is closed.
        """
        opened = Descriptors(self.path)
        uploads = UploadFolder(self.hidden)
        descriptor, name = uploads.create()
        os.close(descriptor)
        (folder,) = os.listdir(self.path)
        os.unlink(os.path.join(self.path, folder, os.fsdecode(name)))
        os.rmdir(os.path.join(self.path, folder))
        unreadable = OSError(errno.EIO, "unreadable")
        with (
            mock.patch("kvd.store.uploads.conferred", side_effect=unreadable),
            pytest.raises(OSError, match="unreadable"),
        ):
            uploads.create()
        uploads.close()

        assert 0 == opened.more

    def test_folder_that_cannot_be_read_is_not_left_open(self) -> None:
        """
        Nor those that were found before it.
        """
        for number in range(2):
            self.place(f"471{number}-dead/k0.key")
        opened = Descriptors(self.path)
        unreadable = OSError(errno.EIO, "unreadable")
        with (
            mock.patch("os.listdir", side_effect=[["k0.key"], unreadable]),
            pytest.raises(OSError, match="unreadable"),
        ):
            sweep(self.hidden)

        assert 0 == opened.more

    def test_folder_that_cannot_be_swept_is_logged(self) -> None:
        """
        It takes up room and does no harm.
        """
        self.place("4711-dead/folder/file")
        with capturedLogs() as events:
            sweep(self.hidden)

        (event,) = events
        assert "4711-dead" == event["name"]
        assert ["4711-dead/folder/file"] == self.found()

    def test_two_may_sweep(self) -> None:
        """
        A folder that another process removes first is ignored.
        """
        self.place("4711-dead/0")
        self.place("4712-dead/0")
        opened = os.open

        def sweep_first(name: str, flags: int, *, dir_fd: int) -> int:
            if name.startswith("4711"):
                os.unlink(os.path.join(self.path, name, "0"))
                os.rmdir(os.path.join(self.path, name))
            descriptor = opened(name, flags, dir_fd=dir_fd)
            os.unlink(os.path.join(self.path, name, "0"))
            os.rmdir(os.path.join(self.path, name))
            return descriptor

        with mock.patch("os.open", sweep_first), capturedLogs() as events:
            sweep(self.hidden)
        assert [] == events
        assert [] == os.listdir(self.path)

    def test_new_folder_may_be_swept_before_it_is_held(self) -> None:
        """
        If another process sweeps a new folder, at either of the two moments when it
        can, another one is made.
        """
        opened, tries = os.open, []

        def sweep_first(name: str, *rest: int, dir_fd: int) -> int:
            tries.append(name)
            if len(tries) == 1:
                sweep(dir_fd)
            descriptor = opened(name, *rest, dir_fd=dir_fd)
            if len(tries) == 3:
                os.rmdir(os.path.join(self.path, name))
            return descriptor

        with making_in_python(), mock.patch("os.open", sweep_first):
            self.make()
        assert 3 == len(set(tries[:-1]))  # The last one is a file.
        assert 1 == len(os.listdir(self.path))

    def test_it_gives_up_if_every_folder_is_swept(self) -> None:
        """
        Then something is very wrong.
        """
        with (
            mock.patch("fcntl.flock", side_effect=BlockingIOError),
            pytest.raises(BlockingIOError, match="swept away"),
        ):
            UploadFolder(self.hidden).create()


class UploadFilesTests(FileStoreCase):
    """
    Uploads end with their files.
    """

    def test_file_that_cannot_be_removed_is_logged(self) -> None:
        """
        The discard itself does not fail.
        """
        upload = self.result(self.open_store().begin(KEY, None))
        with (
            mock.patch("os.unlink", side_effect=OSError(errno.EIO, "broken")),
            capturedLogs() as events,
        ):
            upload.discard()

        assert ["{name} in the upload folder cannot be removed: {reason}"] == [
            event["log_format"] for event in events
        ]

    def test_an_upload_may_be_discarded_after_its_store_has_closed(self) -> None:
        """
        Its file was removed with the folder.
        """
        store = self.open_store()
        upload = self.result(store.begin(KEY, None))
        self.result(upload.write(b"half"))
        with capturedLogs() as events:
            self.result(store.close())
            assert [] == self.debris()
            upload.discard()

        assert [] == events

    def test_opening_a_store_sweeps(self) -> None:
        """
        Opening the store removes what a killed process has left, and leaves the uploads
        of a live one.
        """
        self.place(".kvd/4711-dead/0")
        living = self.open_store()
        upload = self.result(living.begin(KEY, 4))
        upload.write(b"live")
        self.place(".kvd/4712-dead/0")
        self.open_store()

        assert 1 == len(self.debris())
        upload.commit(UNCONDITIONAL)
        assert b"live" == living.open(KEY).read(0, 10)
