"""
Tests for ``kvd bench``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from kvd.cli.bench import POLICIES, bench
from tests.integration.measured import forked_programs
from tests.processes import has_ended

TINY = [
    "article", "--requests=40", "--size=100kB", "--clients=4", "--procs=2",
]  # fmt: skip


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--size=large", "'large' is not a size"),
        ("--clients=0", "'0' is not a number of processes"),
        ("--requests=some", "'some' is not a number of requests"),
        ("--policy=fair", "there is no policy named 'fair'"),
        ("--plot=busy.jpg", "'busy.jpg' can be neither PNG nor SVG"),
        (
            "--plot=no/folder/busy.png",
            "'no/folder/busy.png' cannot be written: No such",
        ),
        ("--json=no/folder/figures", "'no/folder/figures' cannot be written: No such"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(
    option: str, sentence: str
) -> None:
    """
    With a sentence.
    """
    result = CliRunner().invoke(bench, [*TINY, option])

    assert result.exit_code
    assert sentence in result.output


@pytest.mark.parametrize("other", ["both.png", "./both.png", "link.png"])
def test_two_results_in_one_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    """
    One would be lost, after all has been measured.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "both.png").touch()
    (tmp_path / "link.png").symlink_to("both.png")
    result = CliRunner().invoke(bench, [*TINY, "--plot=both.png", f"--json={other}"])

    assert 2 == result.exit_code
    assert f"{other!r} is what --plot writes, too" in result.output


@pytest.mark.integration
@forked_programs()
def test_everything_is_measured(tmp_path: Path) -> None:
    """
    All policies in both modes, and every request is accounted for.
    """
    record = tmp_path / "figures.json"

    result = CliRunner().invoke(bench, [*TINY, f"--json={record}"])

    assert 0 == result.exit_code, result.output
    assert 2 == result.output.count("Ceiling of the load")
    modes = json.loads(record.read_text())["modes"]
    assert [False, True] == [mode["keep_alive"] for mode in modes]
    for mode in modes:
        assert list(POLICIES) == [run["policy"] for run in mode["runs"]]
        for run in mode["runs"]:
            assert {} == run["failures"]
            assert 40 == sum(run["requests_of_workers"])
            if run["policy"] == "roundrobin":
                # On a busy machine a worker may be passed over now and then.
                assert all(run["requests_of_workers"])


@pytest.mark.integration
@forked_programs()
def test_a_record_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    """
    After the table, in which everything stands.
    """
    tiny = [*TINY, "--policy=shared", "--no-ceiling"]
    result = CliRunner().invoke(bench, [*tiny, "--json=/dev/full"])

    assert 1 == result.exit_code
    assert "cannot be written: No space left" in result.output
    assert 2 == result.output.count("shared")


@pytest.mark.integration
def test_an_interrupted_measurement_leaves_nothing_running(tmp_path: Path) -> None:
    """
    Neither the daemon nor the load.
    """
    options = ["--requests=100000", "--size=1MB", "--clients=2", "--procs=1"]
    command = [sys.executable, "-m", "kvd.cli.main", "bench", "article", *options]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        # The daemon first, then the program that sends.
        while len(started := children_of(process.pid)) < 2:
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait()

    assert 128 + signal.SIGTERM == status
    assert [] == list(tmp_path.iterdir())
    assert [] == [pid for pid in started if not has_ended(pid)]


def children_of(parent: int) -> list[int]:
    """
    The processes that a process has started.
    """
    found = []
    for name in os.listdir("/proc"):
        try:
            with open(f"/proc/{name}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            # No process, or one that has ended.
            continue
        if int(fields[1]) == parent:
            found.append(int(name))
    return found
