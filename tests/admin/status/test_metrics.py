"""
Tests for `kvd.admin.status.metrics`, read with prometheus-client's own parsers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as read_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as read_text

from kvd.admin.control.status import WorkerState, describe
from kvd.admin.status.ledger import Ledger
from kvd.admin.status.metrics import Snapshot, render
from kvd.admin.status.processes import ProcessUsage
from kvd.dispatch.policies.leastbusy import LeastBusy
from kvd.dispatch.shadow import Shadow
from kvd.ipc.scoreboard import Scoreboard
from kvd.net.listening import open_group
from kvd.settings import (
    TLS,
    Credentials,
    NearCache,
    Settings,
    StoreLocation,
    TCPAddress,
)
from kvd.store.space import Space
from kvd.testing import view
from kvd.workers.heartbeat import ProcessState
from tests.admin.status.worked import scoreboard, serve
from tests.certificates import authority, credentials, localhost, revoked_by

Labels = Mapping[str, str]


def taken(
    board: Scoreboard,
    *states: str,
    procs: int | None = None,
    shadow: Mapping[str, Any] | None = None,
    usage: Sequence[dict[str, Any]] = (),
    near: NearCache | None = None,
    credentials: tuple[Credentials, ...] = (),
) -> Snapshot:
    """
    A snapshot of workers in these states.
    """
    counts = None if shadow is None else dict(shadow)
    workers = [WorkerState(n, 100 + n, state, 0) for n, state in enumerate(states)]
    settings = Settings(
        procs=len(states) if procs is None else procs,
        near=near,
        credentials=credentials,
    )
    group = open_group(TCPAddress("127.0.0.1", 0), len(states))
    try:
        status = describe(
            settings,
            [group],
            workers,
            board,
            12.5,
            shadow=lambda workers: counts,
            usage=usage,
            processes=[
                ProcessState("fork server", 90, "ready", 0),
                ProcessState("evictor", None, "waiting", 2),
            ],
        )
    finally:
        group.close()
    sums = board.sums()
    ledger = Ledger()
    ledger.enter(settings.policy, sums)
    return Snapshot(
        status,
        sums,
        ledger.accounts,
        0.001,
        Space("", 1, 2, 3, 4),
        {0: ProcessUsage(1.5, 6_000_000, 30)},
        {0: 1.5, 1: 0.5},
    )


def rendered(snapshot: Snapshot) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """
    Every sample by its name and labels.
    """
    body, _ = render(snapshot, "")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in read_text(body.decode())
        for sample in family.samples
    }


SECURE = replace(
    credentials(
        ca=authority(), tls=TLS("/cert.pem", "/key.pem", "/ca.pem", crl="/crl.pem")
    ),
    crl=revoked_by(authority()),
)

NEAR = NearCache(StoreLocation("file", "/cache"), 1 << 30, 0.0)

USAGE: Sequence[dict[str, Any]] = [
    {
        "prefix": "/",
        "taken": 8192,
        "limit": None,
        "evicts": False,
        "values": 2,
        "evicted": 0,
        "evicted_bytes": 0,
        "expired": 1,
    },
    {
        "prefix": "/ci/",
        "taken": 4096,
        "limit": 12288,
        "evicts": True,
        "values": 1,
        "evicted": 3,
        "evicted_bytes": 12288,
        "expired": 0,
    },
]
"""
Of a store with limits.
"""


def test_store_with_limits_has_its_numbers() -> None:
    """
    Those of the whole store and of each prefix with a limit.
    """
    with scoreboard(1) as board:
        samples = rendered(taken(board, "ready", usage=USAGE))

    assert 8192 == samples[key("kvd_store_taken_bytes", prefix="/")]
    assert key("kvd_store_limit_bytes", prefix="/") not in samples
    assert 12288 == samples[key("kvd_store_limit_bytes", prefix="/ci/")]
    assert 2 == samples[key("kvd_store_values", prefix="/")]
    assert 3 == samples[key("kvd_store_evicted_total", prefix="/ci/")]
    assert 12288 == samples[key("kvd_store_evicted_bytes_total", prefix="/ci/")]
    assert 1 == samples[key("kvd_store_expired_total", prefix="/")]
    assert 0 == samples[key("kvd_store_evicts", prefix="/")]
    assert 1 == samples[key("kvd_store_evicts", prefix="/ci/")]


def test_a_store_that_has_reached_its_limit_is_not_writable() -> None:
    """
    As ``/ready`` says; unless it makes room.
    """
    whole = {**USAGE[0], "limit": USAGE[0]["taken"], "evicts": False}
    with scoreboard(1) as board:
        refusing = rendered(taken(board, "ready", usage=[whole]))
        evicting = rendered(taken(board, "ready", usage=[{**whole, "evicts": True}]))

    assert 0 == refusing[key("kvd_store_writable")]
    assert 1 == evicting[key("kvd_store_writable")]


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    """
    As in `rendered`.
    """
    return name, frozenset(labels.items())


def test_each_worker_has_its_numbers() -> None:
    """
    Those on the scoreboard.
    """
    with scoreboard(2) as board:
        serve(board.own_row(0), 3)
        row = board.own_row(1)
        row.opened()
        row.began("GET")
        row.received(500)
        row.waits()
        seen = rendered(taken(board, "ready", "starting"))

    assert 3 == seen[key("kvd_request_seconds_count", worker="0")]
    assert 1 == seen[key("kvd_connections_total", worker="0")]
    assert 500 == seen[key("kvd_received_bytes_total", worker="1")]
    assert (1, 0) == (
        seen[key("kvd_worker_ready", worker="0")],
        seen[key("kvd_worker_ready", worker="1")],
    )
    assert 1 == seen[key("kvd_workers", state="starting")]
    # What a worker is doing is reported of those that are there.
    assert 0 == seen[key("kvd_requests_in_progress", worker="0")]
    assert key("kvd_requests_in_progress", worker="1") not in seen


def test_stalls_of_a_worker_that_was_scaled_down_are_reported() -> None:
    """
    If the counter disappeared, the sum over all workers would fall.
    """
    with scoreboard(2) as board:
        board.count_stall(1)
        board.workers = 1
        snapshot = taken(board, "ready")
        seen = rendered(snapshot)

    assert 0 == seen[key("kvd_worker_stalls_total", worker="0")]
    assert 1 == seen[key("kvd_worker_stalls_total", worker="1")]
    assert 1 == snapshot.status["totals"]["stalls"]


def test_processes_beside_the_workers_are_reported() -> None:
    """
    Whether they answer, and how many hung.
    """
    with scoreboard(1) as board:
        found = rendered(taken(board, "ready"))

    for process, ready, hangs in (("fork server", 1, 0), ("evictor", 0, 2)):
        assert ready == found[key("kvd_process_ready", process=process)]
        assert hangs == found[key("kvd_process_hangs_total", process=process)]


def test_requests_are_counted_by_method_and_status() -> None:
    """
    Of all workers together, also of those that there are no more. A method that a
    client made up gets no label.
    """
    with scoreboard(2) as board:
        for worker in range(2):
            row = board.own_row(worker)
            for method, status in [
                *(("GET", 200), ("GET", 404), ("PUT", 507), ("BREW", 501)),
                *(("OPTIONS", 204), ("BREW", 499), ("HEAD", 304), ("BREW2", 999)),
                ("PRI", 505),
            ]:
                row.began(method)
                row.finished(0.3, method, status)
        board.workers = 1
        seen = rendered(taken(board, "ready"))

    counted = {
        (labels["method"], labels["status"]): count
        for name, those in seen
        for labels, count in [(dict(those), seen[name, those])]
        if name == "kvd_http_requests_total" and count
    }
    assert {
        ("GET", "2xx"): 2,
        ("GET", "4xx"): 2,
        ("HEAD", "3xx"): 2,
        ("PUT", "507"): 2,
        ("OPTIONS", "2xx"): 2,
        ("other", "5xx"): 2,
        ("other", "499"): 2,
        ("other", "501"): 4,
    } == counted
    name = "kvd_http_request_duration_seconds"
    assert 0 == seen[key(f"{name}_bucket", le="0.25", method="GET")]
    assert 4 == seen[key(f"{name}_bucket", le="0.5", method="GET")]
    assert 8 == seen[key(f"{name}_count", method="other")]
    assert pytest.approx(0.6) == seen[key(f"{name}_sum", method="PUT")]


def test_the_end_of_certificates_is_told() -> None:
    """
    As seconds since the epoch; so is when a list of revoked certificates is to be
    replaced. Without TLS there is neither.
    """
    name = "kvd_tls_expiry_timestamp_seconds"
    with scoreboard(1) as board:
        seen = rendered(taken(board, "ready", credentials=(SECURE,)))
        without = rendered(taken(board, "ready"))

    end = localhost().certificate.not_valid_after_utc.timestamp()
    assert end == seen[key(name, kind="certificate", path="/cert.pem")]
    assert end < seen[key(name, kind="crl", path="/crl.pem")] + 60
    assert not [each for each, _ in without if each.startswith("kvd_tls_")]


def test_names_of_files_need_not_be_text() -> None:
    """
    Bytes that are no UTF-8 are shown, which Prometheus does not read otherwise.
    """
    tls = TLS("/\udcff.pem", "/key.pem")
    with scoreboard(1) as board:
        snapshot = taken(board, "ready", credentials=(replace(credentials(), tls=tls),))
        status = {**snapshot.status, "store": "file:/\udcff"}
        seen = rendered(replace(snapshot, status=status))

    labels = [dict(labels) for _, labels in seen]
    assert "file:/\\xff" in [each.get("store") for each in labels]
    assert "/\\xff.pem" in [each.get("path") for each in labels]


def test_the_disk_is_reported() -> None:
    """
    What is not known of it is left out.
    """
    with scoreboard(1) as board:
        snapshot = taken(board, "ready")
    known = rendered(snapshot)
    full = rendered(replace(snapshot, space=Space("It is gone.")))
    unknown = rendered(replace(snapshot, space=None))

    assert [1, 1, 2, 3, 4] == [
        known[key(f"kvd_store_{name}")]
        for name in ("writable", "free_bytes", "disk_bytes", "free_inodes", "inodes")
    ]
    assert 0 == full[key("kvd_store_writable")]
    assert key("kvd_store_free_bytes") not in full
    assert [] == [name for name, _ in unknown if name.startswith("kvd_store_")]


def test_what_a_process_uses_is_reported() -> None:
    """
    Its processor time also when it is gone.
    """
    with scoreboard(2) as board:
        seen = rendered(taken(board, "ready", "waiting"))

    assert 30 == seen[key("kvd_worker_open_fds", worker="0")]
    assert 6_000_000 == seen[key("kvd_worker_resident_memory_bytes", worker="0")]
    assert 1.5 == seen[key("kvd_worker_cpu_seconds_total", worker="0")]
    assert 0.5 == seen[key("kvd_worker_cpu_seconds_total", worker="1")]
    assert key("kvd_worker_open_fds", worker="1") not in seen


def test_uploads_in_progress_are_counted() -> None:
    """
    Those whose worker is gone are in progress no more.
    """
    with scoreboard(1) as board:
        row = board.own_row(0)
        for method in ("PUT", "GET", "PUT", "PUT"):
            row.began(method)
        row.finished(1.0, "PUT", 201)
        seen = rendered(taken(board, "ready"))
        board.own_row(0)
        later = rendered(taken(board, "ready"))

    assert 2 == seen[key("kvd_uploads_in_progress", worker="0")]
    assert 0 == later[key("kvd_uploads_in_progress", worker="0")]


def test_latency_is_a_histogram() -> None:
    """
    Requests at or below each bound, with their sum and number, for each worker and for
    the policy.
    """
    with scoreboard(1) as board:
        row = board.own_row(0)
        serve(row, 4, seconds=0.3)
        serve(row, 1, seconds=3.0)
        seen = rendered(taken(board, "ready"))

    for of in (
        {"name": "kvd_request_seconds", "worker": "0"},
        {"name": "kvd_policy_request_seconds", "policy": "gated"},
    ):
        name = of.pop("name")
        assert 0 == seen[key(f"{name}_bucket", le="0.25", **of)]
        assert 4 == seen[key(f"{name}_bucket", le="0.5", **of)]
        assert 4 == seen[key(f"{name}_bucket", le="2.0", **of)]
        assert 5 == seen[key(f"{name}_bucket", le="4.0", **of)]
        assert 5 == seen[key(f"{name}_bucket", le="+Inf", **of)]
        assert pytest.approx(4.2) == seen[key(f"{name}_sum", **of)]


def test_turns_of_a_reactor_are_a_histogram() -> None:
    """
    Its sum is the time in which the reactor did not wait.
    """
    with scoreboard(1) as board:
        row = board.own_row(0)
        serve(row, 1, seconds=3.0)
        row.woke()
        row.waits()
        seen = rendered(taken(board, "ready"))

    assert 1 == seen[key("kvd_worker_loop_delay_seconds_count", worker="0")]
    took = seen[key("kvd_worker_loop_delay_seconds_sum", worker="0")]
    assert seen[key("kvd_worker_busy_seconds_total", worker="0")] == took < 1


def test_queues_are_reported_with_their_limits() -> None:
    """
    At each address; a delay of zero is reported too.
    """
    with scoreboard(1) as board:
        snapshot = taken(board, "ready")
    seen = rendered(replace(snapshot, supervisor_delay=0.0))

    assert 0 == seen[key("kvd_supervisor_delay_seconds")]
    ((limit, _),) = [
        (value, name) for name, value in seen.items() if name[0].endswith("_limit")
    ]
    assert snapshot.status["accept_queues"][0]["limit"] == limit
    seen = rendered(replace(snapshot, supervisor_delay=None))
    assert key("kvd_supervisor_delay_seconds") not in seen


def test_no_counter_goes_back_when_a_worker_is_replaced() -> None:
    """
    And none is missing while the worker has no process.
    """
    with scoreboard(1) as board:
        row = board.own_row(0)
        serve(row, 3)
        row.woke()
        row.waits()
        row.woke()
        row.began("GET")
        seen = [rendered(taken(board, "ready")), rendered(taken(board, "waiting"))]
        row = board.own_row(0)
        seen.append(rendered(taken(board, "ready")))
        serve(row, 1)
        seen.append(rendered(taken(board, "ready")))

    counters = [
        sample
        for sample in seen[0]
        if sample[0].startswith("kvd_")
        and sample[0].endswith(("_total", "_bucket", "_count", "_sum"))
    ]
    assert len(counters) > 50
    for counter in counters:
        values = [metrics[counter] for metrics in seen]
        assert sorted(values) == values, counter
    assert 4 == seen[-1][key("kvd_request_seconds_count", worker="0")]
    assert 2 == seen[-1][key("kvd_worker_starts_total", worker="0")]


def test_twistds_own_reactor_is_not_measured() -> None:
    """
    It does not count its waiting.
    """
    with scoreboard(1) as board:
        serve(board.own_row(0), 1)
        seen = rendered(taken(board, "ready", procs=0))

    assert 1 == seen[key("kvd_request_seconds_count", worker="0")]
    assert not [name for name, _ in seen if "loop_delay" in name or "busy" in name]


def test_a_shadow_is_reported_beside_the_policy() -> None:
    """
    How often it agreed, and its share for each worker.
    """
    shadow = Shadow("leastbusy", LeastBusy())
    busy = view(2, requests=(1, 0), handing_over=(2, 0))
    shadow.look_on([busy, busy, busy], [0, 1, 0])
    with scoreboard(2) as board:
        counts = {"policy": "leastbusy", "model": False, **shadow.counts([0, 1])}
        seen = rendered(taken(board, "ready", "ready", shadow=counts))

    pair = {"policy": "gated", "shadow": "leastbusy"}
    assert 1 == seen[key("kvd_shadow_info", model="false", **pair)]
    for answer, count in (("same", 1), ("another", 2), ("none", 0)):
        name = "kvd_shadow_connections_total"
        assert count == seen[key(name, answer=answer, **pair)]
    for worker, dispatched, chosen in (("0", 2, 0), ("1", 1, 3)):
        name = "kvd_shadow_dispatched_total"
        assert dispatched == seen[key(name, worker=worker, **pair)]
        name = "kvd_shadow_chosen_total"
        assert chosen == seen[key(name, worker=worker, **pair)]
    for at, tasks in (("dispatched", 6), ("shadow", 0)):
        assert tasks == seen[key("kvd_shadow_found_tasks_total", at=at, **pair)]
    assert 0 < seen[key("kvd_shadow_seconds_total", **pair)]


def test_a_shadow_that_sees_nothing_has_a_name_only() -> None:
    """
    Without a shadow there are no such metrics.
    """
    waiting = {"policy": "shared", "model": True}
    with scoreboard(1) as board:
        seen = rendered(taken(board, "ready", shadow=waiting))
        without = rendered(taken(board, "ready"))

    assert ["kvd_shadow_info"] == [name for name, _ in seen if "shadow" in name]
    assert not [name for name, _ in without if "shadow" in name]


def test_the_format_is_the_one_that_is_asked_for() -> None:
    """
    Prometheus asks for OpenMetrics, a browser for nothing in particular.
    """
    asked = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    with scoreboard(2) as board:
        snapshot = taken(board, "ready", "ready")
        body, kind = render(snapshot, asked)
        plain, plain_kind = render(snapshot, "text/html,*/*")

    assert kind.startswith("application/openmetrics-text")
    names = {family.name for family in read_openmetrics(body.decode())}
    assert {"kvd_request_seconds", "kvd_connections", "kvd_accept_queue"} <= names
    assert plain_kind.startswith("text/plain")
    assert b"kvd_connections_total" in plain


def test_the_supervisor_is_measured_as_any_process() -> None:
    """
    Under the names that dashboards know, without Python's own metrics.
    """
    with scoreboard(1) as board:
        names = {name for name, _ in rendered(taken(board, "ready"))}

    assert {"process_cpu_seconds_total", "process_open_fds"} <= names
    assert not [name for name in names if name.startswith("python_")]


def test_all_metrics_are_documented() -> None:
    """
    In the table of ``docs/running.rst``, and it has no others.
    """
    document = Path(__file__).parents[3] / "docs" / "running.rst"
    documented = set(
        re.findall(r"^``(kvd_\w+)`` ", document.read_text(encoding="utf-8"), re.M)
    )
    shadow = Shadow("leastbusy", LeastBusy())
    with scoreboard(1) as board:
        counts = {"policy": "leastbusy", "model": False, **shadow.counts([0])}
        snapshots = (
            taken(board, "ready", shadow=counts, usage=USAGE),
            taken(board, "ready", usage=USAGE[:1], near=NEAR, credentials=(SECURE,)),
        )
        bodies = [render(snapshot, "")[0] for snapshot in snapshots]

    families = [family for body in bodies for family in read_text(body.decode())]
    names = {f.name + "_total" * (f.type == "counter") for f in families}
    assert {name for name in names if name.startswith("kvd_")} == documented


def test_a_near_cache_is_not_the_store() -> None:
    """
    What it takes is told apart from what the store takes, which nobody counts then.
    """
    with scoreboard(1) as board:
        snapshot = taken(board, "ready", usage=USAGE[:1], near=NEAR)
        body, _ = render(replace(snapshot, space=None), "")

    [gauge] = [f for f in read_text(body.decode()) if f.name == "kvd_near_taken_bytes"]
    assert [USAGE[0]["taken"]] == [sample.value for sample in gauge.samples]
    assert b"kvd_store_" not in body
