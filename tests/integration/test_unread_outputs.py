"""
What the true daemon writes goes to somebody who does not read it.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from itertools import cycle
from pathlib import Path

import pytest

from tests.integration.http import TIMEOUT_SECONDS, ask, ask_over, read_to_end, talk
from tests.integration.test_daemon import POLICIES, eventually, workers_of
from tests.integration.twistd import RUN_TWISTD, STOP_SECONDS, Twistd
from tests.patience import PATIENCE_SECONDS

pytestmark = pytest.mark.integration

TOO_LARGE = (
    b"PUT /key HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000000000000000\r\n"
    b"Connection: close\r\n\r\n"
)
"""
What the disk has no room for; the log says so.
"""


class Unread(Twistd):
    """
    A daemon whose output is a pipe of the test's: after it serves, nobody reads it, and
    it can be full.
    """

    def __enter__(self) -> Unread:
        end, pipe = os.pipe()
        # The least that there is: it is full again and again while it is read.
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)
        # Another opening of the same pipe: to wait for nothing is its own.
        self._filler = os.open(f"/proc/self/fd/{pipe}", os.O_WRONLY | os.O_NONBLOCK)
        try:
            self.process = self._start(pipe)
        finally:
            os.close(pipe)
        self.process.stdout = os.fdopen(end, buffering=1, errors="replace")
        try:
            self._wait_for_start()
        except BaseException:
            self.process.kill()
            self.process.communicate()
            raise
        return self

    def fill(self) -> int:
        """
        Leave no room in the pipe.

        Returns:
            How many bytes that took.
        """
        count = 0
        try:
            while True:
                count += os.write(self._filler, b"\n")
        except BlockingIOError:
            return count

    @contextmanager
    def reading(self) -> Iterator[list[str]]:
        """
        Read all that comes until the daemon has ended; the lines are there afterwards.
        """
        os.close(self._filler)
        self._filler = -1
        lines: list[str] = []
        assert self.process.stdout is not None
        reader = threading.Thread(target=lines.extend, args=[self.process.stdout])
        reader.start()
        yield lines
        reader.join(STOP_SECONDS)
        assert not reader.is_alive()

    def end(self) -> int:
        """
        Ask it to end, and wait until it did, reading nothing.
        """
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)

    def __exit__(self, *rest: object) -> None:
        if self._filler != -1:
            os.close(self._filler)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def refused(port: int, count: int) -> None:
    """
    Ask for what the disk has no room for, so often.
    """
    for _ in range(count):
        with talk(port) as sock:
            sock.sendall(TOO_LARGE)
            assert read_to_end(sock).startswith(b"HTTP/1.1 507 ")


@pytest.mark.parametrize(
    ("policy", "procs"),
    [("gated", "0"), ("gated", "2"), *((policy, "2") for policy in POLICIES)],
)
def test_a_log_that_nobody_reads_stops_nothing(
    tmp_path: Path, policy: str, procs: str
) -> None:
    """
    Not requests that would be in it, nor the replacing of a worker, nor reading the
    settings again, nor the end.
    """
    options = ["--store=file:values", f"--policy={policy}", f"--procs={procs}"]
    options += ["--status=unix:status"]
    with Unread(options, tmp_path) as daemon:
        assert daemon.fill()
        refused(daemon.port, 500)
        if procs != "0":
            before = set(workers_of(daemon))
            os.kill(min(before), signal.SIGKILL)
            eventually(
                lambda: (
                    len(workers_of(daemon)) == 2
                    and min(before) not in workers_of(daemon)
                ),
                "a worker was replaced",
            )
        daemon.process.send_signal(signal.SIGHUP)
        assert 201 == ask(daemon.port, "PUT", "/key", b"value").status
        assert b"value" == ask(daemon.port, "GET", "/key").body
        assert b"draining" in text_of(tmp_path / "status")

        assert -signal.SIGTERM == daemon.end()


def text_of(place: Path) -> bytes:
    """
    What a status site at a Unix socket replies.
    """
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(TIMEOUT_SECONDS)
        sock.connect(str(place))
        sock.sendall(b"GET /status.json HTTP/1.0\r\nHost: localhost\r\n\r\n")
        return read_to_end(sock)


@pytest.mark.parametrize("procs", ["0", "1"])
def test_a_log_that_is_read_again_has_what_there_was(
    tmp_path: Path, procs: str
) -> None:
    """
    Lines of a kind are limited; how many were left out is logged before the end. No
    line is torn.
    """
    options = ["--store=file:values", f"--procs={procs}"]
    with Unread(options, tmp_path) as daemon:
        daemon.fill()
        refused(daemon.port, 500)
        with daemon.reading() as lines:
            assert -signal.SIGTERM == daemon.end()
    texts = [line for line in lines if line.strip()]
    failed = [text for text in texts if "a request failed" in text]
    counts = [
        int(found[1])
        for text in failed
        if (found := re.search(r" (\d+) more lines of this kind were left out", text))
    ]

    assert 500 == len(failed) - len(counts) + sum(counts)
    assert len(failed) < 100
    assert [] == [text for text in texts if not re.match(r"\d{4}-\d\d-\d\dT", text)]
    assert "Server Shut Down." in texts[-1]


ACCESS = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z worker=\d 127\.0\.0\.1:\d+ - GET"
    r" /(\d+)/xk* 404 \d+ \d+\.\d{6}\n"
)


def test_an_access_log_that_is_read_late_is_whole(tmp_path: Path) -> None:
    """
    Every line of every worker once, and none within another.
    """
    options = ["--store=null:", "--procs=4", "--access-log=-", "--policy=roundrobin"]
    with Unread(options, tmp_path) as daemon, ExitStack() as closed:
        daemon.fill()
        clients = [HTTPConnection("127.0.0.1", daemon.port) for _ in range(8)]
        for client in clients:
            closed.callback(client.close)
        for number, client in zip(range(1000), cycle(clients), strict=False):
            key = "k" * (number % 200)
            assert 404 == ask_over(client, "GET", f"/{number}/x{key}").status
        with daemon.reading() as lines:
            # Written while it is read, too.
            for number, client in zip(range(1000, 2000), cycle(clients), strict=False):
                assert 404 == ask_over(client, "GET", f"/{number}/x").status
            closed.close()
            assert -signal.SIGTERM == daemon.end()
    found = [match for line in lines if (match := ACCESS.fullmatch(line))]
    others = [line for line in lines if line.strip() and not ACCESS.fullmatch(line)]

    assert list(range(2000)) == sorted(int(match[1]) for match in found)
    assert [] == [text for text in others if not re.match(r"\d{4}-.*\[.*#", text)]


@contextmanager
def stalled(path: Path, what: str) -> Iterator[Sequence[str]]:
    """
    A file to which nothing can be written for now, and how it is named to the daemon.
    """
    if what == "access-log":
        os.mkfifo(path)
        end = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        try:
            while True:
                os.write(pipe, b"\n" * 4096)
        except BlockingIOError:
            pass
        yield [f"--access-log={path}"]
        os.close(end)
        os.close(pipe)
        return
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield [f"--record={path}"]


@pytest.mark.parametrize("procs", ["0", "2"])
def test_an_access_log_that_takes_nothing_stops_nothing(
    tmp_path: Path, procs: str
) -> None:
    """
    Not requests, nor the end.
    """
    with stalled(tmp_path / "stalled", "access-log") as options:
        served_and_ended(tmp_path, [*options, f"--procs={procs}"])


@pytest.mark.parametrize("procs", ["0", "2"])
def test_a_record_that_takes_nothing_stops_nothing(tmp_path: Path, procs: str) -> None:
    """
    Not requests, nor reading the settings again, nor the end.
    """
    path = tmp_path / "record"
    with (
        Unread(
            ["--store=file:values", f"--procs={procs}", f"--record={path}"], tmp_path
        ) as daemon,
        path.open("r+b") as file,
    ):
        fcntl.flock(file, fcntl.LOCK_EX)
        daemon.process.send_signal(signal.SIGHUP)
        for _ in range(100):
            assert 404 == ask(daemon.port, "GET", "/key").status
        assert -signal.SIGTERM == daemon.end()


def served_and_ended(folder: Path, options: Sequence[str]) -> None:
    """
    Whether a daemon serves, and ends.
    """
    with Unread(["--store=file:values", *options], folder) as daemon:
        assert 201 == ask(daemon.port, "PUT", "/key", b"value").status
        for _ in range(300):
            assert b"value" == ask(daemon.port, "GET", "/key").body
        assert -signal.SIGTERM == daemon.end()


def test_what_a_worker_prints_at_its_end_is_in_the_log(tmp_path: Path) -> None:
    """
    And needs no reader of it.
    """
    environment = {**os.environ, "PYTHONFAULTHANDLER": "1"}
    options = ["--store=null:", "--procs=1"]
    with Unread(options, tmp_path, environment=environment) as daemon:
        daemon.fill()
        for _ in range(3):
            (before,) = workers_of(daemon)
            os.kill(before, signal.SIGSEGV)

            def replaced(before: int = before) -> bool:
                return before not in (workers_of(daemon) or [before])

            eventually(replaced, "a worker was replaced")
        assert 404 == ask(daemon.port, "GET", "/key").status
        with daemon.reading() as lines:
            assert -signal.SIGTERM == daemon.end()

    said = [line for line in lines if "Fatal Python error: Segmentation fault" in line]
    assert 3 == len(said)


@pytest.mark.parametrize("procs", ["0", "2"])
def test_systemd_that_reads_nothing_stops_nothing(tmp_path: Path, procs: str) -> None:
    """
    Not the start, nor requests, nor the end.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(str(tmp_path / "notify"))
            try:
                while True:
                    sock.send(b"STATUS=full")
            except BlockingIOError:
                pass
        environment = {
            **os.environ,
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "WATCHDOG_USEC": "20000",
        }
        options = ["--store=file:values", f"--procs={procs}"]
        with Unread(options, tmp_path, environment=environment) as daemon:
            assert 201 == ask(daemon.port, "PUT", "/key", b"value").status
            daemon.process.send_signal(signal.SIGHUP)
            for _ in range(300):
                assert b"value" == ask(daemon.port, "GET", "/key").body
            assert -signal.SIGTERM == daemon.end()


