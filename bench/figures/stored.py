"""
The cost of a GET with many stored keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from bench.building import Programs, build
from bench.figures.daemon import show, workers
from bench.figures.placing import MILLION, place_flat
from bench.loads import Load, send
from kvd.lab.measuring.daemon import daemon
from kvd.lab.measuring.errors import BenchFailed
from kvd.lab.measuring.figures import median, ratios
from kvd.lab.measuring.processes import cpu_seconds

ROUNDS: Final = 9
SECONDS: Final = 1.0
ASKED: Final = 1000
"""More than a worker keeps open."""


def measure_stored(folder: Path) -> None:
    """
    GETs of a thousand empty values over 8 connections: where they are all values, and
    where they are the first of a million in one folder; and GETs of any of the million.
    One worker each, in turns.
    """
    programs = build(Path("build", "bench", "programs").absolute())
    with ExitStack() as daemons:
        running = {
            count: daemons.enter_context(_serving(folder / str(count), count))
            for count in (ASKED, MILLION)
        }
        few, many, any_of_many = zip(
            *(
                (
                    _cost(programs, *running[ASKED], ASKED),
                    _cost(programs, *running[MILLION], ASKED),
                    _cost(programs, *running[MILLION], MILLION),
                )
                for _ in range(ROUNDS)
            ),
            strict=True,
        )
    show(f"stored: GET where {ASKED:,} are stored", median(few) * 1e6, "us of CPU")
    what = f"stored: the same keys where {MILLION:,} are stored"
    show(what, _ratio(many, few), "times the CPU", 1.1)
    show("stored: any of these", _ratio(any_of_many, few), "times the CPU")


@contextmanager
def _serving(root: Path, count: int) -> Iterator[tuple[int, list[int]]]:
    place_flat(root, count)
    options = ("--procs=1", "--durability=process", f"--store=file:{root}")
    with daemon(*options) as served:
        yield served.port, workers(served.pid)


def _cost(programs: Programs, port: int, pids: list[int], keys: int) -> float:
    """
    The worker's CPU time for a request, in seconds.
    """
    before = cpu_seconds(pids)
    load = Load("GET", body_bytes=0, connections=8, keys=keys)
    report = send(programs, port, load, seconds=SECONDS)
    if report.errors:
        raise BenchFailed(f"a GET failed: {report.first_error}")
    return (cpu_seconds(pids) - before) / report.requests


def _ratio(costs: Sequence[float], others: Sequence[float]) -> float:
    return median(ratios(costs, others))
