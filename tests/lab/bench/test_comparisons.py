"""
Tests for what ``kvd bench dispatch`` and ``kvd bench small`` make of measurements.
"""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from kvd.lab.bench import report
from kvd.lab.bench.dispatch import Outcome
from kvd.lab.bench.dispatch_plan import Case
from kvd.lab.bench.dispatch_table import show_compared, show_hand_over, show_targets
from kvd.lab.bench.records import dispatch_record, small_record
from kvd.lab.bench.run import Rounds, ceiling_line
from kvd.lab.bench.small import doubled
from kvd.lab.bench.small_plot import draw_curve
from kvd.lab.bench.small_table import show_curve
from kvd.lab.bench.targets import ratio, targets
from kvd.lab.measuring.plot import save
from kvd.lab.measuring.record import write_record
from kvd.lab.measuring.table import WIDTH
from kvd.lab.measuring.targets import Target
from kvd.store.sleep import read_times
from tests.lab.bench.comparisons import (
    MACHINE,
    PLAN,
    a_curve,
    a_run,
    an_outcome,
    compared,
    timed,
)


def test_what_ended_late_does_not_count_for_the_rate() -> None:
    """
    Nor does the time that it took: the clients were ever fewer.
    """
    assert 100 == timed(100, late=30).rate


@pytest.mark.parametrize("case", PLAN.cases()[:-1], ids=lambda case: case.name)
def test_requests_take_the_mean_under_every_load(case: Case) -> None:
    """
    So all can reach the same rate.
    """
    times = read_times(case.store.removeprefix("sleep:"))

    assert pytest.approx(PLAN.mean_seconds) == sum(times) / len(times)


def test_a_storm_is_of_requests_that_take_no_time() -> None:
    """
    Over far more connections than there are clients.
    """
    storm = PLAN.cases()[-1]

    assert "null:" == storm.store
    assert "tiny requests over 128 connections, all opened at once and kept" == (
        storm.title
    )


def test_the_default_is_held_against_the_best_in_a_storm() -> None:
    """
    By the longest request, which is what somebody waited who was not let in.
    """
    rates = {policy: [100.0] for policy in ("gated", "shared")}
    for longest, reached in ((0.019, True), (0.021, False)):
        storm = compared("storm", rates)
        storm.policies[0].runs[0].report.latencies[7] = longest
        (figure,) = targets(Outcome(PLAN, [storm], []))
        assert "longest request by the best, storm: gated" == figure.name
        assert reached is figure.reached

    assert [] == targets(Outcome(PLAN, [compared("storm", {"gated": [100.0]})], []))


@pytest.mark.parametrize(
    ("most", "expected"), [(1, [1]), (4, [1, 2, 4]), (6, [1, 2, 4, 6])]
)
def test_workers_are_doubled_up_to_the_most(most: int, expected: list[int]) -> None:
    """
    Which need not be a power of two.
    """
    assert expected == doubled(most)


def test_a_figure_is_the_median_of_the_rounds() -> None:
    """
    And the round that is drawn is the one nearest to it.
    """
    seen = Rounds("one", [a_run("one", rate) for rate in (90, 100, 300)])

    assert 100 == seen.rate
    assert 100 == seen.typical.rate


def test_a_figure_that_is_none_in_a_round_is_none() -> None:
    """
    The others are not taken for it.
    """
    seen = Rounds("one", [a_run("one", 1), a_run("one", 0)])

    assert math.isnan(seen.latency(0.5))


def test_ratios_are_of_the_same_round() -> None:
    """
    Both met the same machine: 2, 2 and 1.
    """
    both = compared("uneven", {"one": [200, 20, 10], "two": [100, 10, 10]})

    assert 2 == ratio(*both.policies)


def test_figures_of_a_run() -> None:
    """
    A worker is without clients for half of the time, and three quarters of the
    workers' time are busy.
    """
    run = a_run("one", 100, requests=(30, 10))

    assert 0.5 == pytest.approx(run.idle_while_others_queue)
    assert 0.625 == pytest.approx(run.utilisation)
    assert 0.8 == pytest.approx(run.balance)
    assert 1 == run.balance_of_connections


def figures() -> dict[str, Target]:
    """
    Those of the outcome, by their names.
    """
    return {figure.name: figure for figure in targets(an_outcome())}


