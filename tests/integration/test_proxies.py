"""
The true daemon behind proxies.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.integration.http import TIMEOUT_SECONDS, read_to_end
from tests.integration.test_daemon import POLICIES, under_each_policy
from tests.integration.twistd import Twistd
from tests.net.test_proxy_header import EXTRA, PORTS, TCP4, binary

pytestmark = pytest.mark.integration

GET = b"GET /%b HTTP/1.1\r\nHost: kvd\r\nConnection: close\r\n%b\r\n"


def entries_of(folder: Path) -> dict[str, dict[str, Any]]:
    """
    The access log, by the keys that were asked for.
    """
    lines = (folder / "access.log").read_text().splitlines()
    return {entry["target"]: entry for entry in map(json.loads, lines)}


def test_clients_are_those_that_proxies_name(tmp_path: Path) -> None:
    """
    Under every policy, at addresses of TCP and Unix sockets, in headers of connections
    and in fields of requests.
    """
    options = [
        "--procs=2",
        "--store=file:values",
        "--trusted-proxies=127.0.0.0/8,unix",
        "--listen=tcp:0:interface=127.0.0.1",
        "--listen=tcp:0:interface=127.0.0.1:proxy=1",
        "--listen=unix:sock:proxy=1",
        "--allowed-host=kvd",
        "--access-log=access.log",
        "--access-log-format=json",
    ]
    header = binary(0x21, 0x11, TCP4 + PORTS + EXTRA)
    field = b"X-Forwarded-For: 192.0.2.1, 203.0.113.7\r\n"
    expected = {}
    for number, daemon in enumerate(under_each_policy(options, tmp_path)):
        plain, proxied = daemon.ports
        for kind, port, before, more, client in [
            ("field", plain, b"", field, "203.0.113.7"),
            ("header", proxied, header, b"", "203.0.113.9:4711"),
            ("both", proxied, header, field, "203.0.113.9:4711"),
            ("unix", 0, header, b"", "203.0.113.9:4711"),
        ]:
            for turn in range(4):
                name = f"{number}/{kind}/{turn}"
                remote: socket.socket
                if kind == "unix":
                    remote = socket.socket(socket.AF_UNIX)
                    remote.connect(str(tmp_path / "sock"))
                else:
                    remote = socket.create_connection(("127.0.0.1", port))
                with remote:
                    remote.settimeout(TIMEOUT_SECONDS)
                    remote.sendall(before + GET % (name.encode(), more))
                    assert read_to_end(remote).startswith(b"HTTP/1.1 404 ")
                expected[f"/{name}"] = client
    found = entries_of(tmp_path)

    assert len(POLICIES) * 16 == len(expected)
    assert expected == {key: entry["client"] for key, entry in found.items()}
    assert all(entry["proxy"] for entry in found.values())


def test_a_proxy_that_keeps_its_promise_is_needed(tmp_path: Path) -> None:
    """
    Else the connection is refused, within the time for a head.
    """
    options = [
        "--procs=0",
        "--store=null:",
        "--trusted-proxies=127.0.0.1",
        "--listen=tcp:0:interface=127.0.0.1:proxy=1",
        "--head-timeout=0.2s",
    ]
    with Twistd(options, tmp_path) as daemon:
        for sent in (b"", b"PROXY ", GET % (b"k", b"")):
            with socket.create_connection(("127.0.0.1", daemon.port)) as remote:
                remote.settimeout(TIMEOUT_SECONDS)
                remote.sendall(sent)
                assert read_to_end(remote).startswith(b"HTTP/1.1 400 ")
        daemon.stop()
    assert 3 == "".join(daemon.lines).count("no connection for the proxy 127.0.0.1:")
