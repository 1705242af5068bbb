"""
How connections end, and what becomes of what was on its way: clients that leave without
waiting for replies, daemons that get SIGTERM, and errors of accept(2).
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import product
from pathlib import Path

import pytest

from tests.changes.pipelining import SIZES, Replies, restart_under_pipelines
from tests.integration.http import ask, ask_over, read_to_end, talk
from tests.integration.systemd import Systemd
from tests.integration.test_daemon import children, eventually
from tests.integration.twistd import Twistd
from tests.patience import PATIENCE_SECONDS

pytestmark = pytest.mark.integration

CONNECTIONS = 20
AHEAD = 5

WAYS = [["--fast-path=on"], ["--fast-path=off"]]

DEAF_ONCE = (
    *("ETIMEDOUT", "ENOSR", "EIO", "EINVAL", "ENOSYS", "ECONNRESET", "EACCES", "EBADF"),
    *("ENOTSOCK", "EOPNOTSUPP", "EMFILE", "ENOMEM"),
)
"""
Errors of accept(2): those that once made a worker deaf, and some that never did.
"""

FAILING_ACCEPT = """
import errno, os, socket, sys

# The dispatcher accepts in Python, as where nothing is compiled.
sys.modules["kvd.native._dispatch"] = None

accept = socket.socket._accept
numbers = [getattr(errno, name) for name in os.environ["FAILURES"].split()]

def fail_first(self):
    if numbers:
        number = numbers.pop(0)
        raise OSError(number, os.strerror(number))
    return accept(self)

