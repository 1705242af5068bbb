"""
Tests for `kvd.daemon.upgrade.successor`: how the new daemon is started.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from kvd.daemon.opening import Sockets
from kvd.daemon.upgrade.manifest import Manifest, make_manifest
from kvd.daemon.upgrade.successor import Successor
from kvd.errors import ChangeImpossible
from kvd.settings import Settings, TCPAddress
from kvd.system.inherited import VARIABLE
from kvd.workers.reaping import REAP_SECONDS

SETTINGS = Settings(procs=2, listen=(TCPAddress("127.0.0.1", 80),))


@pytest.fixture
def manifest() -> Iterator[Manifest]:
    """
    With a descriptor that the new daemon inherits.
    """
    end, other = os.pipe()
    made = make_manifest(SETTINGS, Sockets([], None, None), None, None)
    yield replace(made, totals=end)
    os.close(end)
    os.close(other)


def test_why_it_cannot_be_started_is_said(tmp_path: Path, manifest: Manifest) -> None:
    """
    With the folder: the user of ``twistd --uid`` may have no way to the one in which
    root started the daemon.
    """
    folder = tmp_path / "gone"
    successor = Successor([], str(folder), {}, Clock())
    with pytest.raises(ChangeImpossible) as caught:
        successor.start(manifest)
    successor.abandon()

    assert caught.value.sentence == (
        f"the new kvd cannot be started: {folder}: No such file or directory"
    )


def test_a_signal_meanwhile_is_this_daemon_s_alone_where_there_is_no_other(
    tmp_path: Path, manifest: Manifest
) -> None:
    """
    Neither before one has been started, nor after that has failed.
    """
    successor = Successor([], str(tmp_path / "gone"), {}, Clock())
    successor.pass_on(signal.SIGHUP)
    with pytest.raises(ChangeImpossible):
        successor.start(manifest)
    successor.abandon()
    successor.pass_on(signal.SIGHUP)


@pytest.mark.parametrize(
    ("later", "sentence"),
    [
        ("", "it ended without a word on standard error; the log may say why"),
        ("say('error', 'it was asked to end')", "it was asked to end"),
    ],
)
def test_what_it_says_last_counts(
    tmp_path: Path, manifest: Manifest, later: str, sentence: str
) -> None:
    """
    One that served and has ended since, or is about to, does not serve.
    """
    code = (
        "import json, os, socket\n"
        f"channel = socket.socket(fileno=int(os.environ[{VARIABLE!r}]))\n"
        "def say(word, what):\n"
        "    channel.send(json.dumps({word: what}).encode())\n"
        f"say('serves', True)\n{later}"
    )
    clock = Clock()
    successor = Successor(["-c", code], str(tmp_path), {}, clock)
    successor.start(manifest)
    try:
        assert successor._process is not None
        successor._process.wait()
        serves = Deferred.fromCoroutine(successor.until("serves", lambda: None))
        caught: list[Failure] = []
        serves.addErrback(caught.append)
    finally:
        successor.abandon()

    (failure,) = caught
    assert failure.getErrorMessage().endswith(f"this one goes on: {sentence}")


def test_one_that_has_ended_after_it_was_allowed_to_serve_is_reaped(
    tmp_path: Path, manifest: Manifest
) -> None:
    """
    Else it would be a zombie for as long as this daemon runs.
    """
    clock = Clock()
    successor = Successor(["-c", ""], str(tmp_path), {}, clock)
    successor.start(manifest)
    successor.take([])
    process = successor._process
    assert process is not None
    successor.abandon()
    # It is not reaped by that.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    clock.advance(REAP_SECONDS)

    assert 0 == process.returncode
