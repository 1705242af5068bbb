"""
What both ways decide when they publish a value: the compiled form of each decision, and
the one in Python.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvd.store import conferring, epochs, placing, space, uploads
from tests.exploring import exploring

STAMPS = pytest.mark.parametrize("stamp", [epochs.stamp, epochs.stamp_in_python])
SECONDS = st.integers(0, 1 << 33)
FRACTIONS = st.integers(0, 999_999_999) | st.sampled_from([0, 1, 999, 1000, 1001])


def test_what_is_compiled_is_used() -> None:
    """
    Otherwise nothing is compared here.
    """
    for used, in_python in (
        (epochs.stamp, epochs.stamp_in_python),
        (epochs.stamped_epoch, epochs.stamped_epoch_in_python),
        (epochs._epoch_in, epochs.epoch_in_python),
        (placing.is_scarce, placing.is_scarce_in_python),
        (placing.seal_file, placing.seal_in_python),
        (placing.place, placing.place_in_python),
        (space.room_beside, space.room_beside_in_python),
        (conferring.mark_text, conferring.mark_text_in_python),
        (conferring.default_list, conferring.default_list_in_python),
        (conferring.conferred, conferring.conferred_in_python),
        (conferring.make_folder, conferring.make_folder_in_python),
        (uploads.kept_name, uploads.kept_name_in_python),
    ):
        assert used is not in_python


@exploring()
@given(FRACTIONS)
def test_both_forms_know_the_same_epochs(nanosecond: int) -> None:
    """
    Whole microseconds are none.
    """
    epoch = epochs.epoch_in_python(nanosecond)

    assert epoch == epochs._epoch_in(nanosecond)
    assert epoch == (0 if nanosecond % 1000 == 0 else nanosecond)


@exploring()
@given(SECONDS, FRACTIONS, st.sampled_from([-1, 0, 1, 2, 3]))
def test_both_forms_read_the_same_stamp(second: int, nanosecond: int, ago: int) -> None:
    """
    It says the epoch only if it is as far ahead as kvd makes it.
    """
    epoch = epochs.stamped_epoch_in_python(second, nanosecond, second - ago)

    assert epoch == epochs.stamped_epoch(second, nanosecond, second - ago)
    assert epoch == (nanosecond if ago == epochs.AHEAD_SECONDS else 0)


@STAMPS
def test_a_stamp_says_the_date_and_the_epoch(
    stamp: Callable[[int, int, int], None],
) -> None:
    """
    The file system keeps both; a value of no epoch has the date in both times.
    """
    with tempfile.TemporaryFile() as file:
        descriptor = file.fileno()
        for published_us in (1, 1_795_890_600_123_456, 1_795_890_601_000_000):
            for epoch in (0, 1, 999_999_999):
                stamp(descriptor, published_us, epoch)
                status = os.fstat(descriptor)
                assert 1000 * published_us == status.st_mtime_ns
                assert (epoch != 0) == epochs.is_of(epoch, status)
                if not epoch:
                    assert 1000 * published_us == status.st_atime_ns


@STAMPS
def test_a_stamp_that_cannot_be_set_is_an_error(
    stamp: Callable[[int, int, int], None],
) -> None:
    """
    Its reason is the kernel's.
    """
    with pytest.raises(OSError, match="Bad file descriptor"):
        stamp(1 << 30, 1, 0)


ROOM = st.integers(0, 1 << 20) | st.integers(0, 1 << 62)


@exploring()
@given(ROOM, ROOM, ROOM)
@example(5, 20, 20)
@example(6, 23, 20)
@example(0, 1 << 30, 1 << 62)
@example(0, (1 << 30) - 1, 1 << 62)
@example(1 << 62, 1 << 62, 1 << 62)
def test_both_forms_find_the_same_room_scarce(size: int, free: int, every: int) -> None:
    """
    Whatever the file system says.
    """
    sizes: Any = size, free, every

    assert placing.is_scarce_in_python(*sizes) is placing.is_scarce(*sizes)


@exploring()
@given(
    st.sampled_from([b"k", b"c"]),
    st.integers(0, (1 << 64) - 1) | st.integers(0, 20),
    st.lists(
        st.binary(min_size=1, max_size=9).filter(
            lambda part: min(part) > 32 and b"/" not in part
        )
        | st.integers(1, 255).map(lambda size: b"a" * size),
        min_size=1,
        max_size=3,
    ).map(b"/".join),
)
def test_both_forms_name_a_kept_value_alike(
    letter: bytes, number: int, key: bytes
) -> None:
    """
    The name says its key again, if it is one.
    """
    name = uploads.kept_name_in_python(letter, number, key)

    assert name == uploads.kept_name(letter, number, key)
    if name is not None and not any(
        part in (b".", b"..") or key.startswith(b".kvd") for part in key.split(b"/")
    ):
        assert key == uploads.key_of(name)


def test_the_longest_name_of_a_kept_value() -> None:
    """
    Has as many bytes as file systems permit.
    """
    for form in (uploads.kept_name, uploads.kept_name_in_python):
        assert b"kff." + b"a" * 251 == form(b"k", 255, b"a" * 251)
        assert form(b"k", 255, b"a" * 252) is None
        assert b"k0.a\x1fb" == form(b"k", 0, b"a/b")


@exploring()
@given(
    st.integers(0, 1 << 50),
    st.integers(0, 1 << 38),
    st.sampled_from([1, 512, 4096, 1 << 20]),
    st.sampled_from([0, 1, 1 << 40]),
)
def test_both_forms_find_the_same_room(
    min_free: int, available: int, unit: int, blocks: int
) -> None:
    """
    It may be less than nothing; a file system that reports no blocks has no limit.
    """
    room = space.room_beside_in_python(min_free, available, unit, blocks)

    assert room == space.room_beside(min_free, available, unit, blocks)
    assert room == (available * unit - min_free if blocks else None)


@pytest.mark.parametrize(
    "room", [space.room_beside, space.room_beside_in_python], ids=["compiled", "Python"]
)
def test_there_is_room_where_the_most_is_reported(
    room: Callable[[int, int, int, int], int | None],
) -> None:
    """
    File systems over networks without a limit of their own report as many bytes as the
    numbers of statvfs(3) hold.
    """
    unit = 16 << 20
    blocks = ((1 << 64) - 1) // unit
    found = room(1 << 40, blocks, unit, blocks)

    assert found is not None
    assert found > 1 << 62


@exploring()
@given(
    st.integers(0, 0o177777),
    st.integers(0, (1 << 32) - 1),
    st.integers(0, (1 << 32) - 1),
    st.binary(max_size=100),
)
def test_both_forms_mark_folders_alike(
    mode: int, user: int, group: int, access: bytes
) -> None:
    """
    By their permissions, owner and group, and what they confer.
    """
    mark = conferring.mark_text_in_python(mode, user, group, access)

    assert mark == conferring.mark_text(mode, user, group, access)
    assert mark.startswith(b"folder %o %d %d " % (mode & 0o7777, user, group))
