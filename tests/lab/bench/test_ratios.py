"""
Tests for the figures that are made of a benchmark's runs, and for how they are kept
and shown.
"""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from docutils.core import publish_doctree
from rich.console import Console

from bench.loads import Load, Report
from bench.measuring import Outcome, Run
from bench.ratios import ceiling_rate, ratios_of, rows
from bench.record import Record, Summary, summarize
from bench.report import write_report
from bench.rst import as_rst, replace_figures
from bench.servers import CServer, Kvd
from bench.showing import show_curves, show_ratios, show_summary
from bench.workloads import WORKLOADS, Contender, Targets, Workload
from kvd.lab.measuring.figures import Spread
from kvd.lab.measuring.record import read_record, write_record

LOAD = Load("PUT", 1000, connections=4, keys=8)
WORKLOAD = Workload(
    "some",
    "PUT 1 kB",
    LOAD,
    Contender("kvd", Kvd()),
    [(Contender("baseline", CServer()), Targets(rate=2, work=1.5))],
)


def a_run(
    contender: str, number: int, requests: int, cpu_seconds: float, p99: float = 0.01
) -> Run:
    """
    Of two seconds.
    """
    report = Report(
        requests=requests, seconds=2.0, bytes=1000 * requests, errors=0,
        first_error=None, connects=4, p50_seconds=0.001, p99_seconds=p99,
        max_seconds=0.02, cpu_seconds=1.0,
    )  # fmt: skip
    return Run(contender, number, report, cpu_seconds, wall_seconds=2.0)


def an_outcome() -> Outcome:
    """
    Three rounds; a machine that became slower for both after the first.
    """
    return Outcome(
        WORKLOAD,
        [
            a_run("kvd", 0, 3000, 1.0),
            a_run("baseline", 0, 1000, 1.0),
            a_run("baseline", 1, 100, 1.0, p99=0.03),
            a_run("kvd", 1, 200, 1.0),
            a_run("kvd", 2, 220, 2.0),
            a_run("baseline", 2, 100, 1.0, p99=0.05),
        ],
        ceiling=a_run("ceiling", 0, 8000, 1.0),
    )


def a_record() -> Record:
    """
    Of one workload.
    """
    machine = {"measured": "2026-01-02 03:04", "kernel": "Linux"}
    return Record(3, 2.0, machine, [summarize(an_outcome())])


def test_ratios_are_of_the_runs_of_one_round() -> None:
    """
    The median of the rounds' ratios, which is not the ratio of the medians.
    """
    rate, work, p99 = ratios_of(an_outcome())

    assert Spread(2.2, 2.0, 3.0) == rate.measured
    assert Spread(2.0, 1.1, 3.0) == work.measured
    assert Spread(3.0, 1.0, 5.0) == p99.measured


def test_a_target_is_reached_if_the_median_is() -> None:
    """
    Where there is no target, nothing is reached or missed.
    """
    rate, work, p99 = ratios_of(an_outcome())

    assert (True, True, None) == (rate.reached, work.reached, p99.reached)
    assert not replace(rate, target=2.3).reached


def test_a_row_has_the_medians_of_a_server() -> None:
    """
    kvd's comes first.
    """
    ours, theirs = rows(an_outcome())

    assert ("kvd", "baseline") == (ours.contender, theirs.contender)
    assert 110 == ours.rate
    assert 110_000 == ours.bytes_per_second
    assert 0.005 == ours.cpu_seconds_per_request
    assert (0.5, 0.5) == (ours.server_cores, ours.load_cores)


def test_failed_requests_are_shown_with_a_reason() -> None:
    """
    Of all rounds together.
    """
    outcome = an_outcome()
    report = replace(outcome.runs[0].report, errors=2, first_error="status 500")
    broken = [replace(outcome.runs[0], report=report), *outcome.runs[1:]]
    summary = summarize(replace(outcome, runs=broken))
    output = io.StringIO()

    show_summary(summary, Console(file=output, width=200))

    assert "kvd: 2 failed: status 500" in output.getvalue()
    assert 2 == replace(a_record(), workloads=[summary]).errors


