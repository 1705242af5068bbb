"""
Tests for the bar of ``kvd put`` and ``kvd get``.
"""

from __future__ import annotations

import io
import sys

import pytest

from kvd.cli.progress import SHOWN_FROM_BYTES, bar


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
    with bar("name", length, quiet) as moved:
        moved(1)

    assert drawn == ("name" in err.getvalue())
