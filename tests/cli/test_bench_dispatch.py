"""
Tests for ``kvd bench dispatch`` and ``kvd bench small``.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from kvd.cli.bench import bench
from kvd.lab.bench.dispatch_plan import LOADS
from tests.integration.measured import forked_programs

DISPATCH = [
    "dispatch", "--procs=2", "--clients=4", "--seconds=0.2", "--rounds=1", "--mean=1ms",
]  # fmt: skip
# Long enough for a request to end in time while other tests need the processors.
SMALL = ["small", "--procs=1,2", "--clients=2", "--seconds=0.5", "--rounds=1"]


@pytest.mark.parametrize(
    ("command", "option", "sentence"),
    [
        (DISPATCH, "--policy=fair", "there is no policy named 'fair'"),
        (DISPATCH, "--policy=steered:by=luck", "steered:by=luck is none of"),
        (DISPATCH, "--load=heavy", "'heavy' is not one of"),
        (DISPATCH, "--mean=fast", "'fast' is not a valid time"),
        (DISPATCH, "--rounds=0", "'0' is not a number of rounds"),
        (DISPATCH, "--report=no/folder/x", "'no/folder/x' cannot be written: No such"),
        (SMALL, "--policy=fair", "there is no policy named 'fair'"),
        (SMALL, "--procs=1,0", "'0' is not a number of workers"),
        (SMALL, "--plot=curve.jpg", "'curve.jpg' can be neither PNG nor SVG"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(
    command: list[str], option: str, sentence: str
) -> None:
    """
    With a sentence.
    """
    result = CliRunner().invoke(bench, [*command, option])

    assert result.exit_code
    assert sentence in result.output


@pytest.mark.integration
@forked_programs()
def test_policies_are_compared(tmp_path: Path) -> None:
    """
    Under every load, with what a hand-over costs, in a table, a record and a page.
    """
    record, page = tmp_path / "figures.json", tmp_path / "page.html"
    options = ["--policy=leastbusy", "--policy=reuseport"]

    result = CliRunner().invoke(
        bench, [*DISPATCH, *options, f"--json={record}", f"--report={page}"]
    )

    assert 0 == result.exit_code, result.output
    assert "Targets" in result.output
    figures = json.loads(record.read_text())
    assert set(LOADS) == {load["load"] for load in figures["loads"]}
    for load in figures["loads"]:
        assert ["leastbusy", "reuseport"] == [p["policy"] for p in load["policies"]]
        for policy in load["policies"]:
            (run,) = policy["rounds"]
            assert {} == run["failures"]
            assert sum(run["requests_of_workers"]) > 0
            connections, requests = (
                sum(run[f"{name}_of_workers"]) for name in ("connections", "requests")
            )
            if load["load"] == "storm":
                # On a busy machine, each of its clients may come to one request only.
                assert connections <= requests
            else:
                kept = load["load"].startswith("keep-alive")
                assert kept == (connections < requests)
    assert ["leastbusy"] == [cost["policy"] for cost in figures["hand_over"]]
    assert page.read_text().count("<svg") == 2 * len(LOADS)


@pytest.mark.integration
@forked_programs()
def test_the_curve_is_measured(tmp_path: Path) -> None:
    """
    Each policy with each number of workers.
    """
    record, page = tmp_path / "figures.json", tmp_path / "page.html"
    plot = tmp_path / "curve.svg"

    result = CliRunner().invoke(
        bench, [*SMALL, f"--json={record}", f"--report={page}", f"--plot={plot}"]
    )

    assert 0 == result.exit_code, result.output
    assert "Ceiling of the load" in result.output
    points = json.loads(record.read_text())["points"]
    assert [
        (1, "shared"), (1, "reuseport"), (2, "shared"), (2, "reuseport")
    ] == [(point["workers"], point["policy"]) for point in points]  # fmt: skip
    assert all(point["requests_per_second"] > 0 for point in points)
    assert "<svg" in page.read_text()
    assert plot.exists()


@pytest.mark.integration
@forked_programs()
def test_a_page_that_cannot_be_written_is_reported() -> None:
    """
    After the table, in which everything stands.
    """
    little = [*SMALL, "--procs=1", "--policy=shared", "--report=/dev/full"]
    result = CliRunner().invoke(bench, little)

    assert 1 == result.exit_code
    assert "cannot be written: No space left" in result.output
    assert "Ceiling of the load" in result.output
