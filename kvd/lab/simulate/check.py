"""
The simulation compared with a real daemon.

A daemon is started for each policy, with a store that keeps a worker busy for a known
time (`kvd.store.sleep`). It gets a load of known requests, and the simulation gets the
same load. Sleeping needs no processor, so all workers can be busy at once even on a
small machine. The comparison therefore shows what dispatch decides: how long the load
takes, how evenly the requests are spread, and how many the busiest worker has. The
other costs of a request depend on the machine, and make each measured time a little
longer.

The simulation also gets the arrival times of the clients, and the lag from a connection
to its service, measured just before. Clients that are started at once arrive half a
millisecond apart on two processors. With one socket for all workers, those distances
and the lag decide which worker is still idle for the next connection; if all clients
arrived at once, chance would decide for every connection.

With several machines, each is a daemon, and HAProxy is before them
(`kvd.lab.bench.balancer`). The lag is measured through it.

If chance decides, there is no single true figure. The simulation runs many times, and
the daemon's figure should lie within the range of nine tenths of the runs.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from kvd.dispatch.balance import jain_index
from kvd.interfaces import IDispatchPolicy
from kvd.lab.bench import load as bench
from kvd.lab.bench.balancer import balancing
from kvd.lab.bench.programs import send, serving
from kvd.lab.bench.sampling import Sampler
from kvd.lab.measuring.daemon import Daemon
from kvd.lab.simulate.balancing import ALONE, Fleet
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
Sent one after the other before the load, to measure what a request takes in addition
to its sleep.
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
    fleet: Fleet = ALONE,
    progress: Callable[[str], object] = lambda what: None,
) -> Iterator[Comparison]:
    """
    Measure and simulate all, one after the other.

    Args:
        seed: Of the first simulation.
        runs: The number of measurements of each; the median of each figure counts.
        workers: The numbers of workers of a machine, one after the other.
        fleet: The machines, with one balancer.
        progress: Gets a few words about what is measured next.

    Raises:
        BenchFailed: Something could not be measured.
        BadChoice: By a policy.
    """
    # A policy without chance, if there is one.
    reference = min(policies, key=lambda name: policies[name].kernel_chooses)
    for trial in TRIALS:
        for each in workers:
            count = each * fleet.machines
            sent = bench.Load(
                REQUESTS_EACH * count, 1, CLIENTS_EACH * count, trial.keep_alive
            )
            pairs = {}
            for name, policy in policies.items():
                progress(f"{name}: {trial.title}, {count} workers")
                seen = [
                    measure(name, count, sent, trial.times, fleet) for _ in range(runs)
                ]
                simulated = [
                    simulate(
                        seen[number % runs].load, policy, count, seed + number, fleet
                    )
                    for number in range(SIMULATED)
                ]
                failed = sum(run.failed for run in seen)
                measured = median([run.measures for run in seen])
                pairs[name] = Pair(failed, measured, simulated)
            yield Comparison(trial, count, pairs, reference, fleet)


def simulate(
    load: Load,
    policy: IDispatchPolicy,
    workers: int,
    seed: int,
    fleet: Fleet = ALONE,
) -> Measures:
    """
    The figures of a simulation.
    """
    outcome = Simulation(load, policy, workers, seed, fleet).run()
    return measures(outcome.makespan, outcome.requests)


def as_simulated(
    sent: bench.Load, times: str, begins: Sequence[float] = (), lag: float = 0.0
) -> Load:
    """
    A load of `kvd.lab.bench` for the simulation.

    Args:
        begins: The arrival time of each client; empty: all at once.
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
    A load and what a daemon did with it.
    """

    failed: int
    """Requests."""
    measures: Measures
    load: Load
    """As it arrived."""


def measure(
    policy: str,
    workers: int,
    sent: bench.Load,
    times: str,
    fleet: Fleet = ALONE,
) -> Run:
    """
    Send a load to a new daemon, or to as many as there are machines.
    """
    each = workers // fleet.machines
    with _standing(policy, each, f"sleep:{times}", fleet) as (port, daemons):
        lag = measure_lag(port, times)
        samplers = [Sampler(served.control.status) for served in daemons]
        report = send(port, sent)
        complete = len(report.begins) == sent.clients
        requests = [
            count for sampler in samplers for count in sampler.finish().requests
        ]
        return Run(
            report.failed,
            measures(report.seconds, requests),
            as_simulated(sent, times, report.begins if complete else (), lag),
        )


@contextmanager
def _standing(
    policy: str, each: int, store: str, fleet: Fleet
) -> Iterator[tuple[int, Sequence[Daemon]]]:
    """
    A daemon for each machine, and the port for clients.
    """
    with ExitStack() as stack:
        daemons = [
            stack.enter_context(serving(policy, each, store))
            for _ in range(fleet.machines)
        ]
        port = daemons[0].port
        if fleet.machines > 1:
            ports = [served.port for served in daemons]
            port = stack.enter_context(balancing(fleet.balancer, ports))
        yield port, daemons


def measure_lag(port: int, times: str) -> float:
    """
    The time from a connection to its service with no other clients: half of what a
    request takes in addition to its sleep, since the other half is the way back.
    """
    sent = bench.Load(LONE_REQUESTS, 1, 1, False)
    known = as_simulated(sent, times).services
    latencies = send(port, sent).latencies
    # Failed requests have none.
    beside = [took - slept for took, slept in zip(latencies, known, strict=False)]
    return max(0.0, statistics.median(beside or [0.0])) / 2


def measures(makespan: float, requests: Sequence[int]) -> Measures:
    """
    The figures that both the daemon and the simulation have.
    """
    mean = sum(requests) / len(requests)
    return Measures(makespan, jain_index(requests), max(requests) / mean)
