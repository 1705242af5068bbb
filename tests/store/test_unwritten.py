"""
The tests of `kvd.store.unwritten`.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kvd.store.unwritten import (
    first_hole,
    first_hole_in_python,
    has_no_place,
    has_no_place_in_python,
)

PAGE = 1 << 16
"""
A multiple of the pages and blocks of which holes are made.
"""


def is_same_in_both_forms(file: int, size: int) -> bool:
    """
    What both forms say of a file. Only once it changes, when the file system writes the
    file.
    """
    said = [
        form(file, size)
        for form in (has_no_place_in_python, has_no_place, has_no_place_in_python)
    ]
    assert sorted(said, reverse=True) == said
    return said[1]


def test_both_forms_say_the_same(tmp_path: Path) -> None:
    """
    Of a file that was just written, if the file system reports it, and of one on the
    disk, which has its place; of an empty one, and of what is no file.
    """
    with open(tmp_path / "file", "wb", buffering=0) as file:
        assert not is_same_in_both_forms(file.fileno(), 0)
        file.write(b"12345")
        is_same_in_both_forms(file.fileno(), 5)
        os.fsync(file.fileno())
        assert not is_same_in_both_forms(file.fileno(), 5)
    for end in os.pipe():
        assert not is_same_in_both_forms(end, 5)
        os.close(end)
        assert not is_same_in_both_forms(end, 5)


def test_what_is_compiled_is_used() -> None:
    """
    Otherwise nothing is compared here.
    """
    assert first_hole is not first_hole_in_python
    assert has_no_place is not has_no_place_in_python


@pytest.mark.parametrize(
    "form", [first_hole, first_hole_in_python], ids=["compiled", "Python"]
)
def test_the_first_hole_is_found(
    form: Callable[[int, int], int], tmp_path: Path
) -> None:
    """
    At the beginning, within the file or at its end. If there is none, or if the file
    has grown, it is the size; what is no file has no holes.
    """
    with open(tmp_path / "file", "w+b", buffering=0) as file:
        number = file.fileno()
        assert 0 == form(number, 0)
        file.write(bytes(PAGE + 5))
        assert PAGE + 5 == form(number, PAGE + 5)
        assert PAGE == form(number, PAGE)
        file.truncate(3 * PAGE)
        assert 2 * PAGE > form(number, 3 * PAGE) >= PAGE + 5
        os.pwrite(number, b"end", 3 * PAGE)
        assert 2 * PAGE > form(number, 3 * PAGE + 3) >= PAGE + 5
        file.truncate(0)
        os.pwrite(number, b"end", 3 * PAGE)
        assert 0 == form(number, 3 * PAGE + 3)
    for end in os.pipe():
        with pytest.raises(OSError, match="seek"):
            form(end, 5)
        assert 0 == form(end, 0)
        os.close(end)
        with pytest.raises(OSError, match="descriptor"):
            form(end, 5)
