"""
Tests for `kvd.ipc.texts`.
"""

from __future__ import annotations

from kvd.ipc.texts import in_memory, read_text


def test_a_text_may_be_read_more_than_once() -> None:
    """
    Each worker reads it, through descriptors that share an offset.
    """
    text = "\u2603" * 100_000
    with in_memory("text", text) as file:
        assert [text] * 2 == [read_text(file.fileno()) for _ in range(2)]
