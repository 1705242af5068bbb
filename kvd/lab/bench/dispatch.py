"""
Every policy under the same loads: how fast, how even, and whether somebody is idle
while others queue.

The store is `kvd.store.sleep`: a request keeps its worker for a time and needs no
processor, so that even on two of them eight workers can all be busy. So what is
measured is dispatch, and not the machine.

Each policy has a daemon of its own. All of them run, and wait, while one is measured:
so the rounds are interleaved, and what else the machine is doing meets all alike. Of
each figure the median of the rounds is shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Final

from kvd.dispatch.selection import load_policy
from kvd.lab.bench.handing import HandOverCost, measure_hand_over
from kvd.lab.bench.load import Load
from kvd.lab.bench.programs import Daemon, daemon, send, short_folder
from kvd.lab.bench.run import Run
from kvd.lab.bench.sampling import Sampler

FEW: Final = 4
"""
So many times fewer clients: 2 for each worker, by default, instead of 8.
"""

STORM: Final = 16
"""
So many times more connections: 1,024 by default, from a few clients.
"""

LOADS: Final = {
    "equal": "equal times",
    "keep-alive": "equal times, keep-alive",
    "keep-alive-few": "equal times, keep-alive, few clients",
    "uneven": "uneven times, few clients",
    "uneven-many": "uneven times, many clients",
    "storm": "tiny requests, very many connections at once",
}

_BODY_BYTES: Final = 1


@dataclass(frozen=True, slots=True)
class Case:
    """
    One kind of load.
    """

    name: str
    """One of `LOADS`."""
    times: tuple[tuple[int, float], ...]
    """How many requests of all take how many seconds."""
    clients: int
    keep_alive: bool
    at_once: int = 1
    """How many connections each client opens at once."""

    @property
    def store(self) -> str:
        """
        The setting of a store that takes these times.
        """
        if not any(seconds for _, seconds in self.times):
            return "null:"
        return "sleep:" + ",".join(
            f"{many}x{seconds:.6f}" for many, seconds in self.times
        )

    @property
    def title(self) -> str:
        """
        In words.
        """
        total = sum(many for many, _ in self.times)
        times = " and ".join(
            f"{seconds * 1e3:g} ms"
            + (f" ({many / total * 100:g} %)" if many < total else "")
            for many, seconds in self.times
        )
        connections = "kept" if self.keep_alive else "new for each request"
        if self.at_once > 1:
            return (
                f"tiny requests over {self.clients * self.at_once:,} connections, all"
                f" opened at once and {connections}"
            )
        return (
            f"requests of {times} from {self.clients} clients, connections"
            f" {connections}"
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """
    What is measured.
    """

    policies: Sequence[str]
    loads: Sequence[str]
    workers: int
    clients: int
    mean_seconds: float
    """For which a request keeps its worker."""
    seconds: float
    """Of each run."""
    rounds: int
    hand_over: bool
    """Whether to measure what a hand-over costs, too."""

    @property
    def bound(self) -> float:
        """
        Requests per second that so many workers cannot exceed.
        """
        return self.workers / self.mean_seconds

    def cases(self) -> Sequence[Case]:
        """
        The loads, in their order.
        """
        mean, many, few = self.mean_seconds, self.clients, self.clients // FEW or 1
        equal = ((1, mean),)
        # As `kvd simulate --service uneven`: of the same mean.
        uneven = ((19, mean / 2), (1, mean * 10.5))
        known = (
            Case("equal", equal, many, False),
            Case("keep-alive", equal, many, True),
            Case("keep-alive-few", equal, few, True),
            Case("uneven", uneven, few, False),
            Case("uneven-many", uneven, many, False),
            Case("storm", ((1, 0.0),), few, True, max(2, many * STORM // few)),
        )
        return [case for case in known if case.name in self.loads]


@dataclass(frozen=True, slots=True)
class Seen:
    """
    One policy under one load, in all rounds.
    """

    policy: str
    runs: Sequence[Run]

    def middle(self, of: Callable[[Run], float]) -> float:
        """
        The median of a figure; not a number if that of a round is none.
        """
        figures = [of(run) for run in self.runs]
        return math.nan if any(map(math.isnan, figures)) else median(figures)

    @property
    def rate(self) -> float:
        """
        Requests per second.
        """
        return self.middle(lambda run: run.rate)

    def latency(self, share: float) -> float:
        """
        A percentile of the latencies.
        """
        return self.middle(lambda run: run.latency(share))

    @property
    def failed(self) -> int:
        """
        Requests that failed, of all rounds.
        """
        return sum(run.report.failed for run in self.runs)

    @property
    def typical(self) -> Run:
        """
        A round whose rate is nearest to the median.
        """
        return min(self.runs, key=lambda run: abs(run.rate - self.rate))


@dataclass(frozen=True, slots=True)
class Compared:
    """
    All policies under one load.
    """

    case: Case
    seen: Sequence[Seen]

    def by(self, policy: str) -> Seen | None:
        """
        What one policy did, if it was measured.
        """
        return next((seen for seen in self.seen if seen.policy == policy), None)


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    Everything.
    """

    plan: Plan
    compared: Sequence[Compared]
    hand_over: Sequence[HandOverCost]


