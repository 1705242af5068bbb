"""
A few power cuts; ``make powercuts`` makes many.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.disk_image import KINDS
from tests.power_cuts.cutting import body_of, number_in
from tests.privileges import take_root

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("durability", ["process", "disk"])
def test_what_was_synced_is_never_lost_with_what_replaces_it(
    durability: str, kind: str
) -> None:
    """
    At durability ``process``; at ``disk`` nothing is lost at all.
    """
    take_root("mounting images of disks")
    ended = subprocess.run(
        [sys.executable, "-m", "tests.power_cuts", "3", "2", "50", durability, kind],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert 0 == ended.returncode, ended.stdout + ended.stderr
    assert 1 == ended.stdout.count("cuts of 50 keys after ")
    assert 1 == ended.stdout.count(" PUTs: 0 absent, 0 torn")
    assert ended.stdout.splitlines()[-1].split()[:2] == [kind, durability]


def test_there_was_load_before_the_power_was_cut() -> None:
    """
    However few cuts there are, and whenever: each key has been stored once more.
    """
    take_root("mounting images of disks")
    ended = subprocess.run(
        [sys.executable, "-m", "tests.power_cuts", "1", "0", "50", "process", "ext4"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert 0 == ended.returncode, ended.stdout + ended.stderr
    puts = re.search(r" after ([0-9]+) PUTs: ", ended.stdout)
    assert puts is not None, ended.stdout
    assert 2 * 50 <= int(puts[1])


def test_a_disk_that_cannot_be_made_is_the_error_that_is_told(tmp_path: Path) -> None:
    """
    Not that nothing was mounted where it should have been.
    """
    take_root("mounting images of disks")
    program = tmp_path / "mkfs.xfs"
    program.write_text("#!/bin/sh\necho no such disk >&2\nexit 1\n")
    program.chmod(0o755)
    ended = subprocess.run(
        [sys.executable, "-m", "tests.power_cuts", "1", "1", "5", "process", "xfs"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert 1 == ended.returncode
    told = ended.stderr.splitlines()[-1]
    assert "mkfs.xfs" in told
    assert "failed: no such disk" in told


def test_a_torn_value_is_reported() -> None:
    """
    Each value says all that it is, so that none is taken for another.
    """
    body = body_of("key", 7, 100)
    assert 100 == len(body)
    assert 7 == number_in("key", body)
    for torn in (b"", bytes(100), body[:50], body[:50] + bytes(50), body + b"x"):
        assert number_in("key", torn) is None
    assert number_in("other", body) is None
