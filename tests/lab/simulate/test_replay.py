"""
Tests for `kvd.lab.simulate.replay` and the plan of a record.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kvd.errors import RecordUnusable
from kvd.http.record import Connection, pack
from kvd.http.recorder import record_to
from kvd.lab.simulate.engine import Simulation
from kvd.lab.simulate.laboratory import simulate_case
from kvd.lab.simulate.load import Load
from kvd.lab.simulate.plan import recorded_plan
from kvd.lab.simulate.replay import AsRecorded, load_of, with_requests, workers_in

SECOND = 1_000_000_000

RECORD = [
    # Open for 5 s, of which two requests took 4.
    Connection(100 * SECOND, 5 * SECOND, 4 * SECOND, 10, 2, 1),
    Connection(101 * SECOND, 1 * SECOND, 0, 0, 0, 0),
    Connection(102 * SECOND, 1 * SECOND, 1 * SECOND, 10, 1, 1),
]


def test_a_record_becomes_a_load() -> None:
    """
    Requests of one connection are taken to be equal, and connections without
    any are left out.
    """
    record = with_requests(RECORD[::-1])

    assert [RECORD[0], RECORD[2]] == record
    assert 2 == workers_in(record)
    assert Load(
        [0.0, 2.0], [0, 2, 3], [2.0, 2.0, 1.0], 0, [0.5, 0.0]
    ) == load_of(record)  # fmt: skip


def test_what_was_chosen_then_can_be_chosen_again() -> None:
    """
    In every run: both connections were worker 1's.
    """
    record = with_requests(RECORD)
    policy = AsRecorded(record)

    for _ in range(2):
        outcome = Simulation(load_of(record), policy, 2).run()
        assert [0, 2] == outcome.connections


def test_a_plan_has_all_files_and_the_recorded_choice(tmp_path: Path) -> None:
    """
    Beside the policies that are asked for.
    """
    paths = [str(tmp_path / "record.1"), str(tmp_path / "record")]
    for path, one in zip(paths, RECORD[::2], strict=True):
        record_to(path)(pack([one]))

    plan = recorded_plan(paths, None)
    (case,) = plan.cases
    (_, recorded) = simulate_case(case, plan.further, [1])

    assert "2 connections with 3 requests to 2 workers" == case.title
    assert "(as recorded)" == recorded.policy
    assert 0.5 == recorded.figures.jain_requests


def test_fewer_workers_cannot_choose_as_was_recorded(tmp_path: Path) -> None:
    """
    More can.
    """
    path = str(tmp_path / "record")
    record_to(path)(pack(RECORD))

    assert {} == recorded_plan([path], 1).further
    assert 3 == recorded_plan([path], 3).cases[0].workers


def test_an_empty_record_is_named(tmp_path: Path) -> None:
    """
    There is nothing to replay.
    """
    path = str(tmp_path / "record")
    record_to(path)(pack(RECORD[1:2]))

    with pytest.raises(RecordUnusable, match="no requests are recorded in "):
        recorded_plan([path], None)
