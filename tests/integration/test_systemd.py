"""
The true daemon under systemd, which is played.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.http import ask, read_to_end, talk
from tests.integration.systemd import Systemd

pytestmark = pytest.mark.integration

WAYS = [
    ["--procs=0"],
    ["--procs=3", "--policy=reuseport"],
    ["--procs=3", "--policy=roundrobin"],
]


@pytest.fixture(params=[False, True], ids=["alone", "shared"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    """
    One for each test, with either kind of socket.
    """
    played = Systemd(tmp_path, request.param)
    yield played
    played.close()


def environments_below(pid: int) -> list[bytes]:
    """
    What the children of a process were started with.
    """
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [Path(f"/proc/{child}/environ").read_bytes() for child in children]


@pytest.mark.parametrize("options", WAYS, ids=" ".join)
def test_a_daemon_serves_over_the_socket_it_is_given(
    systemd: Systemd, options: list[str]
) -> None:
    """
    It reports when it is ready, that it lives, and when it ends; its children could
    not.
    """
    with systemd.start(options, execs=True) as process:
        assert "WATCHDOG=1" == systemd.receive()
        replies = [
            ask(systemd.port, "PUT", f"/key{number}", b"value").status
            for number in range(20)
        ]
        values = [
            ask(systemd.port, "GET", f"/key{number}").body for number in range(20)
        ]
        environments = environments_below(process.pid)
    state = systemd.receive()

    assert ([201] * 20, [b"value"] * 20) == (replies, values)
    assert min(1, int(options[0][-1])) == len(environments)
    for each in environments:
        assert b"NOTIFY_SOCKET" not in each
        assert b"LISTEN_" not in each
        assert b"WATCHDOG_" not in each
    assert state.startswith("STOPPING=1")
    assert -signal.SIGTERM == process.returncode


@pytest.mark.parametrize("options", WAYS, ids=" ".join)
def test_the_socket_outlives_the_daemon(systemd: Systemd, options: list[str]) -> None:
    """
    Who connects between two daemons is served by the second.
    """
    with systemd.start(options):
        assert 201 == ask(systemd.port, "PUT", "/key", b"value").status
        evil = {"Host": "evil.example"}
        assert 421 == ask(systemd.port, "GET", "/key", None, evil).status
        assert "WATCHDOG=1" == systemd.receive()
    assert systemd.receive().startswith("STOPPING=1")
    with talk(systemd.port) as client:
        client.sendall(
            b"GET /key HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        client.shutdown(socket.SHUT_WR)
        with systemd.start(options):
            reply = read_to_end(client)

    assert reply.startswith(b"HTTP/1.1 200 ")
    assert reply.endswith(b"\r\n\r\nvalue")
