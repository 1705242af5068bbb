"""
The commands that look after a running daemon.
"""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvd.plugins import IPolicyDeclaration, declared
from tests.integration.commands import run_kvd
from tests.integration.test_status import KVD, null, status_of
from tests.integration.twistd import Twistd

pytestmark = pytest.mark.integration


def daemon(folder: Path) -> Iterator[Path]:
    """
    A daemon with two workers, for as long as somebody looks at its control socket.
    """
    path = folder / "control"
    options = null("--policy=roundrobin", "--procs=2", f"--control={path}")
    with Twistd(options, folder):
        yield path


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Path]:
    """
    The control socket of a daemon of its own, to change.
    """
    yield from daemon(tmp_path)


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """
    That of a daemon which all tests may look at and none changes.
    """
    yield from daemon(tmp_path_factory.mktemp("unchanged"))


def kvd(control: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """
    What a command does.
    """
    return run_kvd(*arguments, environment=os.environ | {"KVD_CONTROL": str(control)})


def test_the_policy_is_switched_and_shown(control: Path) -> None:
    """
    With all others that there are.
    """
    done = kvd(control, "policy", "shared")
    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)
    assert "shared" == status_of(control)["policy"]

    listed = kvd(control, "policy").stdout.splitlines()
    assert ["shared"] == [line.split()[1] for line in listed if line[0] == "*"]
    for name, declaration in declared(IPolicyDeclaration).items():
        assert any(name in line and declaration.description in line for line in listed)


def test_workers_are_added_replaced_and_taken_away(control: Path) -> None:
    """
    Without a word, unless somebody at a terminal waits for it.
    """
    first = [row["pid"] for row in status_of(control)["workers"]]
    assert 0 == kvd(control, "procs", "3").returncode
    assert 3 == len(status_of(control)["workers"])

    assert 0 == kvd(control, "drain", "1").returncode
    drained = [row["pid"] for row in status_of(control)["workers"]]
    assert [True, False] == [first[n] == drained[n] for n in range(2)]

    assert 0 == kvd(control, "restart").returncode
    restarted = status_of(control)["workers"]
    assert not {row["pid"] for row in restarted}.intersection(drained)
    assert ["ready"] * 3 == [row["state"] for row in restarted]

    done = kvd(control, "procs", "1")
    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)
    assert 1 == len(status_of(control)["workers"])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["policy", "fair"], 1, "no policy named 'fair'; known: "),
        (["drain", "2"], 1, "no worker 2; they are numbered 0 to 1"),
        (["procs", "0"], 2, "kvd procs --help"),
        (["procs"], 2, "kvd procs --help"),
        (["drain", "all"], 2, "kvd drain --help"),
        (["top", "--interval=0"], 2, "kvd top --help"),
        (["restart", "--control=/nowhere"], 5, "no kvd answers"),
        (["policy", "--control=/nowhere"], 5, "no kvd answers"),
        (["top", "--control=/nowhere"], 5, "no kvd answers"),
    ],
)
def test_what_cannot_be_done_is_reported(
    unchanged: Path, arguments: list[str], code: int, words: str
) -> None:
    """
    In a line.
    """
    tried = kvd(unchanged, *arguments)

    assert (code, "") == (tried.returncode, tried.stdout)
    (line,) = tried.stderr.splitlines()
    assert words in line


def test_without_workers_there_is_nothing_to_change(tmp_path: Path) -> None:
    """
    The twistd process itself serves.
    """
    control = tmp_path / "control"
    with Twistd(null("--procs=0", f"--control={control}"), tmp_path):
        tried = kvd(control, "restart")
        shown = kvd(control, "top", "-n", "1", "--interval=0.1")

    assert 5 == tried.returncode
    assert "has no workers" in tried.stderr
    assert "1 of 1 workers ready" in shown.stdout


def test_the_work_is_shown(unchanged: Path) -> None:
    """
    In as many frames as were asked for.
    """
    shown = kvd(unchanged, "top", "-n", "2", "--interval=0.1")

    assert (0, "") == (shown.returncode, shown.stderr)
    assert 2 == shown.stdout.count("2 of 2 workers ready")
    assert "\x1b" not in shown.stdout


def test_a_terminal_is_drawn_on(unchanged: Path) -> None:
    """
    In one place.
    """
    ours, theirs = pty.openpty()
    command = [*KVD, "top", "-n", "2", "--interval=0.1", f"--control={unchanged}"]
    with subprocess.Popen(command, stdout=theirs, env=os.environ | {"TERM": "xterm"}):
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 4096):
                shown += piece
        except OSError:
            # What Linux says when the last of the other side has gone.
            pass
    os.close(ours)

    assert b"2 of 2 workers ready" in shown
    assert b"\x1b[2K" in shown