def test_the_ceiling_is_what_the_load_reached_with_any_server() -> None:
    """
    A measured server may be leaner than the one that stands for the ceiling.
    """
    outcome = an_outcome()
    slow = replace(outcome, ceiling=a_run("ceiling", 0, 2, 1.0))

    assert 4000 == ceiling_rate(outcome)
    assert 110 == ceiling_rate(slow)


def test_ratios_are_shown_with_their_targets() -> None:
    """
    And those without a target are left out.
    """
    output = io.StringIO()

    show_ratios(a_record().workloads, Console(file=output, width=200))

    lines = output.getvalue().splitlines()
    expected = "some baseline rate 2.20 2.00..3.00 2 reached"
    assert expected == " ".join(lines[-2].split())
    assert lines[-1].split()[-3:] == ["1.10..3.00", "1.5", "reached"]


def a_curve() -> list[Summary]:
    """
    The same at two sizes of values.
    """
    return [
        replace(
            summarize(an_outcome()), name=f"size-{size}", curve="PUT", body_bytes=size
        )
        for size in (4096, 1_000_000)
    ]


def test_a_curve_is_shown_as_one_table() -> None:
    """
    Rather than with the other ratios.
    """
    output = io.StringIO()
    console = Console(file=output, width=200)
    slow = replace(
        a_curve()[1],
        ratios=[replace(ratio, target=3) for ratio in a_curve()[1].ratios],
    )

    show_ratios(a_curve(), console)
    assert "size-4096" not in output.getvalue()
    show_curves([a_curve()[0], slow], console)

    lines = [" ".join(line.split()) for line in output.getvalue().splitlines()]
    assert "4,096 2.20 2.00" in lines
    assert "1,000,000 *2.20 *2.00" in lines


def test_client_programs_have_no_ceiling() -> None:
    """
    Nor bodies, if nobody counts them.
    """
    outcome = replace(an_outcome(), ceiling=None)
    runs = [replace(run, report=replace(run.report, bytes=0)) for run in outcome.runs]
    summary = summarize(replace(outcome, runs=runs))
    output = io.StringIO()

    show_summary(summary, Console(file=output, width=200))

    assert summary.ceiling_rate is None
    assert summary.rows[0].cpu_seconds_per_gb is None
    assert "The client programs are the limit" in output.getvalue()


def test_a_record_can_be_read_again(tmp_path: Path) -> None:
    """
    With all that was in it.
    """
    path = str(tmp_path / "result.json")

    write_record(path, a_record())

    assert a_record() == read_record(path, Record)


def test_a_report_has_all_figures_and_drawings(tmp_path: Path) -> None:
    """
    In one file that asks for no other.
    """
    record = a_record()
    record.workloads.extend(a_curve())

    write_report(tmp_path / "report.html", record)

    page = (tmp_path / "report.html").read_text()
    assert 5 == page.count("<svg")
    assert ">1 MB<" in page
    assert '<td class=" yes">reached</td>' in page
    assert "src=" not in page


def test_a_document_gets_new_figures_in_place_of_old_ones() -> None:
    """
    What stands around them stays, and docutils can read them.
    """
    document = "Title\n=====\n\n.. figures\n\nold\n\n.. end of figures\n\nafter\n"

    once = replace_figures(document, as_rst(a_record()))

    assert once == replace_figures(once, as_rst(a_record()))
    assert once.startswith("Title\n=====\n\n.. figures\n\nOf 2026-01-02, 3 rounds")
    assert once.endswith("\n.. end of figures\n\nafter\n")
    assert "old" not in once
    settings = {"report_level": 1, "halt_level": 1, "syntax_highlight": "none"}
    publish_doctree(once, settings_overrides=settings)


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_workloads_differ(workload: Workload) -> None:
    """
    By their names, and within one its servers by theirs.
    """
    names = [contender.name for contender in workload.contenders]

    assert [workload] == [other for other in WORKLOADS if other.name == workload.name]
    assert len(names) == len(set(names))
