"""
The measurement of the article that kvd descends from: clients that store large
values into /dev/null, and who of the workers serves them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from kvd.lab.bench.load import Load, Report
from kvd.lab.bench.programs import daemon, send, short_folder, sink
from kvd.lab.bench.run import Run
from kvd.lab.bench.sampling import Sampler


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
    """Whether the load is measured alone, too."""

    def load(self, keep_alive: bool) -> Load:
        """
        The load of one mode.
        """
        return Load(self.requests, self.body_bytes, self.clients, keep_alive)


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


def measure(plan: Plan, tell: Callable[[str], object]) -> Iterator[Mode]:
    """
    Measure everything, one after the other, each policy with a daemon of its own.

    Args:
        plan: What is measured.
        tell: Is told what is measured next.

    Raises:
        BenchFailed: Something could not be measured at all.
    """
    for keep_alive in (False, True):
        load = plan.load(keep_alive)
        name = mode_name(keep_alive)
        runs = []
        for policy in plan.policies:
            tell(f"{policy}, {name}")
            runs.append(measure_policy(policy, plan.workers, load))
        ceiling = None
        if plan.ceiling:
            tell(f"the load alone, {name}")
            ceiling = measure_ceiling(load)
        yield Mode(keep_alive, runs, ceiling)


def measure_policy(policy: str, workers: int, load: Load) -> Run:
    """
    Send a load to a new daemon.
    """
    with short_folder() as folder, daemon(policy, workers, folder) as served:
        sampler = Sampler(served.control.status)
        report = send(served.port, load, folder, sampler.sample)
        return Run(policy, report, sampler.finish())


def measure_ceiling(load: Load) -> Report:
    """
    Send a load to a sink.
    """
    with short_folder() as folder, sink(load.clients) as port:
        return send(port, load, folder)
