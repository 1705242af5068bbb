"""
Daemons that start at the same moment in the same place: one serves, and each of the
others ends with a sentence.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.integration.forked import ForkedProcess
from tests.integration.twistd import STOP_SECONDS, start_kvd_daemon
from tests.ports import unused_port

pytestmark = pytest.mark.integration

AT_ONCE = 4


def read_until_it_serves(process: ForkedProcess[str]) -> str:
    """
    What a daemon prints until it serves, or until it has ended.
    """
    assert process.stdout is not None
    lines = ""
    for line in process.stdout:
        lines += line
        if "kvd serves" in line:
            break
    return lines


def fill(path: str) -> list[socket.socket]:
    """
    Connect to a Unix socket until no more may wait there.
    """
    clients = []
    while True:
        client = socket.socket(socket.AF_UNIX)
        clients.append(client)
        client.setblocking(False)
        try:
            client.connect(path)
        except BlockingIOError:
            return clients


@pytest.mark.parametrize(
    "place", ["tcp:{port}:interface=127.0.0.1", "unix:kvd.socket", "stale"]
)
def test_of_daemons_that_start_at_once_one_serves(tmp_path: Path, place: str) -> None:
    """
    At a port, at a Unix socket, and where a killed daemon left the file of one.
    """
    url = "http://localhost/k"
    via = ["--unix-socket", "kvd.socket"]
    if place.startswith("tcp"):
        # Known before: all of them want the same.
        port = unused_port()
        place, url, via = place.format(port=port), f"http://127.0.0.1:{port}/k", []
    elif place == "stale":
        place = "unix:kvd.socket"
        dead = start_kvd_daemon(
            ["--procs=0", f"--listen={place}", "--control=off"], tmp_path
        )
        read_until_it_serves(dead)
        dead.kill()
        dead.communicate()
        assert (tmp_path / "kvd.socket").is_socket()
    options = ["--procs=1", f"--listen={place}", "--control=off"]
    processes = [start_kvd_daemon(options, tmp_path) for _ in range(AT_ONCE)]
    try:
        outputs = [read_until_it_serves(process) for process in processes]
        serving = [
            process
            for process, lines in zip(processes, outputs, strict=True)
            if "kvd serves" in lines
        ]
        refused = [lines for lines in outputs if "kvd serves" not in lines]
        put = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", *via, "-T-", url]
        statuses = [
            subprocess.run(
                put, cwd=tmp_path, input="v", capture_output=True, text=True, check=True
            ).stdout
            for _ in range(3)
        ]
        assert 1 == len(serving), outputs
        serving[0].send_signal(signal.SIGTERM)
        serving[0].communicate(timeout=STOP_SECONDS)
    finally:
        for process in processes:
            process.kill()
            process.communicate()

    assert ["201", "204", "204"] == statuses
    assert AT_ONCE - 1 == len(refused)
    for lines in refused:
        assert re.search(r"^kvd: cannot listen on .*: it is in use", lines, re.M), lines
        assert "Traceback" not in lines
    assert not (tmp_path / "kvd.socket").exists()


def test_a_stopped_daemon_with_a_full_queue_keeps_nobody_waiting(
    tmp_path: Path,
) -> None:
    """
    The next one ends with the same sentence as if it served.
    """
    options = ["--procs=0", "--listen=unix:kvd.socket:backlog=1", "--control=off"]
    stopped = start_kvd_daemon(options, tmp_path)
    try:
        read_until_it_serves(stopped)
        os.kill(stopped.pid, signal.SIGSTOP)
        clients = fill(str(tmp_path / "kvd.socket"))
        second = start_kvd_daemon(options, tmp_path)
        lines, _ = second.communicate(timeout=STOP_SECONDS)
        for client in clients:
            client.close()
    finally:
        stopped.kill()
        stopped.communicate()

    assert 1 == second.returncode
    assert "kvd: cannot listen on unix:" in lines
    assert "it is in use" in lines
