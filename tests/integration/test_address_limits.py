"""
Limits of addresses and users hold for a daemon, whichever of its workers a client
meets, in plain and over TLS.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import localhost
from tests.integration.http import TIMEOUT_SECONDS
from tests.integration.test_hangup import read_until
from tests.integration.test_status import status_of, until
from tests.integration.test_tls import client_context
from tests.integration.test_users import user_with_token
from tests.integration.twistd import Twistd

pytestmark = pytest.mark.integration

CONNECTIONS = 4


class Client:
    """
    A connection to a daemon.
    """

    def __init__(self, port: int, secure: bool) -> None:
        address = "127.0.0.1", port
        self.socket = socket.create_connection(address, TIMEOUT_SECONDS)
        if secure:
            try:
                self.socket = client_context().wrap_socket(
                    self.socket, server_hostname="localhost"
                )
            except OSError:
                self.socket.close()
                raise

    def send(self, line: str, token: str, fields: str = "", body: str = "") -> None:
        """
        Send a request, or the beginning of one.
        """
        who = f"Host: localhost\r\nAuthorization: Bearer {token}\r\n"
        self.socket.sendall(f"{line} HTTP/1.1\r\n{who}{fields}\r\n{body}".encode())

    def status(self) -> int:
        """
        Of a reply.
        """
        return int(self.socket.recv(65536)[9:12])


@contextmanager
def connections(daemon: Twistd, bob: str) -> Iterator[list[Client]]:
    """
    As many as one address may have, half of them over TLS; each has had a reply. There
    is no room for another one.
    """
    plain, secure = daemon.ports
    with ExitStack() as open_ones:
        clients = []
        for number in range(CONNECTIONS):
            over_tls = bool(number % 2)
            client = Client(secure if over_tls else plain, over_tls)
            open_ones.enter_context(client.socket)
            client.send("GET /none", bob)
            assert 404 == client.status()
            clients.append(client)
        more = Client(plain, False)
        with more.socket:
            more.send("GET /none", bob)
            assert 429 == more.status()
        with pytest.raises(OSError, match=r"(?i)eof|reset"):
            Client(secure, True)
        yield clients


def test_limits_hold_for_all_workers(tmp_path: Path) -> None:
    """
    Also when workers were killed, whose connections count no more, and when the
    settings have changed, while an upload goes on.
    """
    rights = tmp_path / "users.toml"
    ci, bob = (
        user_with_token(rights, name, {"/": ["read", "write"]})
        for name in ("ci", "bob")
    )
    rights.write_text(
        rights.read_text().replace("[users.ci]\n", "[users.ci]\nrequests-at-once = 2\n")
    )
    tls = localhost().write(tmp_path, "cert")
    control, config = tmp_path / "c", tmp_path / "kvd.toml"
    limits = f"[limits]\nmax-address-connections = {CONNECTIONS}\n"
    config.write_text(limits)
    options = [
        *[f"--store=file:{tmp_path}/values", "--durability=process", "--procs=2"],
        *["--policy=roundrobin", f"--control={control}", f"--config={config}"],
        # The machine may be busy.
        "--drain-timeout=100",
        *[f"--users={rights}", "--listen=tcp:0:interface=127.0.0.1"],
        f"--listen=tls:0:interface=127.0.0.1:cert={tls.cert}:key={tls.key}",
    ]
    put = "PUT /k", ci, "Content-Length: 6\r\n", "val"

    def rows() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = status_of(control)["workers"]
        return found

    with Twistd(options, tmp_path) as daemon:
        with connections(daemon, bob) as clients:
            for client in clients[:2]:
                client.send(*put)
            until(lambda: 2 == sum(row["in_progress"] for row in rows()))
            clients[2].send("GET /none", ci)
            assert 429 == clients[2].status()
            workers = rows()
            assert [2, 2] == [row["open"] for row in workers]
            for row in workers:
                os.kill(row["pid"], signal.SIGKILL)
            assert b"" == clients[3].socket.recv(1000)
        read_until(daemon, "it is replaced")
        read_until(daemon, "it is replaced")
        with connections(daemon, bob) as clients:
            clients[0].send(*put)
            for client in clients[1:]:
                client.socket.close()
            # A worker that starts has no figures yet.
            until(lambda: 1 == sum(row.get("open", 0) for row in rows()))
            (worker,) = (n for n, row in enumerate(rows()) if row.get("open"))
            config.write_text(f"{limits}idle-timeout = 100\n")
            daemon.process.send_signal(signal.SIGHUP)
            # Its worker drains as long as the upload lasts.
            until(lambda: "draining" == rows()[worker]["state"])
            with ExitStack() as more:
                for number in range(CONNECTIONS):
                    client = Client(daemon.ports[0], False)
                    more.enter_context(client.socket)
                    client.send("GET /none", bob)
                    expected = 404 if number < CONNECTIONS - 1 else 429
                    assert expected == client.status()
                clients[0].socket.sendall(b"ue\n")
                assert 201 == clients[0].status()
        read_until(daemon, "settings: done")
        with connections(daemon, bob):
            pass
