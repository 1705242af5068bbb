"""
SIGHUP: the settings are read again.
"""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from kvd.admin.control.asking import ControlSocket
from kvd.lab.measuring.processes import wait_for
from tests.integration.http import ask
from tests.integration.test_status import status_of
from tests.integration.twistd import RUN_TWISTD, Twistd
from tests.patience import PATIENCE_SECONDS

pytestmark = pytest.mark.integration


def read_until(daemon: Twistd, words: str) -> None:
    """
    The log, until it says something; kept in its lines. If it never does, pytest shows
    what it said.
    """
    assert daemon.process.stdout is not None
    for line in daemon.process.stdout:
        daemon.lines.append(line)
        print(line, end="")
        if words in line:
            return
        assert ": not done: " not in line, line
    raise AssertionError(words)


def test_what_is_written_now_holds(tmp_path: Path) -> None:
    """
    The policy, the number of workers, and what each of them does.
    """
    config = tmp_path / "kvd.toml"
    config.write_text('procs = 2\npolicy = "shared"\n')
    control = tmp_path / "control"
    options = ["--store=null:", f"--control={control}", "--config=kvd.toml"]
    with Twistd(options, tmp_path) as daemon:
        before = {row["pid"] for row in status_of(control)["workers"]}
        assert 201 == ask(daemon.port, "PUT", "/k", b"x" * 2000).status
        config.write_text(
            'procs = 3\npolicy = "leastbusy"\n[limits]\nmax-value = 1000\n'
        )
        daemon.process.send_signal(signal.SIGHUP)
        read_until(daemon, "settings: done")
        status = status_of(control)
        assert "leastbusy" == status["policy"]
        assert ["ready"] * 3 == [row["state"] for row in status["workers"]]
        assert not before.intersection(row["pid"] for row in status["workers"])
        assert 413 == ask(daemon.port, "PUT", "/k", b"x" * 2000).status

        # What is broken changes nothing.
        after = status_of(control)["workers"]
        config.write_text("procs = many\n")
        daemon.process.send_signal(signal.SIGHUP)
        read_until(daemon, f"the settings file {config} is not TOML")
        assert 413 == ask(daemon.port, "PUT", "/k", b"x" * 2000).status
        assert [row["pid"] for row in after] == [
            row["pid"] for row in status_of(control)["workers"]
        ]


def test_without_workers_it_is_reported(tmp_path: Path) -> None:
    """
    And kvd serves on.
    """
    with Twistd(["--store=null:", "--procs=0", "--control=off"], tmp_path) as daemon:
        daemon.process.send_signal(signal.SIGHUP)
        read_until(daemon, "settings cannot be reloaded")
        assert 404 == ask(daemon.port, "GET", "/k").status


def test_an_end_right_after_is_no_failure(tmp_path: Path) -> None:
    """
    The settings are read again while requests in flight are finished.
    """
    with Twistd(["--store=null:", "--procs=1", "--control=off"], tmp_path) as daemon:
        with uploading(daemon.port) as client:
            # So that both come at once.
            numbers = (signal.SIGSTOP, signal.SIGHUP, signal.SIGTERM, signal.SIGCONT)
            for number in numbers:
                daemon.process.send_signal(number)
            read_until(daemon, "the settings are not applied here: kvd is ending")
            client.sendall(b"xy")
            assert client.recv(1000).startswith(b"HTTP/1.1 201 ")
        daemon.stop()

    assert not [line for line in daemon.lines if "#error]" in line or "#warn]" in line]