def measure(plan: Plan, tell: Callable[[str], object]) -> Iterator[Compared]:
    """
    Measure every load.

    Args:
        plan: What is measured.
        tell: Is told what is measured next.

    Raises:
        BenchFailed: Something could not be measured at all.
    """
    cases = plan.cases()
    for store in dict.fromkeys(case.store for case in cases):
        tell(f"{len(plan.policies)} daemons are started")
        with _daemons(plan, store) as daemons:
            for case in cases:
                if case.store == store:
                    yield _compare(plan, case, daemons, tell)


@contextmanager
def _daemons(plan: Plan, store: str) -> Iterator[dict[str, Daemon]]:
    with ExitStack() as running:
        folders = {
            policy: running.enter_context(short_folder()) for policy in plan.policies
        }
        yield {
            policy: running.enter_context(daemon(policy, plan.workers, folder, store))
            for policy, folder in folders.items()
        }


def _compare(
    plan: Plan, case: Case, daemons: dict[str, Daemon], tell: Callable[[str], object]
) -> Compared:
    load = Load(
        0, _BODY_BYTES, case.clients, case.keep_alive, plan.seconds, case.at_once
    )
    runs: dict[str, list[Run]] = {policy: [] for policy in plan.policies}
    for number in range(plan.rounds):
        for policy in rotated(plan.policies, number):
            tell(f"round {number + 1} of {plan.rounds}, {case.name}: {policy}")
            runs[policy].append(_run(policy, daemons[policy], load))
    return Compared(case, [Seen(policy, runs[policy]) for policy in plan.policies])


def rotated(policies: Sequence[str], by: int) -> Sequence[str]:
    """
    Each round begins with another, so that nobody always comes after the same.
    """
    by %= len(policies)
    return [*policies[by:], *policies[:by]]


def _run(policy: str, served: Daemon, load: Load) -> Run:
    with short_folder() as folder:
        sampler = Sampler(served.control.status)
        report = send(served.port, load, folder, sampler.sample)
        work = sampler.finish()
        # Until the next round it may be idle for longer than the daemon keeps it.
        served.control.close()
        return Run(policy, report, work)


def measure_hand_overs(
    plan: Plan, tell: Callable[[str], object]
) -> Iterator[HandOverCost]:
    """
    Measure what the supervisor spends on a connection, for each policy in which it
    deals them.
    """
    for policy in plan.policies:
        if not load_policy(policy).kernel_chooses:
            tell(f"the supervisor's part of a connection: {policy}")
            with (
                short_folder() as folder,
                daemon(policy, plan.workers, folder) as served,
            ):
                yield measure_hand_over(policy, served)
