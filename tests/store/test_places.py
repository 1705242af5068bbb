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


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ("//bucket/films/?endpoint=http://two:1,http://one:1", True),
        ("//bucket/films?endpoint=http://one:1&region=x", True),
        ("//bucket/films?endpoint=http://two:1", False),
        ("//bucket/films", False),
        ("//bucket/films/old?endpoint=http://one:1", False),
        ("//bucket?endpoint=http://one:1", False),
        ("//other/films?endpoint=http://one:1", False),
    ],
)
def test_stores_in_buckets(other: str, expected: bool) -> None:
    """
    They are the same with the same prefix in the same bucket of the same engine. No key
    has a name with a prefix in it (`kvd.s3.names`), so one may contain the other.
    """
    one = StoreLocation("s3", "//bucket/films/?endpoint=http://one:1")
    assert expected == overlap(one, StoreLocation("s3", other))
    assert expected == overlap(StoreLocation("s3", other), one)
