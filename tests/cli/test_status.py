"""
Tests for the tables of ``kvd status``.
"""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from kvd.cli.status import tables

BUSY = {
    "worker": 4095,
    "pid": 4194304,
    "state": "replacing",
    "handing_over": 12,
    "accepted": 12345678,
    "open": 20000,
    "requests": 1234567890,
    "in_progress": 12345,
    "bytes_in": 999_900_000_000,
    "bytes_out": 999_900_000_000,
    "busy_seconds": 123456.78,
    "silent_seconds": 1234.56,
}
STARTING = {"worker": 1, "pid": None, "state": "starting", "handing_over": 0}
SHADOW = {"workers": [{"worker": 4095, "dispatched": 12345678, "shadow": 12345677}]}


@pytest.mark.parametrize(("width", "count"), [(80, 2), (200, 1)])
@pytest.mark.parametrize("shadow", [None, SHADOW])
def test_nothing_is_cut_off(width: int, count: int, shadow: dict[str, Any]) -> None:
    """
    On a terminal of 80 columns neither, however much a worker has done.
    """
    screen = Console(width=width, file=(out := io.StringIO()))
    drawn = tables({"workers": [BUSY, STARTING], "shadow": shadow}, screen)
    for table in drawn:
        screen.print(table)

    assert count == len(drawn)
    words = out.getvalue().split()
    expected = [
        "4194304",
        "replacing",
        "starting",
        "1234567890",
        "123456.78",
        "1234.56",
    ]
    expected += ["12345678", "12345677"] if shadow else []
    assert set(expected) <= set(words)
    assert "…" not in out.getvalue()
    # Each worker has a line of its own in each table.
    assert count * len([BUSY, STARTING]) == sum(
        line.split()[:1] in (["4095"], ["1"]) for line in out.getvalue().splitlines()
    )