@pytest.mark.parametrize(
    ("name", "measured", "reached"),
    [
        ("Jain's index of requests, equal: leastbusy", 1, True),
        ("idle while others queue, uneven: leastbusy", 50, False),
        ("rate, uneven: leastbusy by roundrobin", 1.6, True),
        ("rate by the best, keep-alive: leastbusy", 1, True),
        ("rate by the best, keep-alive-few: roundrobin", 0.625, False),
        ("microseconds of the supervisor for a connection: leastbusy", 20, True),
        ("connections/s that would fill the supervisor: leastbusy", 50_000, True),
    ],
)
def test_figures_to_reach(name: str, measured: float, reached: bool) -> None:
    """
    What was measured, and whether it is enough.
    """
    figure = figures()[name]

    assert measured == pytest.approx(figure.measured)
    assert reached is figure.reached


def test_what_is_left_to_chance_has_no_target() -> None:
    """
    As where the kernel's hash assigns connections that are kept.
    """
    rates = {"reuseport": [1.0], "shared": [1.0], "gated": [10.0]}
    outcome = an_outcome()
    kept = type(outcome)(PLAN, [compared("keep-alive", rates)], [])

    assert ["rate by the best, keep-alive: gated"] == [f.name for f in targets(kept)]


def printed() -> str:
    """
    All tables.
    """
    written = io.StringIO()
    console = Console(file=written, width=WIDTH)
    outcome = an_outcome()
    for one in outcome.compared:
        show_compared(one, console)
    show_hand_over(outcome.hand_over, console)
    show_targets(targets(outcome), console)
    curve = a_curve()
    show_curve(curve, console)
    console.print(ceiling_line(curve.ceiling, [point.rate for point in curve.points]))
    return written.getvalue()


@pytest.mark.parametrize(
    "line",
    [
        "leastbusy 170 10.0 10.0 10.0 1.0000 1.0000 50.0 % 62 % 0",
        "leastbusy 20.0 100 50,000",
        "rate, uneven: leastbusy by roundrobin 1.60 at least 1.50 reached",
        "2 reuseport 240 2.00 10.0 10.0 1.000 0.40 0.20 0",
        "Ceiling of the load, against a sink that discards: 300 requests/s, 1.2 times"
        " the fastest policy",
    ],
)
def test_tables_hold_the_figures(line: str) -> None:
    """
    As a person reads them.
    """
    assert line in [" ".join(one.split()) for one in printed().splitlines()]


def test_records_hold_the_figures(tmp_path: Path) -> None:
    """
    As a program reads them, with every round.
    """
    path = str(tmp_path / "record")
    outcome = an_outcome()

    write_record(path, dispatch_record(outcome, targets(outcome), MACHINE))
    record = json.loads(Path(path).read_text())
    assert 170 == record["loads"][0]["policies"][1]["requests_per_second"]
    assert [160, 180, 170] == [
        run["requests_per_second"]
        for run in record["loads"][0]["policies"][1]["rounds"]
    ]
    assert all("reached" in figure for figure in record["targets"])

    write_record(path, small_record(a_curve(), MACHINE))
    record = json.loads(Path(path).read_text())
    assert [100, 120, 200, 240] == [
        point["requests_per_second"] for point in record["points"]
    ]


def test_pages_need_nothing_beside_them(tmp_path: Path) -> None:
    """
    Tables and drawings are in them, and nothing is fetched from elsewhere.
    """
    path = str(tmp_path / "page.html")
    outcome = an_outcome()

    report.write_dispatch(path, outcome, targets(outcome), MACHINE)
    page = Path(path).read_text()
    assert 2 * len(outcome.compared) == page.count("<svg")
    assert "not reached" in page
    assert "src=" not in page

    report.write_small(path, a_curve(), MACHINE)
    page = Path(path).read_text()
    assert 1 == page.count("<svg")
    assert ">240<" in page


@pytest.mark.parametrize(
    ("name", "magic"), [("c.png", b"\x89PNG"), ("c.svg", b"<?xml")]
)
def test_the_curve_is_drawn(tmp_path: Path, name: str, magic: bytes) -> None:
    """
    As the file's name says.
    """
    save(draw_curve(a_curve()), str(tmp_path / name))

    assert (tmp_path / name).read_bytes().startswith(magic)
