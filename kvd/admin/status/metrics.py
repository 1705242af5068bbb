"""
``/metrics``: what Prometheus is told.

Everything is snapshot in the reactor, which takes a millisecond for 64 workers, and
spelled in a thread, which takes twenty to forty: the supervisor's reactor may have
connections to deal meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry

from kvd.admin.status.ledger import Account
from kvd.dispatch.histogram import BOUNDS_SECONDS
from kvd.dispatch.scoreboard import Sums

STATES: Final = ("ready", "starting", "draining", "waiting", "ended")

_LABELS: Final = [*map(str, BOUNDS_SECONDS), "+Inf"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """
    What is told in one answer.
    """

    status: Mapping[str, Any]
    """As `kvd.admin.control.status.describe` says."""
    sums: Sequence[Sums]
    accounts: Mapping[str, Account]
    """By policy."""
    supervisor_delay: float | None


def render(snapshot: Snapshot, accept: str) -> tuple[bytes, str]:
    """
    The metrics in the format that is asked for.

    Args:
        snapshot: Nobody may change it meanwhile.
        accept: The request's field of this name.

    Returns:
        The body and its content type.
    """
    # A registry of this answer's own: what a library registers elsewhere is no
    # business of kvd's.
    registry = CollectorRegistry()
    registry.register(_SnapshotCollector(snapshot))
    # The supervisor's processor time, memory and descriptors, under the names that
    # everybody's dashboards know.
    ProcessCollector(registry=registry)
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _SnapshotCollector(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._gathered = snapshot

    def describe(self) -> list[Metric]:
        # So that registering does not collect.
        return []

    def collect(self) -> Iterator[Metric]:
        snapshot = self._gathered
        yield from _of_the_daemon(snapshot)
        yield from _of_the_policies(snapshot)
        if snapshot.status["shadow"] is not None:
            yield from _of_the_shadow(snapshot.status)
        yield from _of_the_queues(snapshot.status["accept_queues"])
        yield from _summed(snapshot.sums)
        yield from _of_the_moment(snapshot.status["workers"])
        if snapshot.status["procs"]:
            # twistd's own reactor does not count its waiting.
            yield from _of_the_reactors(snapshot)


def _of_the_daemon(snapshot: Snapshot) -> Iterator[Metric]:
    status = snapshot.status
    yield InfoMetricFamily(
        "kvd",
        "What is running.",
        {name: status[name] for name in ("version", "policy", "store", "durability")},
    )
    yield GaugeMetricFamily(
        "kvd_uptime_seconds", "Since the daemon began.", status["uptime_seconds"]
    )
    states = Counter(row["state"] for row in status["workers"])
    workers = GaugeMetricFamily(
        "kvd_workers", "How many workers are in a state.", labels=["state"]
    )
    for state in STATES:
        workers.add_metric([state], states[state])
    yield workers
    balance = GaugeMetricFamily(
        "kvd_balance",
        "Jain's index of what the workers have had: 1 where all have had the same.",
        labels=["of"],
    )
    for of, index in status["balance"].items():
        balance.add_metric([of], index)
    yield balance
    if snapshot.supervisor_delay is not None:
        yield GaugeMetricFamily(
            "kvd_supervisor_delay_seconds",
            "How late the supervisor's reactor was, when it last looked.",
            snapshot.supervisor_delay,
        )


def _of_the_policies(snapshot: Snapshot) -> Iterator[Metric]:
    connections = CounterMetricFamily(
        "kvd_policy_connections",
        "Connections accepted while a policy was in force.",
        labels=["policy"],
    )
    latency = HistogramMetricFamily(
        "kvd_policy_request_seconds",
        "Requests that ended while a policy was in force, by how long they took.",
        labels=["policy"],
    )
    for policy, account in snapshot.accounts.items():
        connections.add_metric([policy], account.connections)
        latency.add_metric(
            [policy], _cumulated(account.latency), account.serving_seconds
        )
    yield connections
    yield latency


def _of_the_shadow(status: Mapping[str, Any]) -> Iterator[Metric]:
    """
    What it would have done. All counts begin anew with it and with the policy in
    force, so both are labels.
    """
    shadow = status["shadow"]
    model = "true" if shadow["model"] else "false"
    pair = {"policy": status["policy"], "shadow": shadow["policy"]}
    yield InfoMetricFamily(
        "kvd_shadow",
        "A policy that looks on; a model, if it is one of the kernel.",
        {**pair, "model": model},
    )
    if "connections" not in shadow:
        # The supervisor deals nothing.
        return

    def counter(name: str, description: str, *labels: str) -> CounterMetricFamily:
        return CounterMetricFamily(name, description, labels=[*pair, *labels])

    both = list(pair.values())
    connections = counter(
        "kvd_shadow_connections",
        "Connections that the policy in force dealt, by the shadow's answer: the same"
        " worker, another, or none.",
        "answer",
    )
    connections.add_metric([*both, "same"], shadow["agreed"])
    connections.add_metric([*both, "another"], shadow["connections"] - shadow["agreed"])
    connections.add_metric([*both, "none"], shadow["unanswered"])
    yield connections
    dealt = counter(
        "kvd_shadow_dealt",
        "Of those with an answer, what each worker was dealt.",
        "worker",
    )
    chosen = counter(
        "kvd_shadow_chosen",
        "Of the same, what the shadow would have dealt it.",
        "worker",
    )
    for row in shadow["workers"]:
        dealt.add_metric([*both, str(row["worker"])], row["dealt"])
        chosen.add_metric([*both, str(row["worker"])], row["shadow"])
    yield dealt
    yield chosen
    tasks = counter(
        "kvd_shadow_found_tasks",
        "Requests in progress, and connections on their way, at the worker that was"
        " dealt, and at the one that the shadow chose.",
        "at",
    )
    for at, found in shadow["tasks"].items():
        tasks.add_metric([*both, at], found)
    yield tasks
    seconds = counter(
        "kvd_shadow_seconds", "The supervisor's processor time for its answers."
    )
    seconds.add_metric(both, shadow["seconds"])
    yield seconds


def _of_the_queues(queues: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
    waiting = GaugeMetricFamily(
        "kvd_accept_queue",
        "Connections that wait to be accepted.",
        labels=["address", "socket"],
    )
    limit = GaugeMetricFamily(
        "kvd_accept_queue_limit",
        "How many may wait at each socket.",
        labels=["address"],
    )
    for queue in queues:
        for number, count in enumerate(queue["waiting"]):
            waiting.add_metric([queue["address"], str(number)], count)
        limit.add_metric([queue["address"]], queue["limit"])
    yield waiting
    yield limit


def _summed(sums: Sequence[Sums]) -> Iterator[Metric]:
    """
    What never becomes less, also of a place that has no worker at the moment.
    """
    counters: Mapping[str, tuple[str, Sequence[float]]] = {
        "kvd_worker_starts": (
            "Processes that were started in a worker's place.",
            [s.starts for s in sums],
        ),
        "kvd_worker_stalls": (
            "How often a worker made no turn, and others took its connections.",
            [s.stalls for s in sums],
        ),
        "kvd_connections": ("Connections accepted.", [s.accepted for s in sums]),
        "kvd_received_bytes": (
            "Read from connections, heads included.",
            [s.bytes_in for s in sums],
        ),
        "kvd_sent_bytes": (
            "Sent over connections, heads included.",
            [s.bytes_out for s in sums],
        ),
    }
    for name, (description, values) in counters.items():
        counter = CounterMetricFamily(name, description, labels=["worker"])
        for worker, value in enumerate(values):
            counter.add_metric([str(worker)], value)
        yield counter
    latency = HistogramMetricFamily(
        "kvd_request_seconds",
        "Requests that ended, by how long they took from the end of the head to the"
        " end of the reply.",
        labels=["worker"],
    )
    for worker, of in enumerate(sums):
        latency.add_metric([str(worker)], _cumulated(of.latency), of.serving_seconds)
    yield latency


def _of_the_moment(rows: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
    gauges = {
        "handing_over": ("kvd_connections_handing_over", "On their way to a worker."),
        "open": ("kvd_connections_open", "Connections that a worker has."),
        "in_progress": ("kvd_requests_in_progress", "Requests that have not ended."),
        "silent_seconds": (
            "kvd_worker_silent_seconds",
            "Since a worker's last sign of life, of which it gives one each second.",
        ),
    }
    for key, (name, description) in gauges.items():
        gauge = GaugeMetricFamily(name, description, labels=["worker"])
        for row in rows:
            if key in row:
                gauge.add_metric([str(row["worker"])], row[key])
        yield gauge
    ready = GaugeMetricFamily(
        "kvd_worker_ready", "Whether a worker takes connections.", labels=["worker"]
    )
    for row in rows:
        ready.add_metric([str(row["worker"])], row["state"] == "ready")
    yield ready


def _of_the_reactors(snapshot: Snapshot) -> Iterator[Metric]:
    busy = CounterMetricFamily(
        "kvd_worker_busy_seconds",
        "In which a worker did not wait for anything.",
        labels=["worker"],
    )
    delay = HistogramMetricFamily(
        "kvd_worker_loop_delay_seconds",
        "Turns of a worker's reactor, by how long whatever came meanwhile had to wait.",
        labels=["worker"],
    )
    for worker, of in enumerate(snapshot.sums):
        busy.add_metric([str(worker)], of.busy_seconds)
        delay.add_metric([str(worker)], _cumulated(of.loop_delay), of.busy_seconds)
    yield busy
    yield delay


def _cumulated(counts: Sequence[int]) -> list[tuple[str, float]]:
    return list(zip(_LABELS, accumulate(counts), strict=True))
