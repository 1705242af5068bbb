"""
The simulation beside the daemon that it stands for.

A daemon is started for each policy, with a store that keeps its worker for a
known time (`kvd.store.sleep`), and gets a load whose every request is known:
the simulation gets the same. Sleeping needs no processor, so all workers are
busy at once on however small a machine. What is compared is therefore what
dispatch alone decides: how long the load takes, how evenly the workers' requests
are spread, and how many the busiest has. What a request costs beside its sleep
is the machine's, and makes every measured time a little longer.

The simulation also gets the moments at which the clients came, and the lag from a
connection to its service as it was just before. However many clients are let go at
once, two processors have them come one after the other, half a millisecond apart;
and with one socket for all it is that and the lag which decide who is still idle
for the next. If all came at once, every connection would be dealt by dice.

Where chance decides there is no one true figure: the simulation is run many
times, and the daemon's figure should lie where nine tenths of those do.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from kvd.dispatch.balance import jain_index
from kvd.interfaces import IDispatchPolicy
from kvd.lab.bench import load as bench
from kvd.lab.bench.programs import send, serving
from kvd.lab.bench.sampling import Sampler
from kvd.lab.simulate.comparison import Comparison, Measures, Pair, Trial, median
from kvd.lab.simulate.engine import Simulation
from kvd.lab.simulate.load import Load
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

LONE_REQUESTS: Final = 9
"""
Sent one after the other before the load, to see what one takes beside its sleep.
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
    progress: Callable[[str], object] = lambda what: None,
) -> Iterator[Comparison]:
    """
    Measure and simulate all, one after the other.

    Args:
        seed: Of the first simulation.
        runs: How often to measure each; the median of each figure counts.
        workers: How many, one after the other.
        progress: Gets a few words about what is measured next.

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
            pairs = {}
            for name, policy in policies.items():
                progress(f"{name}: {trial.title}, {count} workers")
                seen = [measure(name, count, sent, trial.times) for _ in range(runs)]
                simulated = [
                    simulate(seen[number % runs].load, policy, count, seed + number)
                    for number in range(SIMULATED)
                ]
                failed = sum(run.failed for run in seen)
                measured = median([run.measures for run in seen])
                pairs[name] = Pair(failed, measured, simulated)
            yield Comparison(trial, count, pairs, reference)


def simulate(load: Load, policy: IDispatchPolicy, workers: int, seed: int) -> Measures:
    """
    What is to be expected.
    """
    outcome = Simulation(load, policy, workers, seed).run()
    return measures(outcome.makespan, outcome.requests)


def as_simulated(
    sent: bench.Load, times: str, begins: Sequence[float] = (), lag: float = 0.0
) -> Load:
    """
    A load of `kvd.lab.bench` as the simulation takes it.

    Args:
        begins: When each client came; empty: all at once.
        lag: See `Load`.
    """
    known = read_times(times)
    shares = sent.shares()
    came = sorted(zip(begins or [0.0] * sent.clients, range(sent.clients), strict=True))
    return Load(
        [begin for begin, _ in came],
        [0, *accumulate(shares[client] for _, client in came)],
        [
            time_for(known, bench.key_of(client, request).encode("ascii"))
            for _, client in came
            for request in range(shares[client])
        ],
        0 if sent.keep_alive else 1,
        lag=lag,
    )


@dataclass(frozen=True, slots=True)
class Run:
    """
    A load that a daemon had.
    """

    failed: int
    """Requests."""
    measures: Measures
    load: Load
    """As it came."""


def measure(policy: str, workers: int, sent: bench.Load, times: str) -> Run:
    """
    Send a load to a new daemon.
    """
    with serving(policy, workers, f"sleep:{times}") as served:
        lag = measure_lag(served.port, times)
        sampler = Sampler(served.control.status)
        report = send(served.port, sent)
        complete = len(report.begins) == sent.clients
        return Run(
            report.failed,
            measures(report.seconds, sampler.finish().requests),
            as_simulated(sent, times, report.begins if complete else (), lag),
        )


def measure_lag(port: int, times: str) -> float:
    """
    How long it is from a connection to its service where nobody else is there: half of
    what such a request takes beside its sleep, as the other half is the way back.
    """
    sent = bench.Load(LONE_REQUESTS, 1, 1, False)
    known = as_simulated(sent, times).services
    latencies = send(port, sent).latencies
    # Those that failed have none.
    beside = [took - slept for took, slept in zip(latencies, known, strict=False)]
    return max(0.0, statistics.median(beside or [0.0])) / 2


def measures(makespan: float, requests: Sequence[int]) -> Measures:
    """
    From what both know.
    """
    mean = sum(requests) / len(requests)
    return Measures(makespan, jain_index(requests), max(requests) / mean)
