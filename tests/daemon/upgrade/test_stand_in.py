"""
Tests for `kvd.daemon.upgrade.stand_in`, in a process of its own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest

from kvd.daemon.upgrade import stand_in

# Becomes the stand-in of a child, as a daemon does; the child writes that it runs, but
# not before signals wait for the stand-in.
PROGRAM = """
import os, signal, subprocess, sys
from kvd.daemon.upgrade.foreground import adopt_orphans
from kvd.daemon.upgrade.stand_in import FORWARDED
adopt_orphans()
read, write = os.pipe()
os.set_blocking(read, False)
os.set_inheritable(read, True)
child = subprocess.Popen(
    [sys.executable, "-c", "import sys; sys.stdin.readline()\\n" + sys.argv[2],
        str(write)], pass_fds=[write], stdin=subprocess.PIPE)
os.close(write)
signal.pthread_sigmask(signal.SIG_SETMASK, FORWARDED)
child.stdin.write(b"\\n")
child.stdin.close()
os.execv(sys.executable,
    [sys.executable, "-I", "-S", sys.argv[1], str(child.pid), str(read)])
"""

CHILD = """
import os, signal, sys, time
def got(number, frame):
    # Not print: the signal may have interrupted that.
    os.write(1, signal.Signals(number).name.encode() + b"\\n")
    if number == signal.SIGUSR2:
        os._exit(7)
    if number == signal.SIGQUIT:
        os.kill(os.getpid(), signal.SIGKILL)
for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT):
    signal.signal(number, got)
print("runs", flush=True)
while True:
    time.sleep(100)
"""

SECOND = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda number, frame: os._exit(5))
os.write(int(sys.argv[1]), b"%d\\n" % os.getpid())
print("told", flush=True)
while True:
    time.sleep(100)
"""

FIRST = f"""
import os, subprocess, sys
pipe = int(sys.argv[1])
second = subprocess.Popen(
    [sys.executable, "-c", {SECOND!r}, sys.argv[1]],
    pass_fds=[pipe],
    stdout=subprocess.PIPE,
)
second.stdout.readline()
print("told", flush=True)
os._exit(3)
"""


@contextmanager
def standing_in(child: str) -> Iterator[subprocess.Popen[str]]:
    """
    A stand-in for a child, whose output is read.
    """
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, stand_in.__file__, child],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("last", "status"), [(signal.SIGUSR2, 7), (signal.SIGQUIT, -signal.SIGKILL)]
)
def test_signals_are_passed_on_and_the_end_is_the_same(
    last: signal.Signals, status: int
) -> None:
    """
    With a status, or by a signal.
    """
    with standing_in(CHILD) as process:
        assert process.stdout is not None
        assert "runs\n" == process.stdout.readline()
        for number in (signal.SIGHUP, signal.SIGUSR1, last):
            process.send_signal(number)
            assert f"{number.name}\n" == process.stdout.readline()
        assert status == process.wait()


@pytest.mark.parametrize(
    ("status", "expected"), [(7 << 8, 7), (signal.SIGTERM, 143), (signal.SIGKILL, 137)]
)
def test_process_1_ends_with_the_status_of_a_shell(status: int, expected: int) -> None:
    """
    No signal that it sends to itself ends it.
    """
    handler = signal.getsignal(signal.SIGTERM)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        with mock.patch("os.kill"), mock.patch("os._exit") as ended:
            stand_in._end(status)
    finally:
        signal.signal(signal.SIGTERM, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    assert [mock.call(expected)] == ended.mock_calls


def test_a_second_daemon_follows_the_first() -> None:
    """
    It has told its number before the first one ends, and is its child.
    """
    with standing_in(FIRST) as process:
        assert process.stdout is not None
        assert "told\n" == process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        # That of the second one.
        assert 5 == process.wait()


def test_the_newest_number_counts() -> None:
    """
    Several may have come since.
    """
    read, write = os.pipe()
    os.set_blocking(read, False)
    try:
        assert 3 == stand_in.newest(read, 3)
        stand_in.report_pid(write)
        os.write(write, b"12\n13\n")
        assert 13 == stand_in.newest(read, 3)
        assert 13 == stand_in.newest(read, 13)
    finally:
        os.close(write)
        os.close(read)


def test_it_imports_nothing_that_an_upgrade_replaces() -> None:
    """
    Only of Python's own, so that it is small.
    """
    text = Path(stand_in.__file__).read_text()

    assert "kvd." not in "".join(
        line for line in text.splitlines() if line.startswith(("import", "from"))
    )
