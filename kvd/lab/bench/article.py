"""
The measurement of the article that kvd descends from: clients store large values into
/dev/null, and the figures show which workers serve them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from kvd.lab.bench.load import Load, Report
from kvd.lab.bench.programs import measure_ceiling, serving
from kvd.lab.bench.run import Run, measure_run


@dataclass(frozen=True, slots=True)
class Plan:
    """
    What is measured.
    """

    requests: int
    body_bytes: int
    clients: int
    workers: int
    policies: Sequence[str]
    ceiling: bool
    """Whether the load is sent to a server that does nothing, too."""


@dataclass(frozen=True, slots=True)
class Mode:
    """
    What was measured with one way to use connections.
    """

    keep_alive: bool
    runs: Sequence[Run]
    ceiling: Report | None

    @property
    def name(self) -> str:
        """
        For headings.
        """
        return mode_name(self.keep_alive)


def mode_name(keep_alive: bool) -> str:
    """
    How connections are used, in words.
    """
    return "keep-alive" if keep_alive else "a new connection for each request"


def measure(plan: Plan, progress: Callable[[str], object]) -> Iterator[Mode]:
    """
    Measure everything, one after the other, each policy with a daemon of its own.

    Args:
        plan: What is measured.
        progress: Gets a few words about what is measured next.

    Raises:
        BenchFailed: Something could not be measured at all.
    """
    for keep_alive in (False, True):
        load = Load(plan.requests, plan.body_bytes, plan.clients, keep_alive)
        name = mode_name(keep_alive)
        runs = []
        for policy in plan.policies:
            progress(f"{policy}, {name}")
            with serving(policy, plan.workers) as served:
                runs.append(measure_run(policy, served, load))
        ceiling = None
        if plan.ceiling:
            progress(f"the ceiling of the load, {name}")
            ceiling = measure_ceiling(load)
        yield Mode(keep_alive, runs, ceiling)
