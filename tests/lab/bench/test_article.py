"""
Tests for what ``kvd bench article`` makes of its figures: table, record, drawing.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from kvd.lab.bench.article import Mode
from kvd.lab.bench.article_plot import draw_busy_time
from kvd.lab.bench.article_table import plan_line, show_mode
from kvd.lab.bench.records import article_record
from kvd.lab.bench.run import ceiling_line
from kvd.lab.measuring.plot import check_plot, save
from kvd.lab.measuring.record import write_record
from kvd.lab.measuring.table import WIDTH
from tests.lab.bench.runs import PLAN, a_report, a_run, modes


def shown(mode: Mode) -> str:
    """
    What a person reads.
    """
    written = io.StringIO()
    show_mode(mode, 4_000_000, Console(file=written, width=WIDTH))
    return written.getvalue()


def test_a_row_has_all_figures() -> None:
    """
    2 requests/s of 4 MB, by 6 and 2, with a quarter of the time under half.
    """
    row = next(
        line
        for line in shown(Mode(True, [a_run()], None)).splitlines()
        if "one" in line
    )

    figures = "one 2 0.01 500 500 500 6 2 0 0.80 25 % 0.2, 1.5, 0.1 0"
    assert figures == " ".join(row.split())


def test_the_requests_of_each_worker_are_shown_while_they_are_few() -> None:
    """
    By worker; of many, the least and the most.
    """
    few = shown(Mode(True, [a_run(requests=[10, 9, 8, 7, 6, 5, 4, 3])], None))
    many = shown(Mode(True, [a_run(requests=[10, 9, 8, 7, 6, 5, 4, 3, 2])], None))

    assert " 10 9 8 7 " in few
    assert "6 5 4 3" in [line.strip() for line in few.splitlines()]
    assert " 2..10 " in many


def test_failures_are_shown_with_their_reasons() -> None:
    """
    Nothing is hidden.
    """
    report = a_report([0.5] * 5, {"status 507": 2, "[Errno 104] reset": 1})

    text = shown(Mode(True, [a_run(report=report)], None))

    assert "one: 2 failed: status 507" in text
    assert "one: 1 failed: [Errno 104] reset" in text


def test_nothing_but_failures_has_no_latency() -> None:
    """
    And still a row.
    """
    report = a_report([], {"status 507": 8})

    assert " - " in shown(Mode(True, [a_run(report=report)], None))


def test_requests_that_no_worker_counted_are_reported() -> None:
    """
    As after a worker died.
    """
    text = shown(Mode(True, [a_run(requests=(4, 2))], None))

    assert "one: the workers counted 2 requests fewer" in text


def test_the_load_is_compared_with_the_fastest() -> None:
    """
    Since that is the one it could have limited.
    """
    fast = a_run(report=a_report([0.1] * 16))

    assert "20 requests/s, 5.0 times the fastest policy" in ceiling_line(
        a_report([0.1] * 80), [a_run().rate, fast.rate]
    )


def test_the_plan_is_one_line() -> None:
    """
    So that a table can be understood by itself.
    """
    assert (
        "8 PUTs of 4 MB from 2 clients to 2 workers with the null store"
        == plan_line(PLAN)
    )


def test_the_record_is_json(tmp_path: Path) -> None:
    """
    Also where a figure is not a number.
    """
    path = tmp_path / "figures.json"
    lost = Mode(True, [a_run(report=a_report([], {"status 507": 8}))], None)

    write_record(str(path), article_record(PLAN, [*modes(), lost], {}))

    record = json.loads(path.read_text(), parse_constant=pytest.fail)
    run = record["modes"][0]["runs"][1]
    assert "two" == run["policy"]
    assert [6, 2] == run["requests_of_workers"]
    assert 0.25 == run["share_of_time_under_half_busy"]
    assert record["modes"][2]["runs"][0]["p50_seconds"] is None


@pytest.mark.parametrize(
    ("name", "signature"), [("busy.png", b"\x89PNG\r\n\x1a\n"), ("busy.SVG", b"<?xml")]
)
def test_the_suffix_chooses_the_kind_of_drawing(
    name: str, signature: bytes, tmp_path: Path
) -> None:
    """
    Whatever its case.
    """
    path = tmp_path / name
    check_plot(str(path))

    save(draw_busy_time(PLAN, modes()), str(path))

    assert path.read_bytes().startswith(signature)


def test_an_svg_is_dark_where_its_reader_is(tmp_path: Path) -> None:
    """
    A document shows it on a dark page as on a light one.
    """
    path = tmp_path / "busy.svg"

    save(draw_busy_time(PLAN, modes()), str(path))

    assert "prefers-color-scheme: dark" in path.read_text()
