"""
Tests of `kvd.store.places`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kvd.settings import StoreLocation
from kvd.store.places import overlap


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("values", "values", True),
        ("values", "link", True),
        ("values", "values/absent/cache", True),
        ("link/inner", "values", True),
        ("values", "values-of-another", False),
        ("absent", "values", False),
        ("absent", "absent/too", False),
    ],
)
def test_folders_that_overlap(
    tmp_path: Path, one: str, other: str, expected: bool
) -> None:
    """
    In both orders, and through links.
    """
    (tmp_path / "values" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to("values")
    first, second = (
        StoreLocation("file", str(tmp_path / name)) for name in (one, other)
    )
    assert expected == overlap(first, second)
    assert expected == overlap(second, first)


def test_stores_without_folders() -> None:
    """
    They overlap only with themselves.
    """
    null, folder = StoreLocation("null", ""), StoreLocation("file", "/")
    assert overlap(null, null)
    assert not overlap(null, folder)
