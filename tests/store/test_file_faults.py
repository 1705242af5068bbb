"""
The file store on a disk that is full or broken (`kvd.store.upload`).
"""

import errno
import os
from unittest import mock

import pytest

from kvd.errors import (
    StoreExhausted,
    StoreFault,
    StoreFull,
)
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.model.values import MAX_METADATA_BYTES
from tests.store.cases import (
    KEY,
    FileStoreCase,
    few_descriptors,
    opening_by_names,
    placing_in_python,
)


class RoomTests(FileStoreCase):
    """
    The disk may be full.
    """

    def setUp(self) -> None:
        super().setUp()
        self.store = self.open_store()

    def test_length_without_room_is_refused_early(self) -> None:
        """
        Before the first byte, if the length is more than the free space, up to the
        largest numbers; a length that fits is accepted.
        """
        for length in (1 << 62, 1 << 80):
            with pytest.raises(StoreFull):
                self.result(self.store.begin(KEY, length))
        self.result(self.store.begin(KEY, 1)).discard()
        assert [] == self.debris()

    def test_unlimited_filesystem_is_never_full(self) -> None:
        """
        A tmpfs without a limit reports 0 blocks.
        """
        unlimited = mock.Mock(f_bavail=0, f_blocks=0, f_frsize=4096)
        with mock.patch("os.fstatvfs", return_value=unlimited):
            self.result(self.store.begin(KEY, 1 << 40)).discard()

    def test_errors_of_room_are_distinguished(self) -> None:
        """
        No space, no quota and too large a file are lack of room; other errors are
        faults, with the kernel's text.
        """
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            upload = self.result(self.store.begin(KEY, None))
            with (
                mock.patch("os.write", side_effect=OSError(number, "full")),
                pytest.raises(StoreFull),
            ):
                upload.write(b"x")
            upload.discard()
        upload = self.result(self.store.begin(KEY, None))
        with (
            mock.patch("os.write", side_effect=OSError(errno.EIO, "broken")),
            pytest.raises(StoreFault, match=r"The upload of /key .* broken\."),
        ):
            upload.write(b"x")
        upload.discard()
        assert [] == self.debris()

    def test_partial_writes_are_completed(self) -> None:
        """
        A partial write is followed by one of the rest.
        """
        write = os.write
        upload = self.result(self.store.begin(KEY, None))
        with mock.patch("os.write", lambda fd, chunk: write(fd, chunk[:3])):
            upload.write(b"12345678")
        upload.commit(UNCONDITIONAL)

        assert b"12345678" == self.store.open(KEY).read(0, 100)

    def test_failure_at_any_step_leaves_nothing(self) -> None:
        """
        Whichever call fails during a commit, the error is reported, and only the old
        value is left.
        """
        rename = "kvd.store.placing.exchange_names" if self.exchanges else "os.rename"
        self.publish(self.store, Key(b"a/b"), b"old")
        for call in ("os.fstat", "os.setxattr", rename, "os.open"):
            upload = self.result(self.store.begin(Key(b"a/b"), None))
            with (
                opening_by_names(),
                placing_in_python(),
                mock.patch(call, side_effect=OSError(errno.EIO, "broken")),
                pytest.raises(StoreFault, match=r"broken|Input/output error"),
            ):
                upload.commit(UNCONDITIONAL)
        for call in ("os.mkdir", "os.rename"):
            upload = self.result(self.store.begin(Key(b"c/d/e"), None))
            with (
                opening_by_names(),
                placing_in_python(),
                mock.patch(call, side_effect=OSError(errno.ENOSPC, "full")),
                pytest.raises(StoreFull),
            ):
                upload.commit(UNCONDITIONAL)

        assert b"old" == self.store.open(Key(b"a/b")).read(0, 100)
        assert ["a/b"] == self.found()
        assert [] == self.debris()

    def test_lack_of_descriptors_passes_and_leaves_nothing(self) -> None:
        """
        With any number of free descriptors, a value is stored, or the client is asked
        to try again and neither an upload, nor its folder, nor a folder of the key
        stays. The same for as long as it lasts, and afterwards.
        """
        outcomes = []
        reasons = set()
        for free in range(8):
            store = self.open_store()
            for _ in range(3):
                with few_descriptors(free):
                    try:
                        self.put(store, Key(b"a/b/c/d"), b"value")
                        outcomes.append(True)
                    except StoreExhausted as error:
                        reasons.add(error.sentence.rpartition(": ")[2])
                        outcomes.append(False)
                assert (["a/b/c/d"] if outcomes[-1] else []) == self.found()
                assert [] == self.debris()
                if outcomes[-1]:
                    self.result(store.remove(Key(b"a/b/c/d"), UNCONDITIONAL))
            store.close()
            assert ["attributes", "lock"] == sorted(
                os.listdir(os.path.join(self.path, ".kvd"))
            )
        assert {True, False} == set(outcomes)
        assert {"Too many open files."} == reasons
        assert 503 == StoreExhausted.status

    def test_lack_of_memory_passes(self) -> None:
        """
        Of the kernel's memory, or of the machine's descriptors.
        """
        for number in (errno.ENOMEM, errno.ENFILE):
            with mock.patch("os.open", side_effect=OSError(number, "none left")):
                self.error(StoreExhausted, lambda: self.store.open(KEY))
                self.error(StoreExhausted, lambda: self.store.begin(KEY, None))

    def test_failures_elsewhere_are_faults(self) -> None:
        """
        Beginning, opening and removing report the kernel's error.
        """
        self.publish(self.store)
        broken = OSError(errno.EIO, "broken")
        with mock.patch("os.open", side_effect=broken):
            self.error(StoreFault, lambda: self.store.begin(KEY, None))
            self.error(StoreFault, lambda: self.store.open(KEY))
            self.error(StoreFault, lambda: self.store.remove(KEY, UNCONDITIONAL))
        with mock.patch("os.unlink", side_effect=broken):
            self.error(StoreFault, lambda: self.store.remove(KEY, UNCONDITIONAL))

    def test_folder_that_is_pruned_meanwhile_is_made_again(self) -> None:
        """
        Another removal may prune a folder just after it was made for a commit: before
        or after it is opened.
        """
        opened, renamed = os.open, os.rename
        pruned: list[str] = []

        def prune_before(name: bytes, flags: int, *rest: int, dir_fd: int) -> int:
            folder = os.path.join(self.path, "a")
            if name == b"a" and os.path.isdir(folder) and not pruned:
                pruned.append("before it was opened")
                os.rmdir(folder)
            return opened(name, flags, *rest, dir_fd=dir_fd)

        def prune_after(
            old: str, new: bytes, *, src_dir_fd: int, dst_dir_fd: int
        ) -> None:
            if len(pruned) == 1:
                pruned.append("after it was opened")
                os.rmdir(os.path.join(self.path, "a"))
            renamed(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

        upload = self.result(self.store.begin(Key(b"a/b"), None))
        with (
            opening_by_names(),
            mock.patch("os.open", prune_before),
            placing_in_python(),
            mock.patch("os.rename", prune_after),
        ):
            upload.commit(UNCONDITIONAL)

        assert 2 == len(pruned)
        assert ["a/b"] == self.found()

    def test_upload_that_is_swept_by_hand_fails(self) -> None:
        """
        If another program keeps removing the uploads, a commit gives up after some
        attempts and leaves no folder behind.
        """
        upload = self.result(self.store.begin(Key(b"a/b"), None))
        (file,) = self.debris()
        os.unlink(file)

        with pytest.raises(StoreFault, match="keep removing"):
            upload.commit(UNCONDITIONAL)
        assert [] == self.found()

    def test_metadata_that_cannot_be_kept_is_refused(self) -> None:
        """
        Metadata beyond the contract is a mistake of the caller.
        """
        value = "v" * (MAX_METADATA_BYTES + 1 - len("expires"))
        with pytest.raises(ValueError, match=f"{MAX_METADATA_BYTES + 1} bytes"):
            self.result(self.store.begin(KEY, None, {"expires": value}))
        for name, value in (("expires", "1\n2"), ("content-length", "1")):
            with pytest.raises(ValueError, match="cannot be kept"):
                self.result(self.store.begin(KEY, None, {name: value}))
        assert [] == self.debris()
