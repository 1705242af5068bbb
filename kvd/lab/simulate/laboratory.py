"""
Policies by name, and each case under all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from kvd.dispatch.selection import load_policy
from kvd.interfaces import IDispatchPolicy
from kvd.lab.simulate.engine import Simulation
from kvd.lab.simulate.figures import Figures, average, figures, mean_wait, one_queue
from kvd.lab.simulate.outcome import BadChoice
from kvd.lab.simulate.plan import Case

ONE_QUEUE: Final = "(one queue)"
"""
The reference, shown among the policies.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """
    A policy and its figures, averaged over runs.
    """

    policy: str
    model: bool
    """Whether the kernel chooses, so that the policy has only a model of it."""
    figures: Figures


def load_policies(names: Sequence[str]) -> dict[str, IDispatchPolicy]:
    """
    Policies by their names, as the daemon loads them.

    Raises:
        UnknownPlugin: There is none of a name.
        BrokenPlugin: One cannot be loaded.
        BadSetting: Its options are wrong.
    """
    return {name: load_policy(name) for name in names}


def simulate_case(
    case: Case,
    policies: Mapping[str, IDispatchPolicy],
    seeds: Sequence[int],
    progress: Callable[[str], object] = lambda name: None,
) -> Iterator[Row]:
    """
    Simulate one case under each policy, the reference first.

    Every policy gets the same load and the same random numbers.

    Args:
        case: Gives the load of each seed.
        policies: By the names under which they are shown.
        seeds: One for each run.
        progress: Gets the policy that is simulated next.

    Raises:
        BadChoice: By a policy, which is named.
    """
    runs: dict[str, list[Figures]] = {name: [] for name in (ONE_QUEUE, *policies)}
    for seed in seeds:
        made = case.make(seed)
        bound = made.bound(case.workers)
        progress(ONE_QUEUE)
        outcome = one_queue(made, case.workers)
        reference = mean_wait(outcome)
        machines = case.fleet.machines
        runs[ONE_QUEUE].append(figures(outcome, bound, reference, machines))
        for name, policy in policies.items():
            # A million waits are not kept twice.
            del outcome
            progress(name)
            try:
                outcome = Simulation(made, policy, case.workers, seed, case.fleet).run()
            except BadChoice as error:
                raise BadChoice(f"policy {name} {error}") from error
            runs[name].append(figures(outcome, bound, reference, machines))
    for name, each in runs.items():
        model = name in policies and policies[name].kernel_chooses
        yield Row(name, model, average(each))
