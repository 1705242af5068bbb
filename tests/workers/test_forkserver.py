"""
Tests for `kvd.workers.forkserver`: a fork server in the process of the test,
which forks nothing.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
from pathlib import Path
from unittest import mock

import pytest
from twisted.trial.unittest import SynchronousTestCase

from kvd.ipc.messages import (
    MAX_DESCRIPTORS,
    Exited,
    Fork,
    Forked,
    Message,
    encode,
    receive,
)
from kvd.ipc.scoreboard import Scoreboard, create_scoreboard
from kvd.settings import Settings
from kvd.workers.forkserver import ForkServer
from kvd.workers.loading import load_plugins
from tests.new_python import run_python

IMPORT_AND_LOOK = """
import sys
from kvd import plugins
from kvd.settings import Settings
from kvd.workers.forkserver import import_for

import_for(Settings())
before = set(sys.modules)
plugins.getPlugins = None
from kvd.dispatch.gate import policy_of_gates

policy_of_gates(Settings().policy)
print(*(set(sys.modules) - before), "twisted.internet.reactor" in before)
"""


def test_a_worker_of_the_default_policy_has_nothing_to_import() -> None:
    """
    Whatever it looked for and imported by itself, it would not share with the others.
    The fork server has no reactor for all that.
    """
    assert "False\n" == run_python(IMPORT_AND_LOOK)


START_AND_LOOK = """
import socket
import sys
from dataclasses import replace
from twisted.internet.testing import MemoryReactorClock
from kvd.settings import CorsChoice, RightsFile, Settings, StoreLocation
from kvd.workers.forkserver import import_for

settings = Settings(store=StoreLocation("file", folder))
if what == "cors":
    settings = replace(settings, cors=(CorsChoice("/", ("*",)),))
elif what == "users":
    rights = '[anonymous.rights]\\n"/" = ["read"]\\n'
    settings = replace(settings, users=RightsFile("/rights", rights))
elif what == "process":
    settings = replace(settings, durability="process")
parts = import_for(settings, verifying=socket.socketpair()[0].detach())
from twisted.internet import reactor
before = set(sys.modules)
from kvd.workers.http_server import HttpServer

HttpServer(settings, 0, MemoryReactorClock(), parts=parts).start()
print(*(set(sys.modules) - before))
"""


@pytest.mark.parametrize("what", ["nothing", "process", "cors", "users"])
def test_a_worker_that_starts_has_nothing_to_import(tmp_path: Path, what: str) -> None:
    """
    Whatever the settings ask for was imported before the fork.
    """
    given = f"what, folder = {what!r}, {os.fspath(tmp_path)!r}"

    assert "\n" == run_python(given + START_AND_LOOK)


CONVERT_AND_COUNT = """
import sys
from kvd.ipc.messages import Gated, Listen, Ready, decode, encode
from kvd.net.reactor import WorkerReactor
from kvd.settings import Settings
from kvd.workers.forkserver import import_for

import_for(Settings())
searches = []


def look(frame, event, arg):
    if event == "call" and frame.f_code.co_name == "dispatch_without_caching":
        searches.append(frame)


sys.setprofile(look)
for message in (Ready(), Gated("gated"), Listen("0/1")):
    decode(encode(message))
sys.setprofile(None)
print(len(searches), "__implemented__" in vars(WorkerReactor))
"""


def test_a_worker_finds_its_tables_filled() -> None:
    """
    Those of cattrs for the messages, and of zope.interface for the reactor. What each
    worker entered by itself, it would not share with the others.
    """
    assert "0 True\n" == run_python(CONVERT_AND_COUNT)


class ForkServerTests(SynchronousTestCase):
    """
    `ForkServer` forks when asked.
    """

    def setUp(self) -> None:
        self.supervisor, control = socket.socketpair(
            socket.AF_UNIX, socket.SOCK_SEQPACKET
        )
        self.addCleanup(self.supervisor.close)
        self.addCleanup(control.close)
        memory = create_scoreboard(3)
        self.addCleanup(os.close, memory)
        settings = Settings()
        board = Scoreboard(memory)
        self.server = ForkServer(control, settings, board, load_plugins(settings))
        self.addCleanup(self.server._selector.close)

    def ask(self, descriptors: int) -> Message:
        """
        What it answers when it is asked for worker 2.
        """
        beside = [self.supervisor.fileno()] * descriptors
        socket.send_fds(self.supervisor, [encode(Fork(2, 7))], beside)
        assert self.server._take_message()
        came = receive(self.supervisor)
        assert came is not None
        return came[0]

    def test_without_room_for_the_control_socket_nothing_is_forked(self) -> None:
        """
        The supervisor gets a message, and the fork server lives on.
        """
        assert Exited(2, 0, "could not be forked: no room") == self.ask(
            MAX_DESCRIPTORS + 1
        )

    def test_a_worker_that_cannot_be_watched_is_ended(self) -> None:
        """
        And reaped; the supervisor gets a message.
        """
        process = subprocess.Popen(["sleep", "60"])
        self.addCleanup(process.wait)
        short = OSError(errno.EMFILE, "no room")
        with (
            mock.patch("os.fork", return_value=process.pid),
            mock.patch("os.pidfd_open", side_effect=short),
            mock.patch("os.kill", wraps=os.kill) as kill,
        ):
            answer = self.ask(1)

        assert Exited(2, 0, "could not be watched: no room") == answer
        kill.assert_called_once_with(process.pid, signal.SIGKILL)

    def test_a_worker_that_is_traced_holds_up_nobody(self) -> None:
        """
        A debugger learns of its end first. It is reaped when the debugger lets go.
        """
        process = subprocess.Popen(["false"])
        with mock.patch("os.fork", return_value=process.pid):
            assert isinstance(self.ask(1), Forked)
        waitpid = os.waitpid
        reported_first = [(0, 0)]

        def waitpid_of_traced(pid: int, flags: int) -> tuple[int, int]:
            assert os.WNOHANG == flags, "it would wait for the debugger"
            return reported_first.pop() if reported_first else waitpid(pid, flags)

        with mock.patch("os.waitpid", waitpid_of_traced):
            self.server._serve_once()
            with mock.patch("kvd.workers.forkserver._TRACED_SECONDS", 0):
                self.server._serve_once()
        process.returncode = 1  # It is reaped.
        came = receive(self.supervisor)
        assert came is not None

        assert Exited(2, process.pid, "exited with status 1") == came[0]

    def test_a_worker_that_stays_traced_is_asked_for_again(self) -> None:
        """
        And others are forked meanwhile.
        """
        self.server._traced.append((1, os.getpid()))
        with (
            mock.patch("os.waitpid", return_value=(0, 0)) as waitpid,
            mock.patch("kvd.workers.forkserver._TRACED_SECONDS", 0),
        ):
            self.server._serve_once()
            self.server._serve_once()

        assert 2 == waitpid.call_count
