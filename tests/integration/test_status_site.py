"""
The status site of the true daemon.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kvd.admin.control.asking import ControlSocket
from tests.integration.http import ask, talk
from tests.integration.twistd import Twistd

pytestmark = pytest.mark.integration


def null(*more: str) -> list[str]:
    """
    A daemon that keeps nothing, and whose only socket beside the store's is that
    of the status site.
    """
    return ["--store=null:", "--control=off", *more]


def status(port: int) -> dict[str, Any]:
    """
    ``/status.json``.
    """
    return dict(json.loads(ask(port, "GET", "/status.json").body))


def samples(port: int) -> dict[str, float]:
    """
    ``/metrics``, with the labels that distinguish samples of one name.
    """
    body = ask(port, "GET", "/metrics").body.decode()
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }


def until(condition: Callable[[], bool]) -> None:
    """
    Wait for something that has to come.
    """
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("procs", [0, 2])
def test_work_is_reported_in_every_form(tmp_path: Path, procs: int) -> None:
    """
    With workers, and where twistd itself serves.
    """
    options = null("--policy=roundrobin", f"--procs={procs}", "--status=tcp:0")
    with Twistd(options, tmp_path) as daemon:
        site = daemon.status_port
        for _ in range(4):
            ask(daemon.port, "PUT", "/k", b"x" * 1000)
        until(lambda: sum(row["requests"] for row in status(site)["workers"]) == 4)

        assert b"ok\n" == ask(site, "GET", "/health").body
        assert 200 == ask(site, "GET", "/ready").status
        seen = samples(site)
        assert 4 == seen["kvd_policy_request_seconds_count roundrobin"]
        assert 4 // max(1, procs) == seen["kvd_request_seconds_count 0"]
        assert seen["kvd_worker_ready 0"]
        assert ("kvd_worker_loop_delay_seconds_count 0" in seen) == (procs > 0)
        page = ask(site, "GET", "/")
        assert "text/html; charset=utf-8" == page.fields["content-type"]
        until(lambda: status(site)["last_second"] is not None)
        past = json.loads(ask(site, "GET", "/history.json").body)
        assert len(past["samples"]) >= 1
        head = ask(site, "HEAD", "/metrics")
        assert (200, b"") == (head.status, head.body)


def test_sums_go_on_when_a_worker_is_replaced(tmp_path: Path) -> None:
    """
    For Prometheus, which takes a smaller number for a new beginning.
    """
    options = null("--policy=shared", "--procs=1", "--status=tcp:0")
    with Twistd(options, tmp_path) as daemon:
        site = daemon.status_port
        ask(daemon.port, "PUT", "/k", b"x")
        until(lambda: samples(site)["kvd_request_seconds_count 0"] == 1)
        before = samples(site)
        os.kill(status(site)["workers"][0]["pid"], signal.SIGKILL)
        until(lambda: samples(site)["kvd_worker_starts_total 0"] == 2)
        ask(daemon.port, "PUT", "/k", b"x")
        until(lambda: samples(site)["kvd_request_seconds_count 0"] == 2)
        after = samples(site)

        sums = [
            name
            for name in before
            if name.split()[0].endswith(("_total", "_bucket", "_count", "_sum"))
        ]
        assert [] == [name for name in sums if after[name] < before[name]]
        assert 2 == after["kvd_policy_request_seconds_count shared"]


def test_a_daemon_that_drains_is_not_ready(tmp_path: Path) -> None:
    """
    It says so until its last worker has ended.
    """
    options = null("--procs=1", "--status=tcp:0")
    with Twistd(options, tmp_path) as daemon, talk(daemon.port) as client:
        site = daemon.status_port
        client.sendall(
            b"PUT /k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nx"
        )
        until(lambda: status(site)["workers"][0]["in_progress"] == 1)
        assert b"1 of 1 workers are ready.\n" == ask(site, "GET", "/ready").body

        daemon.process.send_signal(signal.SIGTERM)
        until(lambda: ask(site, "GET", "/ready").status == 503)
        assert b"kvd is draining.\n" == ask(site, "GET", "/ready").body
        assert 200 == ask(site, "GET", "/health").status
        assert status(site)["draining"]
        client.sendall(b"y")
        assert client.recv(1000).startswith(b"HTTP/1.1 201")
        client.close()
        daemon.stop()


def test_strangers_are_let_in_only_with_a_warning(tmp_path: Path) -> None:
    """
    Only where it was said, and the log says what that means.
    """
    options = null("--procs=1", "--status=tcp:0:interface=0.0.0.0")
    with Twistd(options, tmp_path) as daemon:
        site = daemon.status_port
        warnings = [line for line in daemon.lines if "anybody there may read" in line]
        assert 1 == len(warnings)
        assert f"0.0.0.0:{site}" in warnings[0]
        named = {"Host": "metrics.example"}
        assert 200 == ask(site, "GET", "/health", fields=named).status

    with Twistd(null("--procs=1", "--status=tcp:0"), tmp_path) as daemon:
        site = daemon.status_port
        assert not any("may read" in line for line in daemon.lines)
        assert any(f"is at http://127.0.0.1:{site}" in line for line in daemon.lines)
        assert 421 == ask(site, "GET", "/status.json", fields=named).status


def test_it_may_be_a_unix_socket(tmp_path: Path) -> None:
    """
    With the permissions that it was given, gone when the daemon has ended; and its
    answers are those of the control socket, and what the site alone looks at.
    """
    place = tmp_path / "status"
    options = ["--store=null:", "--procs=1", f"--control={tmp_path}/control"]
    with Twistd([*options, f"--status=unix:{place}:mode=640"], tmp_path) as daemon:
        assert 0o640 == place.stat().st_mode & 0o777
        asked = ControlSocket(str(tmp_path / "control"))
        by_control = asked.status()
        asked.close()
        connection = http.client.HTTPConnection("kvd")
        connection.sock = asked_at(place)
        connection.request("GET", "/status.json")
        by_site = json.loads(connection.getresponse().read())
        connection.close()
        own = {"last_second", "ready", "readiness", "disk", "events"}
        assert set(by_control) | own == set(by_site)
        assert by_control["pid"] == by_site["pid"] == daemon.process.pid
        daemon.stop()
        assert not place.exists()


def asked_at(place: Path) -> socket.socket:
    """
    A connection to a Unix socket.
    """
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(place))
    return sock