def test_answers_that_nobody_reads_stop_nothing(tmp_path: Path) -> None:
    """
    Of the status site and of the control socket.
    """
    options = ["--store=file:values", "--procs=2", "--policy=roundrobin"]
    options += ["--status=unix:status", "--control=control"]
    socks = []
    with Unread(options, tmp_path) as daemon:
        for name, count in (("status", 3), ("control", 3)):
            for _ in range(count):
                sock = socket.socket(socket.AF_UNIX)
                socks.append(sock)
                sock.connect(str(tmp_path / name))
                sock.setblocking(False)
                request = b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n"
                if name == "status":
                    request = request.replace(b"/status", b"/status.json")
                try:
                    sock.sendall(request * 500)
                except BlockingIOError:
                    pass
        for _ in range(100):
            assert 404 == ask(daemon.port, "GET", "/key").status
        assert b"draining" in text_of(tmp_path / "status")
        assert -signal.SIGTERM == daemon.end()
    for sock in socks:
        sock.close()


def test_help_that_nobody_reads_to_the_end_is_no_mistake(tmp_path: Path) -> None:
    """
    As in ``twistd kvd --help | head``.
    """
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", RUN_TWISTD, "kvd", "--help"],
        cwd=tmp_path,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    os.close(writer)

    assert (0, "") == (done.returncode, done.stderr)
