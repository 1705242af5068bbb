"""
``/metrics``, for Prometheus.

A snapshot is taken in the reactor, in a millisecond for 64 workers, and rendered in a
thread, in twenty to forty: the supervisor's reactor may have connections to dispatch
meanwhile.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate
from operator import add
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
from kvd.admin.status.processes import ProcessUsage
from kvd.admin.status.readiness import complaint_of_the_store
from kvd.ipc.counts import Sums
from kvd.ipc.histogram import BOUNDS_SECONDS
from kvd.ipc.row import METHODS, STATUSES
from kvd.store.space import Space

STATES: Final = ("ready", "stalled", "starting", "draining", "waiting", "ended")

_LABELS: Final = [*map(str, BOUNDS_SECONDS), "+Inf"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """
    The data of one reply.
    """

    status: Mapping[str, Any]
    """See `kvd.admin.control.status.describe`."""
    sums: Sequence[Sums]
    accounts: Mapping[str, Account]
    """By policy."""
    supervisor_delay: float | None
    space: Space | None = None
    """None: no disk is known."""
    used: Mapping[int, ProcessUsage] = dataclasses.field(default_factory=dict)
    """What the processes of the workers use now."""
    cpu_seconds: Mapping[int, float] = dataclasses.field(default_factory=dict)
    """Of all worker numbers that there have been."""


def render(snapshot: Snapshot, accept: str) -> tuple[bytes, str]:
    """
    Render the metrics in the format that the client asks for.

    Args:
        snapshot: Must not change meanwhile.
        accept: The ``Accept`` field of the request.

    Returns:
        The body and its content type.
    """
    # A new registry for each reply: the global one may have metrics of other libraries.
    registry = CollectorRegistry()
    registry.register(_SnapshotCollector(snapshot))
    # The supervisor's processor time, memory and descriptors, under the usual names of
    # Prometheus clients.
    ProcessCollector(registry=registry)
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _SnapshotCollector(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def describe(self) -> list[Metric]:
        # Registration would collect otherwise.
        return []

    def collect(self) -> Iterator[Metric]:
        snapshot = self._snapshot
        yield from _of_the_daemon(snapshot)
        yield from _of_the_policies(snapshot)
        if snapshot.status["shadow"] is not None:
            yield from _of_the_shadow(snapshot.status)
        yield from _of_the_queues(snapshot.status["accept_queues"])
        if snapshot.status["expiries"]:
            yield _of_the_credentials(snapshot.status["expiries"])
        yield from _of_the_requests(snapshot.sums)
        if snapshot.space is not None:
            yield from _of_the_disk(snapshot.status, snapshot.space)
        yield from _of_the_processes(snapshot)
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
        {
            name: _readable(status[name])
            for name in ("version", "policy", "store", "durability")
        },
    )
    yield GaugeMetricFamily(
        "kvd_uptime_seconds", "Time since the daemon started.", status["uptime_seconds"]
    )
    yield from _of_the_usage("store", status.get("usage", ()))
    near = status.get("near")
    yield from _of_the_usage("near", () if near is None else [near])
    states = Counter(row["state"] for row in status["workers"])
    workers = GaugeMetricFamily("kvd_workers", "Workers by state.", labels=["state"])
    for state in STATES:
        workers.add_metric([state], states[state])
    yield workers
    yield CounterMetricFamily(
        "kvd_worker_hangs",
        "Workers that were killed because they did not respond for --hang-timeout.",
        status["hangs"],
    )
    hangs = CounterMetricFamily(
        "kvd_process_hangs",
        "Processes beside the workers that were killed because they did not answer for"
        " --hang-timeout.",
        labels=["process"],
    )
    ready = GaugeMetricFamily(
        "kvd_process_ready",
        "1 if a process beside the workers runs and answers.",
        labels=["process"],
    )
    for process in status["processes"]:
        hangs.add_metric([process["process"]], process["hangs"])
        ready.add_metric([process["process"]], process["state"] == "ready")
    yield hangs
    yield ready
    balance = GaugeMetricFamily(
        "kvd_balance",
        "Jain's index of connections or requests per worker: 1 if all had the same.",
        labels=["of"],
    )
    for of, index in status["balance"].items():
        balance.add_metric([of], index)
    yield balance
    if snapshot.supervisor_delay is not None:
        yield GaugeMetricFamily(
            "kvd_supervisor_delay_seconds",
            "How late the supervisor's reactor took the last sample.",
            snapshot.supervisor_delay,
        )


def _of_the_usage(where: str, usage: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
    """
    What a store with limits has, or the near cache; the prefix of all of it is ``/``.
    """
    if not usage:
        return
    for name, field, text in (
        ("taken_bytes", "taken", "What values and uploads take."),
        ("limit_bytes", "limit", "What they may take."),
        ("values", "values", "Values."),
        ("evicts", "evicts", "1 if values are removed to make room for others."),
    ):
        gauge = GaugeMetricFamily(f"kvd_{where}_{name}", text, labels=["prefix"])
        for quota in usage:
            if quota[field] is not None:
                gauge.add_metric([quota["prefix"]], quota[field])
        yield gauge
    for name, field, text in (
        ("evicted", "evicted", "Values removed to make room."),
        ("evicted_bytes", "evicted_bytes", "What these took."),
        ("expired", "expired", "Values removed because of their age."),
    ):
        counter = CounterMetricFamily(f"kvd_{where}_{name}", text, labels=["prefix"])
        for quota in usage:
            counter.add_metric([quota["prefix"]], quota[field])
        yield counter


def _of_the_policies(snapshot: Snapshot) -> Iterator[Metric]:
    connections = CounterMetricFamily(
        "kvd_policy_connections",
        "Connections accepted while a policy was in force.",
        labels=["policy"],
    )
    latency = HistogramMetricFamily(
        "kvd_policy_request_seconds",
        "Requests that ended while a policy was in force, by their time.",
        labels=["policy"],
    )
    for policy, account in snapshot.accounts.items():
        connections.add_metric([policy], account.connections)
        latency.add_metric(
            [policy], _cumulated(account.requests.latency), account.requests.seconds
        )
    yield connections
    yield latency


def _of_the_shadow(status: Mapping[str, Any]) -> Iterator[Metric]:
    """
    What the shadow would have done. All counts restart when the shadow or the policy in
    force changes, so both are labels.
    """
    shadow = status["shadow"]
    model = "true" if shadow["model"] else "false"
    pair = {"policy": status["policy"], "shadow": shadow["policy"]}
    yield InfoMetricFamily(
        "kvd_shadow",
        "The shadow policy, and whether it is only a model of what the kernel does.",
        {**pair, "model": model},
    )
    if "connections" not in shadow:
        # The supervisor dispatches no connections.
        return

    def counter(name: str, description: str, *labels: str) -> CounterMetricFamily:
        return CounterMetricFamily(name, description, labels=[*pair, *labels])

    both = list(pair.values())
    connections = counter(
        "kvd_shadow_connections",
        "Connections that the policy in force dispatched, by the shadow's answer: the"
        " same worker, another, or none.",
        "answer",
    )
    connections.add_metric([*both, "same"], shadow["agreed"])
    connections.add_metric([*both, "another"], shadow["connections"] - shadow["agreed"])
    connections.add_metric([*both, "none"], shadow["unanswered"])
    yield connections
    dispatched = counter(
        "kvd_shadow_dispatched",
        "Connections with an answer, by the worker that got them.",
        "worker",
    )
    chosen = counter(
        "kvd_shadow_chosen",
        "The same connections, by the worker that the shadow chose.",
        "worker",
    )
    for row in shadow["workers"]:
        dispatched.add_metric([*both, str(row["worker"])], row["dispatched"])
        chosen.add_metric([*both, str(row["worker"])], row["shadow"])
    yield dispatched
    yield chosen
    tasks = counter(
        "kvd_shadow_found_tasks",
        "Requests in progress and connections on their way, at the worker that got the"
        " connection and at the one that the shadow chose.",
        "at",
    )
    for at, found in shadow["tasks"].items():
        tasks.add_metric([*both, at], found)
    yield tasks
    seconds = counter(
        "kvd_shadow_seconds", "The supervisor's processor time for its decisions."
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
        "How many connections may wait at each socket.",
        labels=["address"],
    )
    for queue in queues:
        for number, count in enumerate(queue["waiting"]):
            waiting.add_metric([queue["address"], str(number)], count)
        limit.add_metric([queue["address"]], queue["limit"])
    yield waiting
    yield limit


def _of_the_credentials(expiries: Sequence[Mapping[str, Any]]) -> Metric:
    gauge = GaugeMetricFamily(
        "kvd_tls_expiry_timestamp_seconds",
        "When a certificate expires, or a list of revoked ones is to be replaced (crl),"
        " in seconds since the epoch.",
        labels=["kind", "path"],
    )
    for expiry in expiries:
        path = _readable(expiry["path"])
        gauge.add_metric([expiry["kind"], path], expiry["at"])
    return gauge


def _of_the_requests(sums: Sequence[Sums]) -> Iterator[Metric]:
    """
    What all workers together have served, also those that there are no more.
    """
    requests = CounterMetricFamily(
        "kvd_http_requests",
        "Requests that ended, by their method and the class of their status; 499: the"
        " client left before the reply; 501: kvd does not offer what was asked for;"
        " 507: there is no room.",
        labels=["method", "status"],
    )
    durations = HistogramMetricFamily(
        "kvd_http_request_duration_seconds",
        "Requests that ended, by their method and their time from the end of the head"
        " to the end of the reply.",
        labels=["method"],
    )
    for method, of in zip(
        METHODS, zip(*(s.methods for s in sums), strict=True), strict=True
    ):
        total = reduce(add, of)
        for status, count in zip(STATUSES, total.statuses, strict=True):
            requests.add_metric([method, status], count)
        durations.add_metric([method], _cumulated(total.latency), total.seconds)
    yield requests
    yield durations
    yield HistogramMetricFamily(
        "kvd_sync_duration_seconds",
        "Syncs of a file or a folder to the disk, by their time.",
        _cumulated(
            [sum(counts) for counts in zip(*(s.syncs for s in sums), strict=True)]
        ),
        sum(s.sync_seconds for s in sums),
    )


def _of_the_disk(status: Mapping[str, Any], space: Space) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "kvd_store_writable",
        "1 if the store can take a value; 0 if its disk or engine cannot be used, or"
        " its limit is reached.",
        0 if complaint_of_the_store(status, space) else 1,
    )
    for name, text, value in (
        ("free_bytes", "Free bytes of the store's file system.", space.free_bytes),
        ("disk_bytes", "The size of the store's file system.", space.bytes),
        ("free_inodes", "How many files can still be made.", space.free_inodes),
        ("inodes", "How many files there can be.", space.inodes),
    ):
        if value is not None:
            yield GaugeMetricFamily(f"kvd_store_{name}", text, value)


def _of_the_processes(snapshot: Snapshot) -> Iterator[Metric]:
    cpu = CounterMetricFamily(
        "kvd_worker_cpu_seconds",
        "Processor time of a worker, with that of its threads.",
        labels=["worker"],
    )
    for worker, seconds in snapshot.cpu_seconds.items():
        cpu.add_metric([str(worker)], seconds)
    yield cpu
    resident = GaugeMetricFamily(
        "kvd_worker_resident_memory_bytes",
        "Resident memory of a worker, with what it shares with the others.",
        labels=["worker"],
    )
    descriptors = GaugeMetricFamily(
        "kvd_worker_open_fds", "Open descriptors of a worker.", labels=["worker"]
    )
    for worker, used in snapshot.used.items():
        resident.add_metric([str(worker)], used.resident_bytes)
        descriptors.add_metric([str(worker)], used.descriptors)
    yield resident
    yield descriptors


def _summed(sums: Sequence[Sums]) -> Iterator[Metric]:
    """
    The counters, also of workers that have no process at the moment.
    """
    counters: Mapping[str, tuple[str, Sequence[float]]] = {
        "kvd_worker_starts": (
            "Processes started for a worker.",
            [s.starts for s in sums],
        ),
        "kvd_worker_stalls": (
            "How often a worker stalled and others took its connections.",
            [s.stalls for s in sums],
        ),
        "kvd_connections": ("Connections accepted.", [s.accepted for s in sums]),
        "kvd_received_bytes": (
            "Bytes read from connections, heads included.",
            [s.bytes_in for s in sums],
        ),
        "kvd_sent_bytes": (
            "Bytes sent over connections, heads included.",
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
        "Requests that ended, by their time from the end of the head to the end of the"
        " reply.",
        labels=["worker"],
    )
    for worker, of in enumerate(sums):
        latency.add_metric(
            [str(worker)], _cumulated(of.total.latency), of.total.seconds
        )
    yield latency


def _of_the_moment(rows: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
    gauges = {
        "handing_over": (
            "kvd_connections_handing_over",
            "Connections on their way to a worker.",
        ),
        "open": ("kvd_connections_open", "Open connections of a worker."),
        "in_progress": ("kvd_requests_in_progress", "Requests in progress."),
        "uploads": (
            "kvd_uploads_in_progress",
            "Requests in progress that store a value.",
        ),
        "silent_seconds": (
            "kvd_worker_silent_seconds",
            "Time since a worker's last sign of life; it gives one each second.",
        ),
    }
    for key, (name, description) in gauges.items():
        gauge = GaugeMetricFamily(name, description, labels=["worker"])
        for row in rows:
            if key in row:
                gauge.add_metric([str(row["worker"])], row[key])
        yield gauge
    ready = GaugeMetricFamily(
        "kvd_worker_ready", "Whether a worker accepts connections.", labels=["worker"]
    )
    for row in rows:
        ready.add_metric([str(row["worker"])], row["state"] == "ready")
    yield ready


def _of_the_reactors(snapshot: Snapshot) -> Iterator[Metric]:
    busy = CounterMetricFamily(
        "kvd_worker_busy_seconds",
        "Time in which a worker did not wait.",
        labels=["worker"],
    )
    delay = HistogramMetricFamily(
        "kvd_worker_loop_delay_seconds",
        "Turns of a worker's reactor, by how long events had to wait meanwhile.",
        labels=["worker"],
    )
    for worker, of in enumerate(snapshot.sums):
        busy.add_metric([str(worker)], of.busy_seconds)
        delay.add_metric([str(worker)], _cumulated(of.loop_delay), of.busy_seconds)
    yield busy
    yield delay


def _cumulated(counts: Sequence[int]) -> list[tuple[str, float]]:
    return list(zip(_LABELS, accumulate(counts), strict=True))


def _readable(text: str) -> str:
    """
    The name of a file, whose bytes need not be UTF-8, as a label, which has to be.
    """
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
