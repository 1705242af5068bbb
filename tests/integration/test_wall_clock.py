"""
The time of day is set back and forward while the true daemon serves.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.integration.http import TIMEOUT_SECONDS, ask, read_to_end, talk
from tests.integration.test_daemon import eventually, workers_of
from tests.integration.twistd import Twistd
from tests.integration.wall_clock import WallClock

pytestmark = pytest.mark.integration

BACK, FORWARD = -3600, 3600
VALUE = os.urandom(1 << 20) * 16


@pytest.fixture(scope="session")
def built_clock(tmp_path_factory: pytest.TempPathFactory) -> WallClock:
    """
    Built once: with one environment, one process has loaded what forks all daemons.
    """
    return WallClock(tmp_path_factory.mktemp("clock"))


@pytest.fixture
def clock(built_clock: WallClock) -> Iterator[WallClock]:
    """
    The time of day of a test.
    """
    built_clock.reset()
    yield built_clock
    built_clock.reset()


def start(
    options: Sequence[str],
    folder: Path,
    clock: WallClock,
    more: Mapping[str, str] | None = None,
) -> Twistd:
    """
    A daemon with this time of day, and with more variables.
    """
    environment = {**clock.environment, **(more or {})}
    loaded_in = clock.environment
    return Twistd(options, folder, environment=environment, loaded_in=loaded_in)


@pytest.mark.parametrize("step", [BACK, FORWARD])
def test_the_clock_of_a_process_can_be_set(clock: WallClock, step: int) -> None:
    """
    Else the other tests would say nothing.
    """
    code = (
        "import sys, time\n"
        "from datetime import datetime\n"
        "told = lambda: print(int(time.time()), int(datetime.now().timestamp()),"
        " int(time.monotonic()), flush=True)\n"
        "told()\n"
        "sys.stdin.readline()\n"
        "told()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=clock.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        before = [int(word) for word in process.stdout.readline().split()]
        clock.step(step)
        rest, _ = process.communicate("\n", timeout=TIMEOUT_SECONDS)
        after = [int(word) for word in rest.split()]
    moved = [b - a for a, b in zip(before, after, strict=True)]

    assert [step, step, 0] == [round(each / 3600) * 3600 for each in moved]


@pytest.mark.parametrize("procs", ["0", "2"])
@pytest.mark.parametrize("step", [BACK, FORWARD])
def test_timeouts_are_no_longer_and_no_shorter(
    tmp_path: Path, clock: WallClock, procs: str, step: int
) -> None:
    """
    A head that does not come is refused in its time; at that time an idle connection,
    half an upload and half a download go on.
    """
    options = ["--store=file:values", f"--procs={procs}", "--head-timeout=1s"]
    with (
        start(options, tmp_path, clock) as daemon,
        talk(daemon.port) as idle,
        talk(daemon.port) as upload,
        talk(daemon.port) as download,
        talk(daemon.port) as silent,
    ):
        assert 201 == ask(daemon.port, "PUT", "/value", VALUE).status
        upload.sendall(
            f"PUT /up HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(VALUE)}\r\n"
            "Connection: close\r\n\r\n".encode()
            + VALUE[:100_000]
        )
        get = b"GET /value HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        download.sendall(get)
        beginning = download.recv(1000)
        # A first request, so that the idle one is not before its first head.
        idle.sendall(b"HEAD /value HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert idle.recv(1000).startswith(b"HTTP/1.1 200 ")
        silent.sendall(b"GET /value HT")
        clock.step(step)
        assert read_to_end(silent).startswith(b"HTTP/1.1 408 ")

        upload.sendall(VALUE[100_000:])
        assert read_to_end(upload).startswith(b"HTTP/1.1 201 ")
        assert read_to_end_of(download, beginning).endswith(b"\r\n\r\n" + VALUE)
        idle.sendall(get)
        assert read_to_end(idle).endswith(b"\r\n\r\n" + VALUE)
        assert VALUE == ask(daemon.port, "GET", "/up").body


def read_to_end_of(sock: socket.socket, beginning: bytes) -> bytes:
    """
    A reply of which something has been read.
    """
    return beginning + read_to_end(sock)


@pytest.mark.parametrize("step", [BACK, FORWARD])
@pytest.mark.parametrize("policy", ["gated", "roundrobin"])
def test_a_killed_worker_is_replaced(
    tmp_path: Path, clock: WallClock, policy: str, step: int
) -> None:
    """
    As often as it is.
    """
    options = ["--store=null:", "--procs=2", f"--policy={policy}"]
    with start(options, tmp_path, clock) as daemon:
        for _ in range(3):
            before = set(workers_of(daemon))
            clock.step(step)
            os.kill(min(before), signal.SIGKILL)

            def replaced(before: set[int] = before) -> bool:
                now = set(workers_of(daemon))
                return len(now) == 2 and min(before) not in now

            eventually(replaced, "a killed worker was replaced")
        assert 404 == ask(daemon.port, "GET", "/value").status


@pytest.mark.parametrize("procs", ["0", "1"])
@pytest.mark.parametrize("step", [BACK, FORWARD])
def test_a_lock_is_waited_for(
    tmp_path: Path, clock: WallClock, procs: str, step: int
) -> None:
    """
    A PUT that finds its key locked goes on when it no longer is.
    """
    options = ["--store=file:values", f"--procs={procs}", "--status=unix:status"]
    options += ["--durability=process"]
    with start(options, tmp_path, clock) as daemon:
        with open(tmp_path / "values" / ".kvd" / "lock", "r+b") as file:
            lock = struct.pack("hhqqixxxx", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, lock)
            replies: list[int] = []
            put = threading.Thread(
                target=lambda: replies.append(
                    ask(daemon.port, "PUT", "/key", b"value").status
                )
            )
            put.start()
            eventually(lambda: waits_for_lock(tmp_path), "a PUT waited")
            # It has come, and looks for the lock again and again meanwhile; on a busy
            # machine, too, it must not have waited for as long as it may.
            for _ in range(3):
                assert waits_for_lock(tmp_path)
            clock.step(step)
            for _ in range(3):
                waits_for_lock(tmp_path)
        put.join()

        assert [201] == replies
        assert b"value" == ask(daemon.port, "GET", "/key").body


def waits_for_lock(folder: Path) -> bool:
    """
    Whether a request is in progress.
    """
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(folder / "status"))
        sock.sendall(b"GET /status.json HTTP/1.0\r\nHost: localhost\r\n\r\n")
        return b'"in_progress": 1' in read_to_end(sock)


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    """
    What stands for systemd's end.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(TIMEOUT_SECONDS)
        yield sock


