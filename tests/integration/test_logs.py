"""
The logs of the true daemon.
"""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.integration.http import ask
from tests.integration.test_daemon import children, workers_of
from tests.integration.twistd import Twistd

pytestmark = pytest.mark.integration


def read(path: Path) -> list[dict[str, Any]]:
    """
    The lines of a log in JSON.
    """
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("policy", "procs"),
    [("gated", "0"), ("gated", "2")],
)
def test_logs_are_rotated_while_requests_come(
    tmp_path: Path, policy: str, procs: str
) -> None:
    """
    Whoever rotates them renames them and sends SIGUSR1, perhaps to every process. Each
    request is in one of the files, those of a worker in the order of their time, and
    no process has ended.
    """
    options = ["--access-log=access.log", "--access-log-format=json"]
    options += ["--log-format=json", f"--policy={policy}", f"--procs={procs}"]
    numbers = count()
    with Twistd([*options, "--store=file:values"], tmp_path) as daemon:
        before = workers_of(daemon) if procs != "0" else []
        for turn in range(3):
            for _ in range(10):
                number = next(numbers)
                fields = {"User-Agent": f"client {number}", "Referer": "http://a/"}
                body = b"%d" % number
                ask(daemon.port, "PUT", f"/key/{number}", body, fields)
                assert body == ask(daemon.port, "GET", f"/key/{number}").body
            with suppress(FileNotFoundError):
                # Lines are written twice a second.
                os.rename(tmp_path / "access.log", tmp_path / f"access.log.{turn}")
            pid = daemon.process.pid
            for each in (pid, *children(pid), *before):
                os.kill(each, signal.SIGUSR1)
        ask(daemon.port, "GET", "/last")
        assert before == (workers_of(daemon) if procs != "0" else [])
        assert -signal.SIGTERM == daemon.stop()

    entries = [
        entry for path in sorted(tmp_path.glob("access.log*")) for entry in read(path)
    ]
    agents = [e["agent"] for e in entries if e["method"] == "PUT"]
    assert {f"client {number}" for number in range(30)} == set(agents)
    assert 61 == len(entries)
    for path in tmp_path.glob("access.log*"):
        for worker in range(int(procs) or 1):
            times = [e["time"] for e in read(path) if e["worker"] == worker]
            assert sorted(times) == times
    lines = "".join(daemon.lines).splitlines()
    events = [json.loads(line) for line in lines if line.startswith("{")]
    assert any("SIGUSR1" in event["message"] for event in events)
    # twistd prints some lines before it knows what it runs.
    assert len(events) > len(lines) - 6
