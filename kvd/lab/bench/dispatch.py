"""
Every policy under the same loads: how fast, how even, and whether a worker is idle
while clients queue at others.

The store is `kvd.store.sleep`: a request keeps its worker busy for a time and needs no
processor, so that eight workers can all be busy on a machine with two. What is measured
is therefore dispatch, and not the machine.

Each policy has a daemon of its own. All daemons run during all rounds, and all but one
wait while that one is measured. The rounds are interleaved, so whatever else the
machine does affects all policies alike. Each figure is the median of the rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from kvd.dispatch.selection import load_policy
from kvd.lab.bench.dispatch_plan import Case, Plan
from kvd.lab.bench.hand_over import HandOverCost, measure_hand_over
from kvd.lab.bench.load import Load
from kvd.lab.bench.programs import serving
from kvd.lab.bench.run import Rounds, Run, measure_run
from kvd.lab.measuring.daemon import Daemon
from kvd.lab.measuring.figures import rotated

_BODY_BYTES: Final = 1


@dataclass(frozen=True, slots=True)
class Compared:
    """
    All policies under one load.
    """

    case: Case
    policies: Sequence[Rounds]

    def by(self, policy: str) -> Rounds | None:
        """
        The runs of one policy, if it was measured.
        """
        return next((each for each in self.policies if each.policy == policy), None)


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    Everything that was measured.
    """

    plan: Plan
    compared: Sequence[Compared]
    hand_over: Sequence[HandOverCost]


def measure(plan: Plan, progress: Callable[[str], object]) -> Iterator[Compared]:
    """
    Measure every load.

    Args:
        plan: What is measured.
        progress: Gets a few words about what is measured next.

    Raises:
        BenchFailed: Something could not be measured at all.
    """
    cases = plan.cases()
    for store in dict.fromkeys(case.store for case in cases):
        progress(f"{len(plan.policies)} daemons are started")
        with _daemons(plan, store) as daemons:
            for case in cases:
                if case.store == store:
                    yield _compare(plan, case, daemons, progress)


@contextmanager
def _daemons(plan: Plan, store: str) -> Iterator[Mapping[str, Daemon]]:
    with ExitStack() as running:
        yield {
            policy: running.enter_context(serving(policy, plan.workers, store))
            for policy in plan.policies
        }


def _compare(
    plan: Plan,
    case: Case,
    daemons: Mapping[str, Daemon],
    progress: Callable[[str], object],
) -> Compared:
    load = Load(
        0, _BODY_BYTES, case.clients, case.keep_alive, plan.seconds, case.at_once
    )
    runs: dict[str, list[Run]] = {policy: [] for policy in plan.policies}
    for number in range(plan.rounds):
        for policy in rotated(plan.policies, number):
            progress(f"round {number + 1} of {plan.rounds}, {case.name}: {policy}")
            runs[policy].append(measure_run(policy, daemons[policy], load))
    return Compared(case, [Rounds(policy, runs[policy]) for policy in plan.policies])


def measure_hand_overs(
    plan: Plan, progress: Callable[[str], object]
) -> Iterator[HandOverCost]:
    """
    Measure what a connection costs the supervisor, for each policy with which it hands
    connections over.
    """
    for policy in plan.policies:
        if not load_policy(policy).kernel_chooses:
            progress(f"the supervisor's part of a connection: {policy}")
            with serving(policy, plan.workers) as served:
                yield measure_hand_over(policy, served)
