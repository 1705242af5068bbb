"""
Tests for `kvd.daemon.written_files`.
"""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
import threading

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kvd.daemon.written_files import (
    CHECK_SECONDS,
    begin_log,
    check_off_reactor,
)
from kvd.errors import AccessLogUnusable, BadSetting
from kvd.settings import Settings, User
from tests.no_threads import no_more_threads
from tests.privileges import take_root
from tests.stepped import SteppedReactor

MANY_SECONDS = 60.0


class LogTests(SynchronousTestCase):
    """
    `begin_log` leaves the log to the user that twistd becomes.
    """

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "log")
        self.user = User(4711, 4712)

    def test_a_new_one_is_that_users(self) -> None:
        """
        Though twistd opens it as root.
        """
        take_root("giving a file away")

        begin_log({"logfile": self.path}, self.user)

        status = os.stat(self.path)
        assert (4711, 4712, 0o640) == (
            *(status.st_uid, status.st_gid, status.st_mode & 0o777),
        )

    def test_one_that_exists_stays_as_it_is(self) -> None:
        """
        It may be of a program that all of them write to.
        """
        with open(self.path, "w") as file:
            file.write("older lines\n")
        before = os.stat(self.path)

        begin_log({"logfile": self.path}, self.user)

        assert before == os.stat(self.path)

    def test_no_other_file_is_made(self) -> None:
        """
        Where the user stays, the log goes elsewhere, or something else runs kvd.
        """
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(os.path.dirname(self.path))

        begin_log({"logfile": self.path}, None)
        begin_log(None, self.user)
        begin_log({"logfile": None, "nodaemon": True}, self.user)
        begin_log({"logfile": "-"}, self.user)
        begin_log({"logfile": self.path, "syslog": True}, self.user)

        assert [] == os.listdir()


class CheckTests(SynchronousTestCase):
    """
    `check_off_reactor` holds no reactor up.
    """

    def setUp(self) -> None:
        self.reactor = SteppedReactor()
        self.addCleanup(self.reactor.dispose)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "log")

    def check(self, path: str) -> Deferred[None]:
        """
        Of an access log.
        """
        return check_off_reactor(Settings(access_log=path), self.reactor)

    def finish(self) -> None:
        """
        Wait until no check is under way, and have it reported.
        """
        for thread in threading.enumerate():
            if thread.name == "check":
                thread.join(MANY_SECONDS)
                assert not thread.is_alive()
        self.reactor.settle()

    def test_it_is_reported_in_the_reactor(self) -> None:
        """
        That it can be written, or why it cannot.
        """
        good, bad = self.check(self.path), self.check("/absent/log")
        self.finish()
        self.successResultOf(good)
        self.failureResultOf(bad, AccessLogUnusable)

        assert os.path.exists(self.path)
        assert [] == self.reactor.getDelayedCalls()

    def test_what_takes_too_long_is_reported_too(self) -> None:
        """
        Another process may have a record locked.
        """
        with open(self.path, "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            checked = check_off_reactor(Settings(record=self.path), self.reactor)
            self.reactor.advance(CHECK_SECONDS - 1)
            self.assertNoResult(checked)
            self.reactor.advance(1)
            self.failureResultOf(checked, BadSetting)
        self.finish()

    def test_it_is_refused_where_no_thread_can_be_started(self) -> None:
        """
        Then nobody knows whether they can be written.
        """
        with no_more_threads():
            error = self.failureResultOf(self.check(self.path), BadSetting)

        assert "no thread can be started" in error.getErrorMessage()

    def test_a_pipe_needs_no_reader_yet(self) -> None:
        """
        What is written waits for one, as far as there is room; requests do not, nor
        does the start. A socket is no pipe.
        """
        os.mkfifo(self.path)
        checked = self.check(self.path)
        self.finish()
        self.successResultOf(checked)

        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(f"{self.path}.socket")
        checked = self.check(f"{self.path}.socket")
        self.finish()
        self.failureResultOf(checked, AccessLogUnusable)
