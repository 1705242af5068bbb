"""
The true daemon under systemd, which is played.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from kvd.admin.control.asking import ControlSocket
from tests.integration.http import ask, read_to_end, talk
from tests.integration.systemd import Systemd
from tests.integration.test_daemon import eventually
from tests.patience import PATIENCE_SECONDS
from tests.processes import has_ended

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


@pytest.mark.parametrize("systemd", [True], ids=["shared"], indirect=True)
def test_the_new_daemon_of_an_upgrade_is_the_main_process(
    systemd: Systemd, tmp_path: Path
) -> None:
    """
    The old one says so, and nothing else; the new one reports that it is ready, that it
    lives, and its end. A second upgrade goes as the first.
    """
    options = ["--procs=2", "--policy=reuseport", f"--control={tmp_path}/control"]
    with systemd.start([*options, f"--store=file:{tmp_path}/v"], execs=True) as process:
        assert 201 == ask(systemd.port, "PUT", "/key", b"value").status
        before = process.pid
        for _ in range(2):
            with closing(ControlSocket(f"{tmp_path}/control")) as asked:
                asked.upgrade()
                new = asked.status()["pid"]
            assert before != new
            assert f"MAINPID={new}" == systemd.receive_but("WATCHDOG=1")
            assert systemd.receive().startswith("READY=1\nSTATUS=serves http://")
            assert "WATCHDOG=1" == systemd.receive()
            assert b"value" == ask(systemd.port, "GET", "/key").body
            before = new
        # systemd has nothing to do with its end.
        assert 0 == process.wait(PATIENCE_SECONDS)
        for each in environments_below(new):
            assert b"NOTIFY_SOCKET" not in each
    assert systemd.receive_but("WATCHDOG=1").startswith("STOPPING=1")
    eventually(lambda: has_ended(new), "the new daemon ends")


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
