"""
The tests of `kvd.store.folders`.
"""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest

from kvd.model.keys import Key
from kvd.store.folders import (
    MAX_DEPTH,
    open_folder,
    open_nearest,
    open_nearest_by_names,
    open_path,
    open_path_by_names,
    prune,
    remove_empty,
    split,
)
from kvd.system.descriptors import raise_descriptor_limit
from tests.descriptors import Descriptors
from tests.privileges import take_root
from tests.store.cases import FolderCase, opening_by_names
from tests.store.test_conferring import GROUP, NAMED, umask


class FoldersTests(FolderCase):
    """
    Folders below a root are opened, made and removed.
    """

    def setUp(self) -> None:
        super().setUp()
        self.root = self.folder()

    def make(self, *parents: bytes) -> None:
        """
        Make a path of folders.
        """
        os.close(open_folder(self.root, parents, make=True))

    def test_key_is_split_into_folders_and_name(self) -> None:
        """
        The last segment is the name.
        """
        assert ([], b"a") == split(Key(b"a"))
        assert ([b"a", b"b"], b"c") == split(Key(b"a/b/c"))

    def test_folders_are_made_only_when_asked(self) -> None:
        """
        Without `make` a missing folder is an error.
        """
        with pytest.raises(FileNotFoundError):
            open_folder(self.root, [b"a", b"b"])
        self.make(b"a", b"b")
        self.make(b"a", b"b")

        os.close(open_folder(self.root, [b"a", b"b"]))
        assert ["a/b"] == self.found()

    def test_files_and_links_are_no_folders(self) -> None:
        """
        A path does not lead through a file or a link, at any depth.
        """
        self.place("a/file")
        os.symlink("..", os.path.join(self.path, "a/link"))

        for name in (b"file", b"link"):
            for parents in ([b"a", name], [b"a", name, b"b"]):
                for make in (False, True):
                    with pytest.raises(NotADirectoryError):
                        open_folder(self.root, parents, make=make)
        assert not remove_empty(self.root, b"a")
        assert not remove_empty(self.folder("a"), b"link")

    def test_folders_are_the_same_however_they_are_made(self) -> None:
        """
        In folders of an administrator too, and whatever the umask: their modes, groups,
        lists and marks.
        """
        take_root("giving a folder to another group")
        for number, (mode, group, listed) in enumerate(
            [(0o755, -1, b""), (0o2775, GROUP, b""), (0o2770, GROUP, NAMED)]
        ):
            folder = os.path.join(self.path, str(number))
            os.mkdir(folder)
            os.chown(folder, -1, group)
            os.chmod(folder, mode)
            if listed:
                os.setxattr(folder, "system.posix_acl_default", listed)
            made = []
            for opener in (open_path, open_path_by_names):
                for mask in (0, 0o022, 0o077):
                    with umask(mask):
                        root = self.folder(str(number))
                        inner = opener(root, b"a/b", 0o750)
                    made.append(
                        [_described(f"{folder}/{name}") for name in ("a", "a/b")]
                    )
                    assert os.path.samestat(os.fstat(inner), os.stat(f"{folder}/a/b"))
                    os.close(inner)
                    prune(root, [b"a", b"b"])
                    assert [] == os.listdir(folder)
            assert [made[0]] * 6 == made

    def test_another_may_make_a_folder_first(self) -> None:
        """
        If a missing folder appears before it can be made, it is used.
        """
        mkdir = os.mkdir

        def make_twice(name: bytes, mode: int, *, dir_fd: int) -> None:
            mkdir(name, mode, dir_fd=dir_fd)
            mkdir(name, mode, dir_fd=dir_fd)

        with opening_by_names(), mock.patch("os.mkdir", make_twice):
            self.make(b"a", b"b")
        assert ["a/b"] == self.found()

    def test_empty_folders_are_pruned(self) -> None:
        """
        Upwards, as far as they are empty, but never the root.
        """
        self.make(b"a", b"b", b"c")
        self.place("a/file")
        prune(self.root, [b"a", b"b", b"c"])
        assert ["a/file"] == self.found()

        os.unlink(os.path.join(self.path, "a/file"))
        prune(self.root, [b"a", b"b", b"c"])
        prune(self.root, [])
        assert [] == os.listdir(self.path)

    def test_longest_path_is_pruned(self) -> None:
        """
        With the most folders that a key can have, and few descriptors.
        """
        parents = [b"d"] * (MAX_DEPTH - 1)
        self.make(*parents)
        prune(self.root, parents)

        assert [] == os.listdir(self.path)

    def test_moved_folder_is_left_alone(self) -> None:
        """
        If another program moves a folder while it is pruned, nothing is removed at its
        new location.
        """
        self.make(b"a", b"b")
        self.make(b"elsewhere", b"a")
        rmdir = os.rmdir

        def move_first(name: bytes, *, dir_fd: int) -> None:
            rmdir(name, dir_fd=dir_fd)
            os.rename(
                os.path.join(self.path, "a"),
                os.path.join(self.path, "elsewhere", "moved"),
            )

        with mock.patch("os.rmdir", move_first):
            prune(self.root, [b"a", b"b"])
        assert ["elsewhere/a", "elsewhere/moved"] == self.found()

    def test_failing_prune_is_no_failure(self) -> None:
        """
        An empty folder does no harm.
        """
        self.make(b"a")
        with mock.patch("os.rmdir", side_effect=PermissionError):
            prune(self.root, [b"a"])
        assert ["a"] == self.found()

    def test_folders_of_folders_are_removed(self) -> None:
        """
        Folders that have disappeared are ignored; those that are filled meanwhile stay.
        """
        self.make(b"a", b"b", b"c")
        assert remove_empty(self.root, b"a")
        assert remove_empty(self.root, b"a")

        self.make(b"a")
        for error, gone in ((FileNotFoundError, True), (OSError, False)):
            with mock.patch("os.rmdir", side_effect=error):
                assert gone == remove_empty(self.root, b"a")

    def test_deeper_folders_than_a_key_has_are_left_alone(self) -> None:
        """
        kvd did not make them, and a recursion could overflow the stack.
        """
        # Each level takes two descriptors, as many as some systems give by default.
        raise_descriptor_limit()
        self.make(*[b"d"] * (MAX_DEPTH + 2))

        assert not remove_empty(self.root, b"d")


