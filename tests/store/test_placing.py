"""
Tests for `kvd.store.placing`: the compiled form of a publication, and the one in
Python, do the same.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from kvd.store import attribute
from kvd.store.epochs import current_epoch, stamp
from kvd.store.placing import (
    CREATED,
    KEPT,
    REPLACED,
    SCARCE,
    UNLINKED,
    UNNAMED,
    UNSEALED,
    Descriptors,
    Names,
    Placed,
    Present,
    Room,
    Seal,
    place,
    place_in_python,
    seal_file,
    seal_in_python,
)
from tests.exploring import exploring

Place = Callable[[Descriptors, Names, bool, bool, Room, Present, Seal], Placed]

NOW_US = 1_795_890_600_123_456
ETAG = "0123456789abcdef" * 2
LINES = b"content-type: text/plain\n"
ROOMY = Room(1 << 40, 1 << 41)
NAMES = Names(b"upload", b"name", b"kept")


class Case(NamedTuple):
    """
    What there is, and what is asked for.
    """

    there: str
    """What the name is: nothing, a value, a folder, or in a folder that is gone."""
    keeps: bool
    exchanges: bool
    is_kept_taken: bool = False
    """Whether something has the name already that the replaced value would get."""
    is_upload_gone: bool = False
    is_of_epoch: bool = False
    """Whether the value is of the present epoch."""
    room: Room = ROOMY
    earliest_us: int = 0
    sealed_us: int = 0
    sealed_epoch: int = 0
    epoch: int = 0
    lines: bytes = LINES


class Outcome(NamedTuple):
    """
    What came of it.
    """

    placed: Placed
    files: Mapping[str, tuple[bytes, bytes | None, int, int]]
    """For each name: content, attribute, access time and date."""


def _files(root: Path) -> Iterator[tuple[str, tuple[bytes, bytes | None, int, int]]]:
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.name != "lock":
            status = path.stat()
            has = attribute.NAME in os.listxattr(path)
            yield (
                str(path.relative_to(root)),
                (
                    path.read_bytes(),
                    os.getxattr(path, attribute.NAME) if has else None,
                    *(status.st_atime_ns, status.st_mtime_ns),
                ),
            )


def outcome(case: Case, form: Place) -> Outcome:
    """
    Publish by one of the forms.
    """
    with tempfile.TemporaryDirectory(prefix="kvd-test-") as path, ExitStack() as stack:
        root = Path(path)

        def opened(name: str, flags: int = os.O_RDONLY) -> int:
            descriptor = os.open(root / name, flags)
            stack.callback(os.close, descriptor)
            return descriptor

        for folder in ("uploads", "values"):
            (root / folder).mkdir()
        (root / "lock").touch()
        lock = opened("lock", os.O_RDWR)
        os.utime(lock, ns=(0, 1_000_000_007))
        epoch = current_epoch(lock)
        (root / "uploads" / "upload").write_bytes(b"new")
        os.utime(root / "uploads" / "upload", ns=(5, 5))
        file = opened("uploads/upload", os.O_WRONLY)
        name = root / "values" / "name"
        if case.there == "value":
            name.write_bytes(b"older")
            stamp(opened("values/name"), NOW_US - 5, epoch * case.is_of_epoch)
        elif case.there == "folder":
            (name / "inner").mkdir(parents=True)
        values = opened("values")
        if case.there == "gone":
            (root / "values").rmdir()
        if case.is_kept_taken:
            (root / "uploads" / "kept").write_bytes(b"other")
            os.utime(root / "uploads" / "kept", ns=(5, 5))
        if case.is_upload_gone:
            (root / "uploads" / "upload").unlink()
        exists = case.there == "value"
        placed = form(
            Descriptors(opened("uploads"), file, values, lock),
            NAMES,
            case.keeps,
            case.exchanges,
            case.room,
            Present(exists, 5, case.earliest_us, epoch * case.is_of_epoch),
            Seal(
                ETAG, 3, case.lines, case.sealed_us, case.sealed_epoch, NOW_US,
                case.epoch,
            ),
        )  # fmt: skip
        return Outcome(placed, dict(_files(root)))


def both(case: Case) -> Outcome:
    """
    What comes of it by both forms.
    """
    compiled = outcome(case, place)
    assert outcome(case, place_in_python) == compiled, case
    return compiled


def test_all_that_a_name_can_be() -> None:
    """
    With and without what it replaces being kept, and whether or not names are
    exchanged.
    """
    for keeps, exchanges in product((False, True), repeat=2):
        for is_taken, is_gone in product((False, True), repeat=2):
            for there in ("nothing", "value", "folder", "gone"):
                case = Case(there, keeps, exchanges, is_taken, is_gone)
                done = both(case)
                replaces = there == "value"
                if there in ("folder", "gone") or is_gone:
                    is_first = replaces and keeps and is_taken
                    assert (UNLINKED if is_first else UNNAMED) == done.placed.result
                elif replaces and keeps and is_taken:
                    assert UNLINKED == done.placed.result
                else:
                    result = (KEPT if keeps else REPLACED) if replaces else CREATED
                    assert result == done.placed.result, case
                    assert b"new" == done.files["values/name"][0]
                    assert "uploads/upload" not in done.files
                has_kept = done.files.get("uploads/kept", (b"",))[0]
                is_kept = KEPT == done.placed.result
                assert has_kept == (b"other" if is_taken else b"older" * is_kept)


def test_what_no_sync_can_have_written_is_not_kept() -> None:
    """
    If the file system says so; then nothing is left of it. It may write the file at any
    moment, for instance since another program syncs: each form is asked by itself.
    """
    for exchanges, form in product((False, True), (place, place_in_python)):
        done = outcome(Case("value", True, exchanges, is_of_epoch=True), form)
        assert done.placed.result in (REPLACED, KEPT)
        names = {"values/name"}
        if KEPT == done.placed.result:
            names.add("uploads/kept")
        assert names == set(done.files)
        assert b"new" == done.files["values/name"][0]
        assert (b"", 0) == done.placed[-2:]


def test_little_room() -> None:
    """
    Nothing was done, not even to seal the file.
    """
    case = Case("value", True, True, room=Room(1 << 20, 1 << 41))
    done = both(case)
    assert SCARCE == done.placed.result
    assert None is done.files["uploads/upload"][1]
    for harmless in (case._replace(keeps=False), case._replace(there="nothing")):
        assert both(harmless).placed.result in (CREATED, REPLACED)


def test_too_much_metadata() -> None:
    """
    It cannot be sealed, and has no name.
    """
    done = both(
        Case("value", True, True, lines=b"x" * 70_000, sealed_us=NOW_US - 10**7)
    )
    assert (UNSEALED, 0) == done.placed[:2]
    assert {"uploads/upload", "values/name"} == set(done.files)


def test_more_metadata_than_a_fast_path_has() -> None:
    """
    It is kept.
    """
    lines = b"x" * 2000
    with tempfile.NamedTemporaryFile(prefix="kvd-test-") as file:
        for form in (seal_file, seal_in_python):
            seal = Seal(ETAG, 3, lines, 0, 0, NOW_US, 0)
            assert NOW_US == form(file.fileno(), 0, seal)
            found = os.getxattr(file.name, attribute.NAME)
            assert attribute.encode(ETAG, 3, NOW_US, lines) == found


@exploring()
@given(
    st.sampled_from([0, 1, NOW_US - 123_456, NOW_US - 123_457, NOW_US, NOW_US + 10**6]),
    st.sampled_from([0, 7]),
    st.sampled_from([0, 7]),
    st.sampled_from([0, 1, NOW_US - 1, NOW_US, NOW_US + 1, NOW_US + 10**7]),
    st.sampled_from(["nothing", "value"]),
)
def test_seals(
    sealed_us: int, sealed_epoch: int, epoch: int, earliest_us: int, there: str
) -> None:
    """
    A seal stays if it is of the present second and the same epoch, and not earlier than
    what it replaces. The date is that of the present, or the earliest one.
    """
    done = both(
        Case(
            there,
            False,
            True,
            earliest_us=earliest_us,
            sealed_us=sealed_us,
            sealed_epoch=sealed_epoch,
            epoch=epoch,
        )
    )
    stays = (
        sealed_us // 10**6 == NOW_US // 10**6
        and sealed_epoch == epoch
        and earliest_us <= sealed_us
    )
    date_us = sealed_us if stays else max(NOW_US, earliest_us)
    assert (date_us, epoch) == (done.placed.sealed_us, done.placed.sealed_epoch)
    _, said, _, changed_ns = done.files["values/name"]
    # What is sealed already is left alone.
    assert stays == (said is None)
    if not stays:
        assert attribute.encode(ETAG, 3, date_us, LINES) == said
        assert 1000 * date_us == changed_ns
