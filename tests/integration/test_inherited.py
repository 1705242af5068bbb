"""
The true daemon, started by somebody who leaves it strange things.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest

from tests.integration.forked import ForkedProcess
from tests.integration.http import ask
from tests.integration.test_daemon import children, eventually, workers_of
from tests.integration.twistd import EXEC, STOP_SECONDS, Twistd, fork_twistd
from tests.patience import PATIENCE_SECONDS
from tests.ports import unused_port
from tests.processes import has_ended

pytestmark = pytest.mark.integration


def before_exec(blocked: str = "", ignored: str = "", closed: str = "") -> str:
    """
    What is done between fork and exec, so that a daemon inherits it: the prelude of one
    that starts as an operator starts it.
    """
    lines = [
        f"signal.signal(signal.{name}, signal.SIG_IGN)" for name in ignored.split()
    ]
    lines += [
        f"signal.pthread_sigmask(signal.SIG_BLOCK, [signal.{name}])"
        for name in blocked.split()
    ]
    lines += [f"os.close({number})" for number in closed.split()]
    return "\n".join(lines) + EXEC


def ended(pid: int) -> bool:
    """
    Whether a process has.
    """
    return has_ended(pid)


def serves(daemon: Twistd) -> None:
    """
    Values come back as they went, also from a worker that is new.
    """
    for number in range(3):
        key, value = f"/k%C3%A4y{number}", os.urandom(1000)
        assert 201 == ask(daemon.port, "PUT", key, value).status
        assert value == ask(daemon.port, "GET", key).body
        before = set(workers_of(daemon))
        if not before:
            continue
        os.kill(min(before), signal.SIGKILL)

        def replaced(before: set[int] = before) -> bool:
            now = set(workers_of(daemon))
            return len(now) == len(before) and min(before) not in now

        eventually(replaced, "a worker was replaced")


BLOCKED = "SIGTERM SIGCHLD SIGHUP SIGINT SIGUSR1 SIGALRM SIGPIPE SIGSEGV"
IGNORED = "SIGPIPE SIGCHLD"


@pytest.mark.parametrize("procs", ["0", "2"])
def test_signals_that_were_blocked_and_ignored(tmp_path: Path, procs: str) -> None:
    """
    kvd reads its settings again, replaces workers, says why they ended, leaves no
    process behind, and ends: for which it must undo both.
    """
    options = ["--store=file:values", f"--procs={procs}", "--status=unix:status"]
    prelude = before_exec(BLOCKED, IGNORED)
    with Twistd(options, tmp_path, prelude=prelude) as daemon:
        serves(daemon)
        daemon.process.send_signal(signal.SIGHUP)
        said = " settings " if procs == "0" else "nothing"
        assert 201 == ask(daemon.port, "PUT", "/key", b"value").status
        for worker in workers_of(daemon):
            # A worker that gets SIGTERM leaves, and is replaced.
            os.kill(worker, signal.SIGTERM)
            eventually(partial(ended, worker), "a worker left")
        family = children(daemon.process.pid)
        assert -signal.SIGTERM == daemon.stop()
    text = "".join(daemon.lines)

    assert all(has_ended(pid) for pid in family)
    assert "Traceback" not in text
    assert 3 * (procs != "0") == text.count("was killed by SIGKILL (9); it is replaced")
    assert said == "nothing" or said in text


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize(
    ("locale", "procs"),
    [
        ({"LC_ALL": "C"}, "2"),
        ({"LC_ALL": "xx_YY.UTF-8"}, "2"),
        (ASCII, "2"),
        # Of the others, too, the supervisor reads the options and the workers the keys.
        (ASCII, "0"),
        ({"LC_ALL": "", "LANG": "", "LANGUAGE": "xx"}, "2"),
    ],
)
def test_any_locale_or_none(
    tmp_path: Path, locale: Mapping[str, str], procs: str
) -> None:
    """
    Keys and the names of folders are bytes.
    """
    environment = {**os.environ, **locale}
    options = ["--store=file:välües", f"--procs={procs}", "--access-log=zugänge"]
    with Twistd(options, tmp_path, environment=environment) as daemon:
        serves(daemon)
        # Of the others, a worker that was killed may have taken the line with it.
        assert 404 == ask(daemon.port, "GET", "/l%C3%A4st").status
        assert -signal.SIGTERM == daemon.stop()

    assert (tmp_path / "välües" / "käy1").is_file()
    assert "/l%C3%A4st" in (tmp_path / "zugänge").read_text()
    assert "Traceback" not in "".join(daemon.lines)


@pytest.mark.parametrize("procs", ["0", "2"])
@pytest.mark.parametrize("closed", ["0", "0 1", "0 2", "0 1 2"])
def test_standard_streams_that_are_closed(
    tmp_path: Path, procs: str, closed: str
) -> None:
    """
    Nothing that would have gone there goes anywhere else.
    """
    # It is asked until it serves, since nobody reads what it prints.
    port = unused_port()
    listen = f"--listen=tcp:{port}:interface=127.0.0.1"
    options = ["--store=file:values", f"--procs={procs}", listen]
    daemon = Twistd(options, tmp_path)
    daemon.ports = [port]
    daemon.process = process = start(options, tmp_path, closed)
    with process:
        try:
            eventually(lambda: listens(port), "it served")
            serves(daemon)
            process.send_signal(signal.SIGTERM)
            assert -signal.SIGTERM == process.wait(STOP_SECONDS)
        finally:
            process.kill()


def start(options: Sequence[str], folder: Path, closed: str) -> ForkedProcess[str]:
    """
    A daemon without some of its standard streams, whose errors the caller reads.
    """
    end, errors = os.pipe()
    with open(os.devnull) as nothing:
        streams = [nothing.fileno(), errors, errors]
        arguments = ["-n", "--pidfile=", "kvd", *options]
        prelude = before_exec(closed=closed)
        process = fork_twistd(arguments, folder, streams, prelude=prelude)
    os.close(errors)
    process.stderr = os.fdopen(end, errors="replace")
    return process


def listens(port: int) -> bool:
    """
    Whether somebody answers.
    """
    try:
        return ask(port, "GET", "/nothing").status == 404
    except OSError:
        return False


@pytest.mark.parametrize("procs", ["0", "2"])
def test_an_access_log_needs_the_standard_output(tmp_path: Path, procs: str) -> None:
    """
    Its number would be that of something else.
    """
    options = ["--store=file:values", f"--procs={procs}", "--access-log=-"]
    with start(options, tmp_path, closed="0 1") as process:
        _, errors = process.communicate(timeout=PATIENCE_SECONDS)

    assert 0 != process.returncode
    assert "kvd: the access log cannot be written to standard output (-)" in errors


def gone(folder: Path) -> None:
    """
    A working folder that is removed while it is one.
    """
    shutil.rmtree(folder)


def unreadable(folder: Path) -> None:
    """
    One that nobody may enter.
    """
    folder.chmod(0)


@pytest.mark.parametrize("lose", [gone, unreadable])
@pytest.mark.parametrize("procs", ["0", "2"])
def test_a_working_folder_that_is_lost(
    tmp_path: Path, procs: str, lose: Callable[[Path], None]
) -> None:
    """
    With a store of an absolute name, workers and the fork server are replaced.
    """
    folder, store = tmp_path / "here", tmp_path / "store"
    folder.mkdir()
    options = [f"--store=file:{store}", f"--procs={procs}"]
    with Twistd(options, folder) as daemon:
        lose(folder)
        serves(daemon)
        for server in children(daemon.process.pid):
            before = set(workers_of(daemon))
            os.kill(server, signal.SIGKILL)
            eventually(partial(ended, server), "the fork server ended")
            eventually(lambda: children(daemon.process.pid) != [], "there was another")
            for worker in before:
                os.kill(worker, signal.SIGKILL)
            eventually(lambda: len(workers_of(daemon)) == 2, "workers were replaced")
        assert 201 == ask(daemon.port, "PUT", "/key", b"value").status
        assert b"value" == ask(daemon.port, "GET", "/key").body
        assert -signal.SIGTERM == daemon.stop()

    assert b"value" == (store / "key").read_bytes()
