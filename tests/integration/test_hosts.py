"""
Which hosts the real daemon is asked for, however connections come to its workers.
"""

from __future__ import annotations

import http.client
import signal
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.integration.http import Reply, ask
from tests.integration.twistd import Twistd
from tests.patience import PATIENCE_SECONDS

pytestmark = pytest.mark.integration

EVIL: Mapping[str, str] = {"Host": "evil.example"}


def ask_unix(path: str, method: str, target: str, body: bytes | None = None) -> Reply:
    """
    A request for another host, through a Unix socket.
    """
    connection = http.client.HTTPConnection("evil.example")
    with socket.socket(socket.AF_UNIX) as connection.sock:
        connection.sock.settimeout(PATIENCE_SECONDS)
        connection.sock.connect(path)
        connection.request(method, target, body)
        response = connection.getresponse()
        fields = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, fields, response.read())


@pytest.mark.parametrize(
    "options",
    [
        *(["--procs=2", "--policy=gated"], ["--procs=2", "--policy=roundrobin"]),
        *(["--procs=2", "--policy=reuseport"], ["--procs=0"]),
        ["--procs=1", "--fast-path=off"],
    ],
    ids=" ".join,
)
def test_names_of_others_do_nothing(tmp_path: Path, options: list[str]) -> None:
    """
    At a loopback address; beside it, a Unix socket and the addresses of all machines
    are answered.
    """
    path = str(tmp_path / "socket")
    listen = ["--listen=tcp:0:interface=127.0.0.1", f"--listen=unix:{path}"]
    listen += ["--listen=tcp:0", "--allowed-host=kvd.example"]
    chosen = ["--durability=process", "--control=off", *listen, *options]
    with Twistd(chosen, tmp_path) as daemon:
        port, everywhere = daemon.ports
        # Often enough for the fast path to know them, and for each worker.
        for _ in range(8):
            assert ask(port, "PUT", "/k", b"value").status in (201, 204)
            for method, target in (
                *(("GET", "/k"), ("HEAD", "/k"), ("DELETE", "/k"), ("PUT", "/k")),
                *(("PUT", "/new"), ("GET", "/"), ("GET", "http://evil.example/k")),
            ):
                body = b"evil!" if method == "PUT" else None
                reply = ask(port, method, target, body, EVIL)
                assert (method, target, 421) == (method, target, reply.status)
                assert b"value" not in reply.body
            assert b"value" == ask(port, "GET", "/k").body
            assert 404 == ask(port, "GET", "/new").status
            proxied = {"Host": "KVD.example:443"}
            assert b"value" == ask(port, "GET", "/k", None, proxied).body

            assert b"value" == ask_unix(path, "GET", "/k").body
            assert 204 == ask_unix(path, "PUT", "/k", b"other").status
            assert b"other" == ask(everywhere, "GET", "/k", None, EVIL).body
        daemon.stop()


def test_the_same_names_are_for_the_status_site(tmp_path: Path) -> None:
    """
    As they are now: a signal has them read again.
    """
    config = tmp_path / "kvd.toml"
    config.write_text('allowed-hosts = ["one.example"]\n')
    options = ["--status=tcp:0", "--config=kvd.toml", "--procs=1"]
    with Twistd([*options, "--store=null:", "--control=off"], tmp_path) as daemon:

        def statuses(host: str) -> set[int]:
            fields = {"Host": host}
            return {
                ask(daemon.status_port, "GET", "/health", None, fields).status,
                ask(daemon.port, "GET", "/", None, fields).status,
            }

        assert {200} == statuses("localhost") == statuses("one.example")
        assert {421} == statuses("two.example")
        config.write_text('allowed-hosts = ["two.example"]\n')
        daemon.process.send_signal(signal.SIGHUP)
        assert daemon.process.stdout is not None
        assert any("settings: done" in line for line in daemon.process.stdout)
        assert {421} == statuses("one.example")
        assert {200} == statuses("two.example")
