"""
Tests for the bars of ``kvd put`` and ``kvd get``.
"""

from __future__ import annotations

import io
import sys

import pytest

from kvd.cli.progress import SHOWN_FROM_BYTES, bars


class Stream(io.StringIO):
    """
    A standard stream.
    """

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.mark.parametrize(
    ("out", "err", "length", "quiet", "drawn"),
    [
        (Stream(True), Stream(True), SHOWN_FROM_BYTES, False, True),
        (Stream(True), Stream(True), None, False, True),
        (Stream(True), Stream(True), SHOWN_FROM_BYTES, True, False),
        (Stream(True), Stream(True), SHOWN_FROM_BYTES - 1, False, False),
        (Stream(False), Stream(True), SHOWN_FROM_BYTES, False, False),
        (Stream(True), Stream(False), SHOWN_FROM_BYTES, False, False),
        (None, Stream(True), SHOWN_FROM_BYTES, False, False),
    ],
)
def test_a_bar_is_for_a_person_that_waits(
    out: Stream | None,
    err: Stream,
    length: int | None,
    quiet: bool,
    drawn: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    At a terminal, for something large, unless it is not wanted.
    """
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with bars(quiet) as begin, begin("name", length) as moved:
        moved(1)

    assert drawn == ("name" in err.getvalue())


def test_several_values_have_a_line_each_and_one_for_their_sum(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    However small they are.
    """
    monkeypatch.setattr(sys, "stdout", Stream(True))
    monkeypatch.setattr(sys, "stderr", err := Stream(True))
    with bars(False, 3, 30) as begin:
        with begin("first", 10) as moved:
            moved(10)
        with begin("second", 10), begin("third", 10) as moved:
            moved(10)

    drawn = err.getvalue()
    assert all(name in drawn for name in ("first", "second", "third", "3 of 3"))
    assert "20/30 bytes" in drawn
