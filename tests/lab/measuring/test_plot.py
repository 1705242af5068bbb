"""
Tests for `kvd.lab.measuring.plot`.
"""

from __future__ import annotations

import sys

import pytest

from kvd.lab.measuring.errors import PlotUnavailable
from kvd.lab.measuring.plot import check_plot


def test_other_suffixes_are_refused() -> None:
    """
    Before anything is measured.
    """
    with pytest.raises(PlotUnavailable, match=r"neither PNG nor SVG"):
        check_plot("busy.jpg")


def test_without_matplotlib_it_is_said_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    In one sentence.
    """
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    with pytest.raises(PlotUnavailable, match=r"pip install '\.\[plot\]'"):
        check_plot("busy.png")