socket.socket._accept = fail_first
"""
"""
A module ``sitecustomize``: in each process, accept fails with these first.
"""


def listeners_below(pid: int, port: int) -> list[str]:
    """
    The descriptors of a process, its children and theirs that listen on a port.
    """
    listening = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and fields[1].endswith(f":{port:04X}"):
            listening.add(f"socket:[{fields[9]}]")
    processes = [pid, *children(pid)]
    processes += [each for child in children(pid) for each in children(child)]
    found = []
    for process in processes:
        for descriptor in Path(f"/proc/{process}/fd").glob("*"):
            try:
                found.append(os.readlink(descriptor))
            except FileNotFoundError:
                # It was closed meanwhile.
                pass
    return [each for each in found if each in listening]


@pytest.mark.parametrize("policy", ["gated", "roundrobin"])
def test_no_error_of_accept_makes_deaf(tmp_path: Path, policy: str) -> None:
    """
    Neither a worker nor the supervisor; each process logs it once.
    """
    (tmp_path / "sitecustomize.py").write_text(FAILING_ACCEPT)
    environment = {"PYTHONPATH": str(tmp_path), "FAILURES": " ".join(DEAF_ONCE)}
    # Only Python's accept can be made to fail so; its errors are handled in one place.
    options = ["--procs=2", f"--policy={policy}", "--fast-path=off"]
    with Twistd(options, tmp_path, environment=os.environ | environment) as daemon:
        for number in range(10):
            assert 201 == ask(daemon.port, "PUT", f"/{number}", b"v").status
        daemon.stop()

    warnings = "".join(daemon.lines).count("no connection can be accepted for now")
    # Also in a control socket's process. A worker to which none came has no error.
    assert 1 <= warnings <= 3


@pytest.mark.parametrize("durability", ["disk", "process"])
@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_what_clients_sent_before_they_left_is_stored(
    tmp_path: Path, durability: str, way: list[str]
) -> None:
    """
    Some small values ahead of all replies, then the end: as an encoder leaves that does
    not wait for replies. Whether it closes or resets the connection.

    Its kernel has sent all of it when it leaves: a reset would discard what it holds
    back until earlier values are acknowledged (RFC 9293, 3.7.4).
    """
    options = ["--procs=2", f"--durability={durability}", "--store=file:values", *way]
    with Twistd(options, tmp_path) as daemon:
        for number in range(CONNECTIONS):
            with talk(daemon.port) as client:
                for key in range(AHEAD):
                    body = b"%d of %d" % (key, number)
                    client.sendall(
                        b"PUT /%d/%d HTTP/1.1\r\nHost: localhost\r\n" % (number, key)
                        + b"Content-Length: %d\r\n\r\n" % len(body)
                        + body
                    )
        expected = {
            f"{number}/{key}": b"%d of %d" % (key, number)
            for number in range(CONNECTIONS)
            for key in range(AHEAD)
        }
        values = tmp_path / "values"
        eventually(
            lambda: all((values / path).exists() for path in expected),
            f"all {len(expected)} values are stored",
        )
        for path, value in expected.items():
            assert value == ask(daemon.port, "GET", f"/{path}").body


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_requests_behind_the_last_do_not_cut_its_reply(
    tmp_path: Path, way: list[str]
) -> None:
    """
    They come before, during and after the reply to one with ``Connection: close``.
    """
    with Twistd(["--procs=2", *way], tmp_path) as daemon:
        for size in SIZES:
            assert 201 == ask(daemon.port, "PUT", f"/{size}", b"v" * size).status

        def client(size: int, behind: int, pieces_before: int) -> tuple[int, bool]:
            asked = b"GET /%d HTTP/1.1\r\nHost: localhost\r\n" % size
            replies = Replies()
            with socket.socket() as sock:
                sock.settimeout(PATIENCE_SECONDS)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
                sock.connect(("127.0.0.1", daemon.port))
                sock.sendall(asked + b"Connection: close\r\n\r\n")
                for _ in range(pieces_before):
                    replies.take(sock.recv(4096))
                # The reply may have ended before.
                with suppress(ConnectionError):
                    sock.sendall((asked + b"\r\n") * behind)
                while data := sock.recv(4096):
                    replies.take(data)
            return replies.whole, replies.within

        # All at once; the rest after the first piece of the reply, of which the last is
        # not yet on its way then; and after several.
        cases = 3 * list(product(SIZES, (1, 20, 4_000), (0, 1, 5)))
        with ThreadPoolExecutor(8) as clients:
            ends = list(clients.map(client, *zip(*cases, strict=True)))

    wrong = [case for case, end in zip(cases, ends, strict=True) if end != (1, False)]
    assert [] == wrong


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_restarts_cut_no_reply(tmp_path: Path, way: list[str]) -> None:
    """
    Clients with requests ahead find the end announced, and their last reply whole.
    """
    pipelines = restart_under_pipelines(3, 16, tmp_path, way)

    assert [] == pipelines.lost
    assert pipelines.connections >= 3 * 16
    assert pipelines.replies > pipelines.connections


@pytest.mark.parametrize("procs", ["0", "2"])
def test_an_idle_client_may_ask_once_more_after_sigterm(
    tmp_path: Path, procs: str
) -> None:
    """
    Its upload is stored, and the reply says that the connection ends.
    """
    with Twistd(["--store=file:values", f"--procs={procs}"], tmp_path) as daemon:
        connection = http.client.HTTPConnection(
            "127.0.0.1", daemon.port, timeout=PATIENCE_SECONDS
        )
        assert 404 == ask_over(connection, "GET", "/k").status
        daemon.process.send_signal(signal.SIGTERM)
        reply = ask_over(connection, "PUT", "/k", b"value")
        connection.close()
        daemon.process.wait(PATIENCE_SECONDS)

    assert 201 == reply.status
    assert "close" == reply.fields["connection"]
    assert b"value" == (tmp_path / "values/k").read_bytes()


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
@pytest.mark.parametrize(
    "options",
    [
        ["--procs=0"],
        ["--procs=1"],
        ["--procs=1", "--policy=reuseport"],
        ["--procs=1", "--policy=roundrobin"],
    ],
    ids=" ".join,
)
def test_a_client_that_waits_at_sigterm_waits_for_the_next_daemon(
    tmp_path: Path, options: list[str], shared: bool
) -> None:
    """
    Where the socket is systemd's, and whoever comes later too: the one that ends takes
    nobody, while it still serves those that it has.
    """
    systemd = Systemd(tmp_path, shared)
    options = [*options, "--store=file:values", "--max-connections=1"]
    late: list[socket.socket] = []

    def come(count: int) -> None:
        for _ in range(count):
            sock = socket.create_connection(
                ("127.0.0.1", systemd.port), PATIENCE_SECONDS
            )
            sock.sendall(
                b"PUT /%d HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nv"
                % len(late)
            )
            late.append(sock)

    with systemd.start(options) as process, talk(systemd.port) as last:
        last.sendall(
            b"PUT /last HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nab"
        )
        eventually(lambda: any((tmp_path / "values/.kvd").glob("*/*")), "it is begun")
        assert "WATCHDOG=1" == systemd.receive()
        come(10)
        process.send_signal(signal.SIGTERM)
        assert systemd.receive().startswith("STOPPING=1")
        eventually(
            lambda: not listeners_below(process.pid, systemd.port), "nobody listens"
        )
        come(10)
        last.sendall(b"cd")
        assert read_to_end(last).startswith(b"HTTP/1.1 201 ")
        process.wait(PATIENCE_SECONDS)
        assert not (tmp_path / "values/0").exists()
    with systemd.start(options):
        replies = []
        for sock in late:
            replies.append(sock.recv(1000))
            sock.close()
    systemd.close()

    assert [b"HTTP/1.1 201 "] * 20 == [reply[:13] for reply in replies]
    assert not any(b"Connection: close" in reply for reply in replies)
    assert b"abcd" == (tmp_path / "values/last").read_bytes()


@pytest.mark.parametrize("policy", ["gated", "roundrobin", "reuseport"])
def test_a_client_that_waits_at_sigterm_is_served_and_nobody_else(
    tmp_path: Path, policy: str
) -> None:
    """
    Where the socket is kvd's: clients that connect again and again do not keep it, and
    no request is answered 503.
    """
    options = ["--procs=2", f"--policy={policy}"]
    with Twistd(options, tmp_path) as daemon:

        def client(number: int) -> list[int]:
            statuses: list[int] = []
            while True:
                try:
                    statuses.append(ask(daemon.port, "PUT", f"/{number}", b"v").status)
                except (OSError, http.client.HTTPException) as error:
                    # It did not get in, or what it was in is gone.
                    gone = isinstance(error, ConnectionRefusedError)
                    if gone or len(statuses) > 100_000:
                        return statuses

        with ThreadPoolExecutor(32) as clients:
            running = [clients.submit(client, number) for number in range(32)]
            eventually(
                lambda: 200 == ask(daemon.port, "GET", "/0").status, "they are served"
            )
            daemon.process.send_signal(signal.SIGTERM)
            statuses = {status for each in running for status in each.result()}
        daemon.process.wait(PATIENCE_SECONDS)

    assert statuses <= {201, 204}
