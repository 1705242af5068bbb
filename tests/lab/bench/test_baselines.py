"""
Tests that put kvd beside its baselines for a moment: that it can be done, not how fast
they are.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench import __main__ as command
from bench.building import Programs
from bench.clients.programs import Ccache, Curl, ParallelCurl
from bench.loads import Load, Report, Running, Traffic, Turn
from bench.machine import describe, file_system
from bench.measuring import Bench
from bench.medium import Medium
from bench.ratios import ratios_of
from bench.record import Record
from bench.servers import CServer, Kvd, Nginx, Server
from bench.workloads import WORKLOADS, Contender, Targets, Workload
from kvd.lab.measuring.record import read_record
from tests.integration.measured import forked_programs

pytestmark = pytest.mark.integration

BASELINES = [
    (Contender("nginx", Nginx()), Targets(rate=0)),
    (Contender("read", CServer()), Targets(work=0)),
    (Contender("splice", CServer(put="splice")), Targets(p99=0)),
]


def a_workload(load: Traffic, background: Load | None = None) -> Workload:
    """
    All servers under a load, with files.
    """
    kvd = Contender("kvd", Kvd())
    return Workload("tiny", "A little", load, kvd, BASELINES, "disk", background)


@forked_programs()
def test_every_server_is_measured_in_each_round(
    programs: Programs, tmp_path: Path
) -> None:
    """
    Without an error, and nothing of it is left.
    """
    load = Load("PUT", 300_000, connections=4, keys=8)
    said: list[str] = []
    bench = Bench(programs, Medium(tmp_path), seconds=0.05)

    outcome = bench.measure(a_workload(load), 2, said.append)

    expected = ["kvd", "nginx", "read", "splice", "nginx", "read", "splice", "kvd"]
    assert expected == [run.contender for run in outcome.runs]
    assert [0] * 8 == [run.report.errors for run in outcome.runs]
    assert all(run.server_cpu_seconds > 0 for run in outcome.runs)
    assert len(BASELINES) * 3 == len(ratios_of(outcome))
    assert [] == os.listdir(tmp_path)
    assert "tiny, round 2: nginx" in said


def shortened(load: Load, prefix: str) -> Load:
    """
    The same kind of requests, with less of everything.
    """
    return replace(
        load,
        body_bytes=min(load.body_bytes, 300_000),
        keys=min(load.keys, 16),
        connections=min(load.connections, 4),
        prefix=prefix,
    )


def in_short(workload: Workload) -> Traffic:
    """
    A workload's load, shortened.
    """
    load = workload.load
    if isinstance(load, Curl):
        return replace(load, load=shortened(load.load, workload.name))
    return shortened(load, workload.name) if isinstance(load, Load) else load


@forked_programs()
def test_every_server_serves_every_workload(programs: Programs, tmp_path: Path) -> None:
    """
    In a very short form, without an error: each kind of request.
    """
    servers: dict[str, Server] = {
        "kvd": Kvd(policy=None),
        "nginx": Nginx(),
        "C": CServer(),
        "splice": CServer(put="splice"),
    }
    turn = Turn("only", seconds=0.01)
    with ExitStack() as stack:
        running = {}
        for name, server in servers.items():
            folder = tmp_path / name
            folder.mkdir()
            running[name] = stack.enter_context(server.start(programs, folder))
        for workload in WORKLOADS:
            traffic = in_short(workload)
            for name, one in running.items():
                traffic.store(programs, one, [turn])
                report = traffic.run(programs, one, turn)
                seen = (workload.name, name, report.errors, report.first_error)
                assert (workload.name, name, 0, None) == seen
                assert report.requests, seen


@forked_programs()
def test_what_is_read_once_was_stored_before_the_server_started(
    programs: Programs, tmp_path: Path
) -> None:
    """
    And each turn reads values of its own.
    """
    stored: list[int] = []
    turns: list[tuple[int, str]] = []

    class Recorded(Load):
        def store(
            self, programs: Programs, server: Running, turns: Sequence[Turn]
        ) -> None:
            stored.append(server.pids[0])
            super().store(programs, server, turns)

        def run(self, programs: Programs, server: Running, turn: Turn) -> Report:
            turns.append((server.pids[0], turn.name))
            return super().run(programs, server, turn)

    load = Recorded("GET", 100, connections=4, once_per_second=400)
    bench = Bench(programs, Medium(tmp_path), seconds=0.05)

    outcome = bench.measure(
        Workload("tiny", "A little", load, Contender("kvd", Kvd()), []),
        2,
        lambda said: None,
    )

    assert [20, 20] == [run.report.requests for run in outcome.runs]
    kvd = turns[:4]
    assert ["0-warm", "0", "1-warm", "1"] == [name for _, name in kvd]
    assert not {pid for pid, _ in kvd} & set(stored)


def test_what_ccache_does_not_find_has_failed(
    programs: Programs, tmp_path: Path
) -> None:
    """
    The files of a build that nobody made before.
    """
    ccache, turn = Ccache(files_per_second=3), Turn("only", seconds=1)
    (tmp_path / "values").mkdir()
    with CServer().start(programs, tmp_path) as server:
        ccache.store(programs, server, [turn])
        shutil.rmtree(tmp_path / "ccache")

        report = ccache.run(programs, server, turn)

    assert (3, "not in the cache") == (report.errors, report.first_error)


def test_a_file_that_one_of_many_transfers_does_not_find_has_failed(
    programs: Programs, tmp_path: Path
) -> None:
    """
    The others are counted.
    """
    load, turn = Load("GET", 100, connections=2, once_per_second=4), Turn("only", 1)
    (tmp_path / "values").mkdir()
    with CServer().start(programs, tmp_path) as server:
        ParallelCurl(replace(load, once_per_second=3)).store(programs, server, [turn])

        report = ParallelCurl(load).run(programs, server, turn)

    assert (3, 1) == (report.requests, report.errors)
    assert "404" in str(report.first_error)


@forked_programs()
def test_a_load_can_be_measured_beside_another(
    programs: Programs, tmp_path: Path
) -> None:
    """
    The other is not counted.
    """
    load = Load("GET", 100, connections=2, keys=4)
    background = Load("PUT", 200_000, connections=2, keys=2, prefix="other")
    bench = Bench(programs, Medium(tmp_path), seconds=0.05)

    outcome = bench.measure(a_workload(load, background), 1, lambda said: None)

    assert [0] * 4 == [run.report.errors for run in outcome.runs]
    assert all(run.report.bytes == 100 * run.report.requests for run in outcome.runs)


@forked_programs()
def test_kvd_can_have_slower_syncs(programs: Programs, tmp_path: Path) -> None:
    """
    Each of its replies waits for one.
    """
    kvd = Kvd(durability="disk", sync_delay_ms=20)
    workload = Workload(
        "tiny",
        "A little",
        Load("PUT", 100, connections=1, keys=1),
        Contender("kvd", kvd),
        [(Contender("nginx", Nginx()), Targets())],
    )
    bench = Bench(programs, Medium(tmp_path), seconds=0.05)

    outcome = bench.measure(workload, 1, lambda said: None)

    assert 0.02 <= outcome.runs[0].report.p50_seconds


@forked_programs()
def test_the_command_shows_and_keeps_what_it_measured(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    As tables, as JSON and as a page.
    """
    tiny = a_workload(Load("PUT", 100, connections=2, keys=2))
    monkeypatch.setattr(command, "WORKLOADS", [tiny])
    monkeypatch.chdir(tmp_path)

    done = CliRunner().invoke(command.main, ["--quick", "--output", "out", "tiny"])

    assert 0 == done.exit_code, done.output
    assert "tiny: A little" in done.output
    assert "reached" in done.output
    record = read_record(str(tmp_path / "out" / "result.json"), Record)
    assert ["tiny"] == [summary.name for summary in record.workloads]
    assert (tmp_path / "out" / "report.html").stat().st_size


def test_an_unknown_workload_is_answered_with_the_known_ones() -> None:
    """
    Before anything is built.
    """
    done = CliRunner().invoke(command.main, ["fast"])

    assert 2 == done.exit_code
    assert "no workload named 'fast'; there are: get-once-reuseport" in done.output


def test_a_pattern_names_workloads() -> None:
    """
    Several at a time.
    """
    chosen = [workload.name for workload in command.choose(["put-size-*", "ccache"])]

    assert ["ccache", "put-size-100"] == chosen[:2]
    assert 10 == len(chosen)


def test_workloads_can_be_listed() -> None:
    """
    Each with what it is.
    """
    done = CliRunner().invoke(command.main, ["--list"])

    assert (
        "put-large                          PUT 40 MB to files, 8 keep-alive clients"
        in done.output
    )


def test_a_machine_is_described(programs: Programs, tmp_path: Path) -> None:
    """
    With its file systems and all versions.
    """
    machine = describe(
        programs, Medium(tmp_path).describe(), file_system(Path("/proc"))
    )

    assert machine["file systems"].endswith(", proc")
    assert "unknown" != file_system(tmp_path)
    assert all(machine.values())