@contextmanager
def uploading(port: int) -> Iterator[socket.socket]:
    """
    A connection whose request is in flight until two more bytes are sent.
    """
    address = ("127.0.0.1", port)
    with socket.create_connection(address, timeout=PATIENCE_SECONDS) as client:
        client.sendall(
            b"PUT /k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        assert client.recv(1000).startswith(b"HTTP/1.1 100 ")
        yield client


@pytest.mark.parametrize("procs", ["0", "1"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_to_end_is_no_mistake(
    tmp_path: Path, procs: str, number: signal.Signals
) -> None:
    """
    The request in flight is finished, and no traceback is in the log.
    """
    options = ["--store=null:", f"--procs={procs}", "--control=off"]
    with Twistd(options, tmp_path) as daemon:
        with uploading(daemon.port) as client:
            daemon.process.send_signal(number)
            read_until(daemon, f"Received {number.name}")
            for _ in range(3):
                daemon.process.send_signal(number)
                read_until(daemon, f"{number.name} again: kvd is ending")
            client.sendall(b"xy")
            assert client.recv(1000).startswith(b"HTTP/1.1 201 ")
        daemon.stop()

    assert "Traceback" not in "".join(daemon.lines)


def serve_at(
    terminal: int, folder: Path, disposition: signal.Handlers
) -> subprocess.Popen[str]:
    """
    A daemon that a terminal belongs to.

    Args:
        terminal: Its descriptor; closed.
        folder: Where it is started; for its control socket.
        disposition: What the signal does at the start: that of who runs the tests may
            be any.
    """
    # It executes the daemon, so that an upgrade starts no other session.
    become_its_session = (
        "import fcntl, os, signal, sys, termios; os.setsid();"
        " fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
        f" signal.signal(signal.SIGHUP, {int(disposition)});"
        " os.execv(sys.executable, [sys.executable, '-c', *sys.argv[1:]])"
    )
    daemon = subprocess.Popen(
        [
            *[sys.executable, "-c", become_its_session, RUN_TWISTD],
            *["-n", "--pidfile=", "kvd", "--store=null:", "--procs=1"],
            *[f"--control={folder}/control", "--listen=tcp:0:interface=127.0.0.1"],
        ],
        cwd=folder,
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    os.close(terminal)
    assert daemon.stdout is not None
    assert any("kvd serves" in line for line in daemon.stdout)
    return daemon


def await_stand_in(pid: int) -> None:
    """
    Wait until the first daemon has become what stands in for it.
    """
    program = Path(f"/proc/{pid}/cmdline")
    assert wait_for(lambda: b"stand_in.py" in program.read_bytes(), PATIENCE_SECONDS)


@pytest.mark.parametrize("stage", ["started", "upgraded", "replaced"])
def test_when_its_terminal_goes_kvd_ends(tmp_path: Path, stage: str) -> None:
    """
    Which is what the signal means first. The kernel sends it to the process that the
    terminal belongs to, also after another one serves in its place, and after it has
    ended itself but for its number.
    """
    ours, theirs = pty.openpty()
    daemon = serve_at(theirs, tmp_path, signal.SIG_DFL)
    try:
        if stage != "started":
            with closing(ControlSocket(str(tmp_path / "control"))) as asked:
                asked.upgrade()
        if stage == "replaced":
            await_stand_in(daemon.pid)
        os.close(ours)
        assert 0 == daemon.wait(PATIENCE_SECONDS)
    finally:
        daemon.kill()
        daemon.communicate()


@pytest.mark.parametrize("stage", ["upgraded", "replaced"])
def test_one_that_ignores_its_terminal_does_so_once_upgraded(
    tmp_path: Path, stage: str
) -> None:
    """
    As one that nohup(1) has started.
    """
    ours, theirs = pty.openpty()
    daemon = serve_at(theirs, tmp_path, signal.SIG_IGN)
    try:
        with closing(ControlSocket(str(tmp_path / "control"))) as asked:
            asked.upgrade()
            new = asked.status()["pid"]
        assert new != daemon.pid
        if stage == "replaced":
            await_stand_in(daemon.pid)
        os.close(ours)
        assert daemon.stdout is not None
        assert any("settings: done" in line for line in daemon.stdout)
        assert new == status_of(tmp_path / "control")["pid"]
    finally:
        daemon.terminate()
        daemon.communicate()
