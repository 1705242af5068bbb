"""
Tests for what ``make bench-clients`` needs.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.clients.work import WORKS, Work
from kvd.lab.measuring.errors import BenchFailed


def test_what_is_missing_is_named_with_its_package(tmp_path: Path) -> None:
    """
    A program or a file. What is there is not.
    """
    file = tmp_path / "file"
    work = Work(WORKS["rclone"].steps, {}, {"sh": "dash", str(file): "files"})
    with pytest.raises(BenchFailed, match=r"file is not installed.*install files"):
        work.check()
    file.touch()
    work.check()
