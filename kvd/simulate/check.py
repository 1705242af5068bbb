"""
The simulation beside the daemon that it stands for.

A daemon is started for each policy, with a store that keeps its worker for a
known time (`kvd.store.sleep`), and gets a load whose every request is known:
the simulation gets the same. Sleeping needs no processor, so all workers are
busy at once on however small a machine. What is compared is therefore what
dispatch alone decides: how long the load takes, how evenly the workers' requests
are spread, and how many the busiest has. What a request costs beside its sleep
is the machine's, and makes every measured time a little longer.

Where chance decides there is no one true figure: the simulation is run many
times, and the daemon's figure should lie where nine tenths of those do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from kvd.balance import jain_index
from kvd.bench import load as bench
from kvd.bench.programs import daemon, send, short_folder
from kvd.bench.sampling import Sampler
from kvd.interfaces import IDispatchPolicy
from kvd.simulate.comparison import Comparison, Measures, Pair, Trial, median
from kvd.simulate.engine import Simulation
from kvd.simulate.load import Load, closed_load
from kvd.store.sleep import read_times, time_for

WORKERS: Final = (2, 4, 8, 16)
SIMULATED: Final = 50
"""
Runs of each simulation.
"""
REQUESTS_EACH: Final = 100
CLIENTS_EACH: Final = 2
"""
Per worker.
"""

LAG_SECONDS: Final = 0.0003
"""
From a connection to its first request, about: two processes take turns for it.
"""


TRIALS: Final = (
    Trial("equal times, keep-alive", "20ms", True),
    Trial("uneven times, new connections", "19x10ms,110ms", False),
)


def compare(
    policies: Mapping[str, IDispatchPolicy],
    seed: int,
    runs: int = 1,
    workers: Sequence[int] = WORKERS,
    tell: Callable[[str], object] = lambda what: None,
) -> Iterator[Comparison]:
    """
    Measure and simulate all, one after the other.

    Args:
        seed: Of the first simulation.
        runs: How often to measure each; the median of each figure counts.
        workers: How many, one after the other.
        tell: Is told what is measured next.

    Raises:
        BenchFailed: Something could not be measured.
        BadChoice: By a policy.
    """
    # One without chance, if there is any.
    reference = min(policies, key=lambda name: policies[name].kernel_chooses)
    for trial in TRIALS:
        for count in workers:
            sent = bench.Load(
                REQUESTS_EACH * count, 1, CLIENTS_EACH * count, trial.keep_alive
            )
            load = as_simulated(sent, trial.times)
            pairs = {}
            for name, policy in policies.items():
                tell(f"{name}: {trial.title}, {count} workers")
                seen = [measure(name, count, sent, trial.times) for _ in range(runs)]
                simulated = [
                    simulate(load, policy, count, run)
                    for run in range(seed, seed + SIMULATED)
                ]
                failed = sum(failed for failed, _ in seen)
                measured = median([measured for _, measured in seen])
                pairs[name] = Pair(failed, measured, simulated)
            yield Comparison(trial, count, pairs, reference)


def simulate(load: Load, policy: IDispatchPolicy, workers: int, seed: int) -> Measures:
    """
    What is to be expected.
    """
    outcome = Simulation(load, policy, workers, seed).run()
    return measures(outcome.makespan, outcome.requests)


def as_simulated(sent: bench.Load, times: str) -> Load:
    """
    A load of `kvd.bench` as the simulation takes it.
    """
    known = read_times(times)
    seconds = [
        time_for(known, bench.key_of(client, request).encode("ascii"))
        for client, share in enumerate(sent.shares())
        for request in range(share)
    ]
    load = closed_load(seconds, sent.clients, 0 if sent.keep_alive else 1)
    return replace(load, lag=LAG_SECONDS)


def measure(
    policy: str, workers: int, sent: bench.Load, times: str
) -> tuple[int, Measures]:
    """
    Send a load to a new daemon.

    Returns:
        How many requests failed, and what was seen.
    """
    with (
        short_folder() as folder,
        daemon(policy, workers, folder, f"sleep:{times}") as served,
    ):
        sampler = Sampler(served.control.status)
        report = send(served.port, sent, folder)
        return report.failed, measures(report.seconds, sampler.finish().requests)


def measures(makespan: float, requests: Sequence[int]) -> Measures:
    """
    From what both know.
    """
    mean = sum(requests) / len(requests)
    return Measures(makespan, jain_index(requests), max(requests) / mean)
