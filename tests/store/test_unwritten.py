"""
The tests of `kvd.store.unwritten`.
"""

import os
from pathlib import Path

from kvd.store.unwritten import has_no_place, has_no_place_in_python


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