class FoldersByNamesTests(FoldersTests):
    """
    The same without a C compiler.
    """

    def setUp(self) -> None:
        super().setUp()
        self.enterContext(opening_by_names())


def _described(path: str) -> tuple[int, int, int, dict[str, bytes]]:
    """
    Mode, owner, group and attributes of a folder.
    """
    status = os.stat(path)
    attributes = {name: os.getxattr(path, name) for name in os.listxattr(path)}
    return status.st_mode, status.st_uid, status.st_gid, attributes


NEAREST = pytest.mark.parametrize(
    "form", [open_nearest, open_nearest_by_names], ids=["compiled", "Python"]
)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    """
    A folder with some in it, and what is none.
    """
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / "a/file").write_bytes(b"")
    (tmp_path / "a/link").symlink_to("b")
    with opened(tmp_path) as descriptor:
        yield descriptor


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """
    A folder that is open.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def test_what_is_compiled_is_used() -> None:
    """
    Otherwise nothing is compared here.
    """
    assert open_path is not open_path_by_names
    assert open_nearest is not open_nearest_by_names


@NEAREST
def test_the_last_folder_that_exists_is_opened(
    form: Callable[[int, bytes], tuple[int, bool]], root: int, tmp_path: Path
) -> None:
    """
    It is said whether it is the one that was asked for.
    """
    for path, last, missing in (
        (b"a/b/c", "a/b/c", False),
        (b"a", "a", False),
        (b"a/b/c/d", "a/b/c", True),
        (b"a/b/other/d/e", "a/b", True),
        (b"a/bb", "a", True),
    ):
        folder, is_missing = form(root, path)
        try:
            with opened(tmp_path / last) as same:
                assert os.path.sameopenfile(folder, same)
            assert missing is is_missing
        finally:
            os.close(folder)
    for path in (b"b", b"other/d/e"):
        assert (-1, True) == form(root, path)


@NEAREST
def test_nothing_is_opened_behind_what_is_no_folder(
    form: Callable[[int, bytes], tuple[int, bool]], root: int
) -> None:
    """
    Or where the system says something else than that a name is missing.
    """
    for path in (b"a/file", b"a/file/d", b"a/link", b"a/link/c", b"a/link/other/d"):
        with pytest.raises(NotADirectoryError):
            form(root, path)
    with pytest.raises(OSError, match=os.strerror(errno.ENAMETOOLONG)):
        form(root, b"a/" + b"n" * 256)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        form(-9, b"a/b")


@NEAREST
def test_no_other_descriptor_stays_open(
    form: Callable[[int, bytes], tuple[int, bool]], root: int, tmp_path: Path
) -> None:
    """
    Whatever is found.
    """
    files = Descriptors(str(tmp_path))
    folder, _ = form(root, b"a/b/c/d")
    assert 1 == files.more
    os.close(folder)
    form(root, b"other/d")
    with pytest.raises(NotADirectoryError):
        form(root, b"a/link/c")
    assert 0 == files.more