@pytest.mark.parametrize("procs", ["0", "1"])
def test_the_watchdog_goes_on(
    tmp_path: Path, clock: WallClock, systemd: socket.socket, procs: str
) -> None:
    """
    systemd would take the daemon for hung.
    """
    given = {"NOTIFY_SOCKET": systemd.getsockname(), "WATCHDOG_USEC": "200000"}
    options = ["--store=null:", f"--procs={procs}"]
    with start(options, tmp_path, clock, given):
        assert systemd.recv(4096).startswith(b"READY=1")
        for step in (BACK, FORWARD, BACK, BACK):
            clock.step(step)
            # What was under way at that moment proves nothing.
            forget(systemd)
            assert [b"WATCHDOG=1"] * 3 == [systemd.recv(4096) for _ in range(3)]


def forget(sock: socket.socket) -> None:
    """
    Read what has come already.
    """
    while select.select([sock], [], [], 0)[0]:
        sock.recv(4096)


def test_a_command_tries_again(tmp_path: Path, clock: WallClock) -> None:
    """
    After the pause that the server asks for.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with subprocess.Popen(
            [sys.executable, "-m", "kvd.cli.main", "--url", url, "get", "key", "-"],
            cwd=tmp_path,
            env=clock.environment,
            stdout=subprocess.PIPE,
        ) as command:
            try:
                reply_to_next(
                    server,
                    b"HTTP/1.1 503 No\r\nRetry-After: 1\r\nContent-Length: 0\r\n",
                )
                # It pauses when it has read that.
                end = time.monotonic() + TIMEOUT_SECONDS
                while not select.select([server], [], [], 0.2)[0]:
                    assert time.monotonic() < end, "it never tried again"
                    clock.step(BACK)
                reply_to_next(
                    server,
                    b'HTTP/1.1 200 OK\r\nETag: "a"\r\nContent-Length: 5\r\n',
                    b"value",
                )
                printed, _ = command.communicate(timeout=TIMEOUT_SECONDS)
            finally:
                command.kill()

    assert (b"value", 0) == (printed, command.returncode)


def reply_to_next(server: socket.socket, head: bytes, body: bytes = b"") -> None:
    """
    Accept a connection, and answer what is asked over it.
    """
    connection, _ = server.accept()
    with connection:
        connection.recv(10_000)
        fields = b"Connection: close\r\nServer: kvd/1\r\n\r\n"
        connection.sendall(head + fields + body)


CALLER = """
import sys, time
from twisted.internet import defer, reactor, task
from kvd.client import Client

async def ask():
    client = Client(sys.argv[1], timeout_seconds=2.0)
    began = time.monotonic()
    try:
        await client.stat("key")
    except Exception as error:
        print(type(error).__name__, time.monotonic() - began >= 2.0, flush=True)

assert abs(reactor.seconds() - time.time()) < 1000, "the reactor is the caller's"
task.react(lambda _: defer.Deferred.fromCoroutine(ask()))
"""
"""
A program of somebody else's, in whose reactor the client runs.
"""


@pytest.mark.parametrize("step", [BACK, FORWARD])
def test_the_client_gives_up_in_its_time(
    tmp_path: Path, clock: WallClock, step: int
) -> None:
    """
    Also in the reactor of a caller, whose clock can be set.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with subprocess.Popen(
            [sys.executable, "-c", CALLER, url],
            cwd=tmp_path,
            env=clock.environment,
            stdout=subprocess.PIPE,
            text=True,
        ) as program:
            try:
                connection, _ = server.accept()
                with connection:
                    connection.recv(10_000)
                    clock.step(step)
                    printed, _ = program.communicate(timeout=TIMEOUT_SECONDS)
            finally:
                program.kill()

    assert ("TimedOut True\n", 0) == (printed, program.returncode)
