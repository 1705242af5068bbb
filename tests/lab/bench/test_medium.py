"""
Tests for the places of servers' values.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench import __main__ as command
from bench.medium import IMAGES, Medium
from tests.privileges import take_root

# Two servers of a workload, in a mount namespace of their own.
TWO = """
import os, sys
from pathlib import Path
from bench.machine import file_system
from bench.medium import Medium

medium = Medium(Path(sys.argv[1]), sys.argv[2])
with medium.place() as one, medium.place() as other:
    (one / "file").write_text("value")
    print(file_system(one), one.stat().st_dev != other.stat().st_dev)
    print(len(list(other.glob("file"))), medium.describe().partition(" on ")[0])
print(os.listdir(sys.argv[1]))
"""


def test_a_place_goes_with_all_that_is_in_it(tmp_path: Path) -> None:
    """
    Servers that share a file system share no folder.
    """
    medium = Medium(tmp_path)

    with medium.place() as one, medium.place() as other:
        (one / "file").touch()
        assert [] == os.listdir(other)

    assert [] == os.listdir(tmp_path)


@pytest.mark.integration
@pytest.mark.parametrize("kind", IMAGES)
def test_each_server_has_a_file_system_of_its_own(kind: str, tmp_path: Path) -> None:
    """
    Of the kind that was asked for; nothing of it is left.
    """
    take_root("mounting images")
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", TWO, str(tmp_path), kind],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert f"{kind} True\n0 {kind} in an image\n[]\n" == done.stdout, done.stderr


def test_an_image_takes_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    Anybody else is told so before anything is measured.
    """
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    result = CliRunner().invoke(
        command.main, ["--image=ext4", f"--output={tmp_path / 'out'}", "put-new-disk"]
    )

    assert 1 == result.exit_code
    assert "takes root; this is user 1000" in result.output
    assert not (tmp_path / "out").exists()
