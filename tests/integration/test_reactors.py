"""
Whichever reactor ``twistd --reactor`` names, kvd serves.
"""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.http import TIMEOUT_SECONDS, ask, read_to_end
from tests.integration.test_status import status_of, until
from tests.integration.twistd import Twistd

pytestmark = pytest.mark.integration

GET = b"GET /k HTTP/1.1\r\nHost: localhost\r\n"
CLOSE = b"Connection: close\r\n\r\n"
MORE_THAN_SELECT_TAKES = 1100
"""
Connections: select(2) watches 1,024 descriptors.
"""


@pytest.mark.parametrize("reactor", ["select", "poll", "epoll", "asyncio"])
@pytest.mark.parametrize(
    "options",
    [["--procs=0"], ["--procs=2"], ["--procs=2", "--policy=reuseport"]],
    ids=["single", "handed-over", "accepted"],
)
def test_every_reactor_serves(tmp_path: Path, reactor: str, options: list[str]) -> None:
    """
    Over a port, over a Unix socket and over the control socket; and it ends when it is
    told to.
    """
    path = str(tmp_path / "socket")
    listen = ["--listen=tcp:0:interface=127.0.0.1", f"--listen=unix:{path}"]
    chosen = [*options, *listen, "--control=control"]
    before = [f"--reactor={reactor}"]
    with Twistd(chosen, tmp_path, before=before) as daemon:
        put = ask(daemon.port, "PUT", "/k", b"value")
        got = ask(daemon.port, "GET", "/k")
        over_unix = [get_over(path) for _ in range(3)]
        # They are counted when they have been served.
        until(lambda: accepted(tmp_path / "control") == 5)
        daemon.stop()

    assert 201 == put.status
    assert b"value" == got.body
    for reply in over_unix:
        assert reply.endswith(b"\r\n\r\nvalue")
    assert "Traceback" not in "".join(daemon.lines)
    assert not (tmp_path / "socket").exists()


def test_select_leaves_in_the_queue_what_it_cannot_watch(tmp_path: Path) -> None:
    """
    And serves it when others have left. Twisted's own reactor would drop it.
    """
    with (
        many_descriptors(),
        Twistd(
            ["--procs=0", "--store=null:"], tmp_path, before=["--reactor=select"]
        ) as daemon,
    ):
        clients = [
            socket.create_connection(("127.0.0.1", daemon.port), TIMEOUT_SECONDS)
            for _ in range(MORE_THAN_SELECT_TAKES)
        ]
        for client in clients:
            client.sendall(GET + b"\r\n")
        replies = []
        # The first ones were accepted first.
        for client in clients:
            with client:
                replies.append(client.recv(1000))
        daemon.stop()

    assert [b"HTTP/1.1 404"] * len(clients) == [reply[:12] for reply in replies]
    assert "no connection can be accepted for now" in "".join(daemon.lines)


def accepted(control: Path) -> int:
    """
    How many connections a daemon says that its workers accepted.
    """
    return sum(row["accepted"] for row in status_of(control)["workers"])


def get_over(path: str) -> bytes:
    """
    The reply to a request over a Unix socket.
    """
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(TIMEOUT_SECONDS)
        client.connect(path)
        client.sendall(GET + CLOSE)
        return read_to_end(client)


@contextmanager
def many_descriptors() -> Iterator[None]:
    """
    As many as this process may have.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
