"""
Tests for `kvd.store.locks`.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from kvd.model.keys import MAX_KEY_BYTES, Key
from kvd.store.conferring import HIDDEN_NAME
from kvd.store.locks import LockFile, hashed, is_found, is_found_in_python, offset_of
from tests.descriptors import Descriptors


def test_each_key_has_one_offset() -> None:
    """
    Whichever kvd asks, compiled or not, for keys of any length.
    """
    seed = random.randrange(1 << 32)
    print("seed", seed)
    dice = random.Random(seed)
    for size in range(MAX_KEY_BYTES + 1):
        key = Key(dice.randbytes(size))
        assert hashed(key) == offset_of(key)


def test_offsets_stay_as_they_are() -> None:
    """
    Processes of other versions of kvd may have the same store open.
    """
    assert 0xDEBD2558BCA8FA0 == hashed(Key(b"a/b"))


def test_offsets_are_in_the_file() -> None:
    """
    The kernel takes none beyond 62 bits, and a key is bytes.
    """
    assert all(0 <= offset_of(Key(b"%d" % number)) < 1 << 62 for number in range(1000))
    with pytest.raises(TypeError):
        offset_of("a/b")  # type: ignore[arg-type]


def test_what_is_compiled_is_used() -> None:
    """
    Otherwise nothing is compared here.
    """
    assert is_found is not is_found_in_python


def test_a_lock_file_that_cannot_be_made_is_not_left_open(tmp_path: Path) -> None:
    """
    Where another user has made the file system, for example: each request would try
    again.
    """
    root = os.open(tmp_path, os.O_RDONLY)
    opened = Descriptors(str(tmp_path))
    with (
        mock.patch("os.fchmod", side_effect=PermissionError(errno.EPERM, "not yours")),
        pytest.raises(PermissionError),
    ):
        LockFile(root)
    left = opened.more
    os.close(root)

    assert 0 == left


@pytest.mark.parametrize(
    "form", [is_found, is_found_in_python], ids=["compiled", "Python"]
)
def test_a_lock_file_is_found_as_long_as_its_name_leads_to_it(
    form: Callable[[int, int, int], bool], tmp_path: Path
) -> None:
    """
    Not if it is another one of the same folder, or of another disk, nor if it is gone;
    a link is not followed.
    """
    root = os.open(tmp_path, os.O_RDONLY)
    file = LockFile(root)
    try:
        path = tmp_path / HIDDEN_NAME / "lock"
        status = path.stat()
        device, inode = status.st_dev, status.st_ino
        assert form(root, device, inode)
        assert not form(root, device, inode + 1)
        assert not form(root, device + 1, inode)

        path.rename(tmp_path / "other")
        assert not form(root, device, inode)
        path.symlink_to(tmp_path / "other")
        assert not form(root, device, inode)
        path.unlink()
        path.write_bytes(b"")
        assert not form(root, device, inode)
        (tmp_path / "other").replace(path)
        assert form(root, device, inode)
    finally:
        file.close()
        os.close(root)
    assert not form(root, device, inode)
