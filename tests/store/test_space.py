"""
Whether a store can take a value.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from kvd.store.space import Space, look_at
from tests.descriptors import Descriptors
from tests.integration.small_disk import tmpfs


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    """
    The folder of a store.
    """
    path = tmp_path / "values"
    path.mkdir()
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def test_a_store_with_room_takes_values(folder: int) -> None:
    """
    Nothing is left of the attempt.
    """
    space = look_at(folder)

    assert "" == space.complaint
    assert space.bytes is not None
    assert space.free_bytes is not None
    assert 0 < space.free_bytes <= space.bytes
    assert [] == os.listdir(folder)


def test_what_is_to_stay_free_is_not_room(folder: int) -> None:
    """
    Unless the store makes room.
    """
    complaint = look_at(folder, min_free=2**62).complaint

    assert complaint.startswith("The disk of the store is full: ")
    assert complaint.endswith(f"{2**62} of them stay so (--min-free).")
    assert "" == look_at(folder, min_free=2**62, evicts=True).complaint


def test_a_removed_folder_takes_none(folder: int, tmp_path: Path) -> None:
    """
    Also if there is another one of its name.
    """
    (tmp_path / "values").rmdir()
    (tmp_path / "values").mkdir()

    assert Space("The folder of the store has been removed.") == look_at(folder)


@pytest.mark.parametrize(
    ("number", "evicts", "complaint"),
    [
        (
            errno.ENOSPC,
            False,
            "The disk of the store is full: No space left on device.",
        ),
        (errno.EDQUOT, False, "The disk of the store is full: Disk quota exceeded."),
        (errno.ENOSPC, True, ""),
        (errno.EROFS, True, "The store cannot be written: Read-only file system."),
        (errno.EIO, False, "The store cannot be written: Input/output error."),
        (errno.EOPNOTSUPP, False, ""),
    ],
)
@pytest.mark.parametrize("call", ["os.open", "os.write"])
def test_a_disk_that_takes_nothing_is_named(
    folder: int, call: str, number: int, evicts: bool, complaint: str
) -> None:
    """
    Whichever step fails; a file system that has no nameless files is not asked.
    """
    if number == errno.EOPNOTSUPP and call == "os.write":
        complaint = "The store cannot be written: Operation not supported."
    opened = Descriptors(os.readlink(f"/proc/self/fd/{folder}"))
    with mock.patch(call, side_effect=OSError(number, os.strerror(number))):
        space = look_at(folder, evicts=evicts)

    assert complaint == space.complaint
    assert space.free_bytes is not None
    assert 0 == opened.more


def test_a_disk_that_does_not_answer_is_named(folder: int) -> None:
    """
    Then nothing is known of it.
    """
    with mock.patch(
        "os.fstatvfs", side_effect=OSError(errno.EIO, "Input/output error")
    ):
        space = look_at(folder)

    assert Space("The store cannot be used: Input/output error.") == space


@pytest.mark.parametrize(
    ("options", "values", "complaint"),
    [
        ("size=64k", 16, "The disk of the store is full: No space left on device."),
        ("nr_inodes=4", 3, "The disk of the store is full: No space left on device."),
        ("size=64k,ro", 0, "The file system of the store is read-only."),
    ],
)
def test_a_true_disk(tmp_path: Path, options: str, values: int, complaint: str) -> None:
    """
    Full of bytes, of files, or read-only.
    """
    with tmpfs(tmp_path / "disk", options) as path:
        for number in range(values):
            (path / str(number)).write_bytes(b"\0" * 4096 * ("size" in options))
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            space = look_at(folder)
        finally:
            os.close(folder)

    assert complaint == space.complaint
    if "inodes" in options:
        assert (0, 4) == (space.free_inodes, space.inodes)
    elif values:
        assert (0, 65536) == (space.free_bytes, space.bytes)
