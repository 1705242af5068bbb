"""
What the true daemon has done in all, while its workers change.
"""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.integration.commands import run_kvd
from tests.integration.http import TIMEOUT_SECONDS, ask, read_to_end
from tests.integration.twistd import Twistd

pytestmark = pytest.mark.integration

COUNTED = ("starts", "accepted", "requests", "bytes_in", "bytes_out", "busy_seconds")


def page(folder: Path, what: str) -> str:
    """
    What the status site shows.
    """
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(TIMEOUT_SECONDS)
        sock.connect(str(folder / "status"))
        sock.sendall(f"GET {what} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        return read_to_end(sock).partition(b"\r\n\r\n")[2].decode()


def totals(folder: Path) -> dict[str, Any]:
    """
    As a program reads them.
    """
    found: dict[str, Any] = json.loads(page(folder, "/status.json"))["totals"]
    return found


def summed(folder: Path, metric: str) -> float:
    """
    A counter of ``/metrics``, over all workers or policies.
    """
    pattern = rf"^{metric}{{.*}} (\S+)$"
    return sum(map(float, re.findall(pattern, page(folder, "/metrics"), re.MULTILINE)))


def test_no_total_falls_when_workers_change(tmp_path: Path) -> None:
    """
    Become fewer, are replaced, and become more.
    """
    options = ["--store=null:", "--procs=4", "--policy=roundrobin"]
    options += ["--status=unix:status", "--control=control"]
    with Twistd(options, tmp_path) as daemon:
        before: dict[str, Any] = dict.fromkeys(COUNTED, 0)
        asked = 0
        for change in ("procs 1", "restart", "procs 3", "drain 0", "procs 2"):
            for _ in range(40):
                assert 404 == ask(daemon.port, "GET", "/key").status
                asked += 1
            changed = run_kvd(*change.split(), "--control=control", folder=tmp_path)
            assert 0 == changed.returncode, changed.stderr
            now = totals(tmp_path)
            assert [] == [name for name in COUNTED if now[name] < before[name]], change
            assert asked == now["requests"] == now["accepted"], change
            assert asked == summed(tmp_path, "kvd_request_seconds_count")
            assert asked == summed(tmp_path, "kvd_connections_total")
            assert asked == summed(tmp_path, "kvd_policy_connections_total")
            before = now
