"""
The tests of `kvd.store.file`.
"""

from kvd.testing import StoreContract
from tests.store.cases import FileStoreCase


class ProcessContractTests(StoreContract, FileStoreCase):
    """
    `FileStore` is a store, at durability ``process``.
    """

    durability = "process"


class DiskContractTests(StoreContract, FileStoreCase):
    """
    `FileStore` is a store, at durability ``disk``.
    """

    durability = "disk"


class StrangersTests(FileStoreCase):
    """
    Others may put into the folder what they like.
    """

    def setUp(self) -> None:
        super().setUp()
        self.store = self.open_store()

    def test_file_of_others_is_a_value(self) -> None:
        """
        A file without our attribute is served, listed and removed; its entity
        tag stays while it does not change.
        """
        self.place("a/b", b"12345")
        info = self.store.stat(Key(b"a/b"))

        assert (5, {}) == (info.size, info.metadata)
        assert info == self.store.stat(Key(b"a/b"))
        assert [info] == [*self.result(self.store.list(b"", b"", 1).next_slice())]
        self.place("a/b", b"other")
        os.utime(os.path.join(self.path, "a/b"), (1, 1))
        assert info.etag != self.store.stat(Key(b"a/b")).etag
        self.store.remove(Key(b"a/b"), UNCONDITIONAL)
        assert [] == self.found()

    def test_links_are_not_followed(self) -> None:
        """
        A link is absent for readers and listings. A value replaces it, and
        what it leads to stays as it was; a link to a folder is no folder.
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
            assert () == tuple(self.result(self.store.list(prefix, b"", 9).next_slice()))
        with pytest.raises(KeyConflict):
            self.store.begin(Key(b"folder/x"), None)
        assert self.publish(self.store).created
        with open(outside.name, "rb") as untouched:
            assert b"secret" == untouched.read()

    def test_a_link_in_the_way_is_found_at_the_commit(self) -> None:
        """
        A link that came after the upload had begun is not followed either.
        """
        upload = self.store.begin(Key(b"folder/x"), None)
        os.symlink("/tmp", os.path.join(self.path, "folder"))

        with pytest.raises(KeyConflict):
            upload.commit(UNCONDITIONAL)
        assert [] == self.debris()

    def test_nothing_blocks(self) -> None:
        """
        FIFOs, sockets and devices are absent, at once, and can be replaced.
        """
        os.mkfifo(os.path.join(self.path, "fifo"))
        os.mknod(os.path.join(self.path, "null"), 0o020666, os.makedev(1, 3))
        bound = socket.socket(socket.AF_UNIX)
        self.addCleanup(bound.close)
        bound.bind(os.path.join(self.path, "socket"))

        for key in (Key(b"fifo"), Key(b"null"), Key(b"socket")):
            self.error(KeyAbsent, lambda: self.store.open(key))  # noqa: B023
            self.error(KeyAbsent, lambda: self.store.remove(key, UNCONDITIONAL))  # noqa: B023
            assert self.publish(self.store, key).created

    def test_empty_folders_are_as_good_as_none(self) -> None:
        """
        A value takes the place of folders that hold nothing, however deep.
        """
        os.makedirs(os.path.join(self.path, "key/a/b/c"))
        os.makedirs(os.path.join(self.path, "key/d"))
        upload = self.store.begin(KEY, None)
        os.makedirs(os.path.join(self.path, "key/late"))

        assert upload.commit(UNCONDITIONAL)
        assert ["key"] == self.found()

    def test_folder_that_holds_anything_stays(self) -> None:
        """
        What is no value stays too, where a folder would have to go for a
        value.
        """
        os.makedirs(os.path.join(self.path, "key/a"))
        os.symlink("nowhere", os.path.join(self.path, "key/a/link"))

        with pytest.raises(KeyConflict):
            self.store.begin(KEY, None)
        assert ["key/a/link"] == self.found()

    def test_root_may_be_a_link(self) -> None:
        """
        The root itself is given by the operator, also through a link.
        """
        link = self.path + "-link"
        os.symlink(self.path, link)
        self.addCleanup(os.unlink, link)
        self.publish(self.store)
        store = FileStore(link, "process", self.clock, mock.Mock())
        self.addCleanup(store.close)

        assert b"v" == store.open(KEY).read(0, 10)

    def test_vanishing_between_check_and_removal_is_absence(self) -> None:
        """
        Somebody who takes no locks may be faster.
        """
        self.publish(self.store)
        with mock.patch("os.unlink", side_effect=FileNotFoundError(errno.ENOENT, "")):
            self.error(KeyAbsent, lambda: self.store.remove(KEY, UNCONDITIONAL))


class RoomTests(FileStoreCase):
    """
    A disk may be full.
    """

    def setUp(self) -> None:
        super().setUp()
        self.store = self.open_store()

    def test_length_without_room_is_refused_early(self) -> None:
        """
        A length beyond the free space is told before the first byte; the
        largest numbers are too, and what fits is not.
        """
        for length in (1 << 62, 1 << 80):
            with pytest.raises(StoreFull):
                self.store.begin(KEY, length)
        self.store.begin(KEY, 1).discard()
        assert [] == self.debris()

    def test_unlimited_filesystem_is_never_full(self) -> None:
        """
        A tmpfs without a limit says that it has 0 blocks.
        """
        unlimited = mock.Mock(f_bavail=0, f_blocks=0, f_frsize=4096)
        with mock.patch("os.fstatvfs", return_value=unlimited):
            self.store.begin(KEY, 1 << 40).discard()

    def test_errors_of_room_are_told_apart(self) -> None:
        """
        No space, no quota and too large a file are want of room; anything
        else is a fault, with the kernel's words.
        """
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            upload = self.store.begin(KEY, None)
            with (
                mock.patch("os.write", side_effect=OSError(number, "full")),
                pytest.raises(StoreFull),
            ):
                upload.write(b"x")
            upload.discard()
        upload = self.store.begin(KEY, None)
        with (
            mock.patch("os.write", side_effect=OSError(errno.EIO, "broken")),
            pytest.raises(StoreFault, match=r"The upload of /key .* broken\."),
        ):
            upload.write(b"x")
        upload.discard()
        assert [] == self.debris()

    def test_partial_writes_are_completed(self) -> None:
        """
        A write that took a part is followed by one of the rest.
        """
        write = os.write
        upload = self.store.begin(KEY, None)
        with mock.patch("os.write", lambda fd, chunk: write(fd, chunk[:3])):
            upload.write(b"12345678")
        upload.commit(UNCONDITIONAL)

        assert b"12345678" == self.store.open(KEY).read(0, 100)

    def test_failure_at_any_step_leaves_nothing(self) -> None:
        """
        Whatever call fails during a commit, it is told and leaves the old
        value and nothing else.
        """
        self.publish(self.store, Key(b"a/b"), b"old")
        for call in ("os.fstat", "os.setxattr", "os.rename", "os.open"):
            upload = self.store.begin(Key(b"a/b"), None)
            with (
                mock.patch(call, side_effect=OSError(errno.EIO, "broken")),
                pytest.raises(StoreFault, match="broken"),
            ):
                upload.commit(UNCONDITIONAL)
        for call in ("os.mkdir", "os.rename"):
            upload = self.store.begin(Key(b"c/d/e"), None)
            with (
                mock.patch(call, side_effect=OSError(errno.ENOSPC, "full")),
                pytest.raises(StoreFull),
            ):
                upload.commit(UNCONDITIONAL)

        assert b"old" == self.store.open(Key(b"a/b")).read(0, 100)
        assert ["a/b"] == self.found()
        assert [] == self.debris()

    def test_failures_elsewhere_are_faults(self) -> None:
        """
        Beginning, opening and removing tell what the kernel said.
        """
        self.publish(self.store)
        broken = OSError(errno.EIO, "broken")
        with mock.patch("os.open", side_effect=broken):
            self.error(StoreFault, lambda: self.store.begin(KEY, None))
            self.error(StoreFault, lambda: self.store.open(KEY))
            self.error(StoreFault, lambda: self.store.remove(KEY, UNCONDITIONAL))
        with mock.patch("os.unlink", side_effect=broken):
            self.error(StoreFault, lambda: self.store.remove(KEY, UNCONDITIONAL))

    def test_upload_that_is_swept_by_hand_fails(self) -> None:
        """
        If somebody removes the uploads, a commit gives up after a while and
        leaves no folder behind.
        """
        upload = self.store.begin(Key(b"a/b"), None)
        (file,) = self.debris()
        os.unlink(file)

        with pytest.raises(StoreFault, match="again and again"):
            upload.commit(UNCONDITIONAL)
        assert [] == self.found()

    def test_metadata_that_cannot_be_kept_is_refused(self) -> None:
        """
        What the contract does not allow is the caller's mistake.
        """
        with pytest.raises(ValueError, match="1025 bytes"):
            self.store.begin(KEY, None, {"x": "v" * 1024})
        with pytest.raises(ValueError, match="cannot be kept"):
            self.store.begin(KEY, None, {"x": "1\n2"})
        assert [] == self.debris()


class WaitingTests(FileStoreCase):
    """
    What waits does not hold up the reactor, and comes to its end.
    """

    def lock(self, key: Key) -> int:
        """
        Lock a key as another process would; closing the descriptor unlocks.
        """
        path = os.path.join(self.path, ".kvd", "lock")
        other = os.open(path, os.O_RDWR)
        self.addCleanup(lambda: os.close(other) if other in self.locked else None)
        self.locked.add(other)
        fcntl.lockf(other, fcntl.LOCK_EX, 1, offset_of(key))
        return other
