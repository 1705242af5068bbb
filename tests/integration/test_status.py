"""
What a running daemon reports of itself, and to whom.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kvd.admin.control.asking import ControlSocket
from tests.integration.commands import run_kvd
from tests.integration.http import ask
from tests.integration.twistd import Twistd
from tests.patience import PATIENCE_SECONDS
from tests.ports import unused_port
from tests.privileges import take_root

pytestmark = pytest.mark.integration

KVD = [sys.executable, "-m", "kvd.cli.main"]


def null(*more: str) -> list[str]:
    """
    A daemon that keeps nothing.
    """
    return ["--store=null:", *more]


def status_of(control: Path) -> dict[str, Any]:
    """
    The status of the daemon at a control socket.
    """
    asked = ControlSocket(str(control))
    try:
        return asked.status()
    finally:
        asked.close()


def until(condition: Callable[[], bool]) -> None:
    """
    Wait for something that has to come.
    """
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_work_is_counted_where_it_is_done(tmp_path: Path) -> None:
    """
    Dispatched in turn, each worker has its share.
    """
    control = tmp_path / "control"
    options = null("--policy=roundrobin", "--procs=3", f"--control={control}")
    with Twistd(options, tmp_path) as daemon:
        for _ in range(6):
            ask(daemon.port, "PUT", "/k", b"x" * 1000)
        until(lambda: all(not row["open"] for row in status_of(control)["workers"]))
        status = status_of(control)

        for row in status["workers"]:
            assert (2, 2, 0) == (row["accepted"], row["requests"], row["in_progress"])
            assert row["bytes_in"] > 2000
            assert row["bytes_out"] > 100
            assert row["busy_seconds"] > 0
            assert os.path.exists(f"/proc/{row['pid']}")
        assert {"connections": 1.0, "requests": 1.0} == status["balance"]
        assert daemon.process.pid == status["pid"]
        assert f"http://127.0.0.1:{daemon.port}" in status["addresses"]


def test_one_process_reports_the_same(tmp_path: Path) -> None:
    """
    Except for what nobody counts there.
    """
    control = tmp_path / "control"
    with Twistd(null("--procs=0", f"--control={control}"), tmp_path) as daemon:
        ask(daemon.port, "PUT", "/k", b"x")
        # The reply is on its way a moment before it is counted.
        until(lambda: status_of(control)["workers"][0]["requests"] == 1)
        (row,) = status_of(control)["workers"]

        assert daemon.process.pid == row["pid"]
        assert "busy_seconds" not in row


def test_a_replaced_worker_counts_on(tmp_path: Path) -> None:
    """
    What its predecessor did stays counted, in the place that both have.
    """
    control = tmp_path / "control"
    options = null("--policy=shared", "--procs=1", f"--control={control}")
    with Twistd(options, tmp_path) as daemon:
        ask(daemon.port, "PUT", "/k", b"x")
        until(lambda: status_of(control)["workers"][0]["requests"] == 1)
        (before,) = status_of(control)["workers"]
        os.kill(before["pid"], signal.SIGKILL)

        def replaced() -> bool:
            (row,) = status_of(control)["workers"]
            return bool(row["state"] == "ready" and row["pid"] != before["pid"])

        until(replaced)
        (after,) = status_of(control)["workers"]
        assert (1, 0, 2) == (after["requests"], after["open"], after["starts"])

        ask(daemon.port, "PUT", "/k", b"x")
        until(lambda: status_of(control)["workers"][0]["requests"] == 2)


def test_the_command_shows_it(tmp_path: Path) -> None:
    """
    Found by the port alone, as a table and as JSON.
    """
    environment = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}
    options = null("--policy=roundrobin", "--procs=2")
    with Twistd(options, tmp_path, environment=environment) as daemon:
        words = f"--url=http://127.0.0.1:{daemon.port}", "status"
        shown = run_kvd(*words, environment=environment)
        status = run_kvd(*words, "--json", environment=environment)
        assert (0, 0) == (shown.returncode, status.returncode)
        assert "policy roundrobin" in shown.stdout
        assert "2 of 2 workers ready" in shown.stdout
        assert 2 == len(json.loads(status.stdout)["workers"])
        with open("/dev/full", "w") as full:
            failed = subprocess.run(
                [*KVD, *words],
                env=environment,
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
            )
        assert 1 == failed.returncode
        (line,) = failed.stderr.splitlines()
        assert "standard output cannot be written: No space left" in line

        left = tmp_path / "kvd" / f"{daemon.port}.control"
        assert 0o600 == left.stat().st_mode & 0o777
        daemon.stop()
        assert not left.exists()


def test_the_control_socket_is_its_owners(tmp_path: Path) -> None:
    """
    And says so.
    """
    control = tmp_path / "control"
    with Twistd(null("--procs=1", f"--control={control}"), tmp_path):
        found = control.stat()

    assert 0o600 == found.st_mode & 0o777
    assert os.geteuid() == found.st_uid


def test_nobody_else_may_ask(tmp_path: Path) -> None:
    """
    Not even to connect.
    """
    take_root("becoming another user")
    # Not pytest's own folder, which no other user may enter.
    control = Path(f"/tmp/kvd-test-{os.getpid()}.control")
    with Twistd(null("--procs=1", f"--control={control}"), tmp_path):
        tried = subprocess.run(
            [
                sys.executable,
                "-c",
                "import os, socket, sys; os.setgroups([]); os.setgid(65534);"
                " os.setuid(65534); s = socket.socket(socket.AF_UNIX);"
                " print(s.connect_ex(sys.argv[1]))",
                str(control),
            ],
            capture_output=True,
            text=True,
        )

    assert f"{errno.EACCES}\n" == tried.stdout, tried.stderr


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("missing", "no kvd answers"),
        ("stranger", "no control socket"),
        ("file", "no kvd answers"),
    ],
)
def test_what_is_no_control_socket_is_reported(
    tmp_path: Path, place: str, words: str
) -> None:
    """
    In a line.
    """
    (tmp_path / "file").write_text("")
    server = None
    if place == "stranger":
        server = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import socket, sys; s = socket.socket(socket.AF_UNIX);"
                " s.bind(sys.argv[1]); s.listen(); print(flush=True);"
                " c, _ = s.accept(); c.recv(999);"
                " c.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nhi')",
                str(tmp_path / place),
            ],
            stdout=subprocess.PIPE,
        )
        assert server.stdout is not None
        server.stdout.readline()
    tried = run_kvd("status", f"--control={tmp_path / place}")
    if server is not None:
        server.wait(PATIENCE_SECONDS)
        assert server.stdout is not None
        server.stdout.close()

    assert 5 == tried.returncode
    (line,) = tried.stderr.splitlines()
    assert words in line
    assert str(tmp_path / place) in line


def test_a_place_that_cannot_be_ends_the_start(tmp_path: Path) -> None:
    """
    And leaves no address behind that nobody serves.
    """
    # Known before: the daemon never comes to say which it has.
    port = unused_port()
    tried = subprocess.run(
        [
            *[sys.executable, "-c", "from twisted.scripts.twistd import run; run()"],
            *["-n", "--pidfile=", "kvd", "--store=null:"],
            f"--listen=unix:{tmp_path}/socket",
            f"--listen=tcp:{port}:interface=127.0.0.1",
            f"--control={tmp_path}/no/folder",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )

    assert 0 != tried.returncode
    assert "folder of the socket does not exist" in tried.stdout + tried.stderr
    assert not (tmp_path / "socket").exists()
    with socket.socket() as probe:
        assert 0 != probe.connect_ex(("127.0.0.1", port))
