"""
Daemons with few descriptors: before they begin, and while they serve.
"""

from __future__ import annotations

import os
import re
import resource
import select
import signal
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.forked import ForkedProcess
from tests.integration.http import ask, talk
from tests.integration.test_daemon import eventually, workers_of
from tests.integration.twistd import STOP_SECONDS, Twistd, fork_twistd

pytestmark = pytest.mark.integration

FEW = [
    (16, ["--procs=0"]),
    (16, ["--procs=2"]),
    (64, ["--procs=32", "--policy=reuseport"]),
]


def start(limit: int, options: Sequence[str], folder: Path) -> ForkedProcess[str]:
    """
    A daemon that may have so many descriptors.
    """
    end, output = os.pipe()
    limited = f"resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))"
    listen = "--listen=tcp:0:interface=127.0.0.1"
    with open(os.devnull) as nothing:
        process = fork_twistd(
            ["-n", "--pidfile=", "kvd", listen, "--store=file:values", *options],
            folder,
            [nothing.fileno(), output, output],
            # What measures coverage takes some of its own.
            {name: os.environ[name] for name in os.environ if "COVERAGE" not in name},
            prelude=f"import resource; {limited}",
        )
    os.close(output)
    process.stdout = os.fdopen(end)
    return process


@pytest.mark.parametrize(("limit", "options"), FEW, ids=str)
def test_too_few_to_begin_are_reported(
    tmp_path: Path, limit: int, options: list[str]
) -> None:
    """
    In one sentence, which says how many would do; and so many do.
    """
    options = [*options, "--control=c"]
    with start(limit, options, tmp_path) as process:
        output, _ = process.communicate(timeout=STOP_SECONDS)

    assert 1 == process.returncode
    assert re.match(rf"^kvd: the limit of open files is {limit} ", output), output
    assert 1 == output.count("\n")
    needed = re.search(r"needs ([0-9]+) to begin", output)
    assert needed is not None

    with start(int(needed[1]), options, tmp_path) as process:
        assert process.stdout is not None
        lines = []
        try:
            for line in process.stdout:
                lines.append(line)
                serves = re.search(r"kvd serves http://127.0.0.1:([0-9]+)", line)
                if serves:
                    break
            assert serves is not None, lines
            assert 201 == ask(int(serves[1]), "PUT", "/k", b"v").status
            assert b"v" == ask(int(serves[1]), "GET", "/k").body
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=STOP_SECONDS)
        finally:
            process.kill()
    assert not any("Traceback" in line for line in lines)
    assert [] == list((tmp_path / "values/.kvd").glob("*-*"))


def ready(socks: list[socket.socket]) -> list[socket.socket]:
    """
    Those that something has come for.
    """
    return select.select(socks, [], [], 0)[0]


@pytest.mark.parametrize("durability", ["disk", "process"])
def test_without_descriptors_uploads_are_503(tmp_path: Path, durability: str) -> None:
    """
    With a word when to try again. Nothing is left of them, and when there are
    descriptors again, they are stored.
    """
    options = ["--procs=1", f"--durability={durability}"]
    head = b"PUT /%d HTTP/1.1\r\nHost: localhost\r\nContent-Length: 70000\r\n\r\n"
    with Twistd(options, tmp_path) as daemon, ExitStack() as clients:
        (worker,) = workers_of(daemon)
        limit = len(list(Path(f"/proc/{worker}/fd").iterdir())) + 40
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (limit, limit))
        # There is room for them all, and for the uploads of some.
        socks = [clients.enter_context(talk(daemon.port)) for _ in range(30)]
        for sock in socks:
            sock.sendall(b"GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n")
            sock.recv(4096)
        for number, sock in enumerate(socks):
            sock.sendall(head % number + b"x")
        eventually(lambda: len(ready(socks)) > 10, "uploads are refused")
        refused = [sock.recv(4096) for sock in ready(socks)]
        assert {b"HTTP/1.1 503 "} == {reply[:13] for reply in refused}
        assert all(b"\r\nRetry-After: 1\r\n" in reply for reply in refused)
        clients.close()
        eventually(
            lambda: [] == [p for p in tmp_path.glob("values/.kvd/*/*") if p.is_file()],
            "nothing is left",
        )
        for number in range(5):
            assert 201 == ask(daemon.port, "PUT", f"/{number}", b"v").status
        daemon.stop()

    assert [] == list((tmp_path / "values/.kvd").glob("*-*"))
