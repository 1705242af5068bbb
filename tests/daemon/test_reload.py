"""
Tests for `kvd.daemon.reload`.
"""

from __future__ import annotations

import os
import pty
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.logger import LogEvent, LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from kvd.daemon.hangup import has_terminal
from kvd.daemon.reload import Reload
from kvd.daemon.written_files import check_written_files
from kvd.errors import BadSetting, ChangeImpossible, DaemonEnds, PlaceTaken
from kvd.settings import RightsFile, Settings, StoreLocation, TCPAddress
from tests.certificates import localhost

SETTINGS = Settings(procs=2)


class PlayedChanges:
    """
    Remembers what it should do.
    """

    procs = 3
    """As somebody has changed it by hand."""

    def __init__(self) -> None:
        self.adopted: list[Settings] = []
        self.users: list[RightsFile | None] = []
        self.answer: Deferred[None] = succeed(None)
        self.idle: Deferred[None] = succeed(None)
        """Fires when no other change is under way."""

    def rights(self, users: RightsFile | None) -> None:
        """
        See `kvd.workers.changes.Changes`.
        """
        self.users.append(users)

    def until_idle(self) -> Deferred[None]:
        """
        See `kvd.workers.changes.Changes`.
        """
        waiting: Deferred[None] = Deferred()

        def pass_on(result: None) -> None:
            waiting.callback(result)

        self.idle.addCallback(pass_on)
        return waiting

    def adopt(self, settings: Settings) -> Deferred[None]:
        """
        See `kvd.workers.changes.Changes`.
        """
        self.adopted.append(settings)
        return self.answer


def check_at_once(settings: Settings) -> Deferred[None]:
    """
    Where nothing can block.
    """
    return maybeDeferred(check_written_files, settings)


def without_terminal() -> tuple[int, int]:
    """
    As `pty.fork`, but for the terminal.
    """
    child = os.fork()
    if child == 0:
        os.setsid()
    return child, os.open(os.devnull, os.O_RDONLY)


class ReloadTests(SynchronousTestCase):
    """
    `Reload` applies what the settings say.
    """

    def setUp(self) -> None:
        self.changes = PlayedChanges()

    def reload(self, read: Callable[[], Settings]) -> list[LogEvent]:
        """
        What is logged meanwhile.
        """
        changes: Any = self.changes
        with capturedLogs() as events:
            reloading = Reload(SETTINGS, read, check_at_once, changes)
            self.successResultOf(reloading.start())
        return list(events)

    def test_what_can_change_does(self) -> None:
        """
        Without a word; whoever changes has some.
        """
        new = replace(SETTINGS, policy="shared", procs=5, splice=False)

        assert [] == self.reload(lambda: new)
        assert [new] == self.changes.adopted

    def test_what_cannot_is_reported_and_left(self) -> None:
        """
        All else is done.
        """
        new = replace(
            SETTINGS,
            listen=(TCPAddress("127.0.0.1", 1),),
            store=StoreLocation("null", ""),
            fallback_store=StoreLocation("null", ""),
            control=None,
            status=TCPAddress("127.0.0.1", 2),
            procs=0,
            splice=False,
        )
        events = self.reload(lambda: new)

        assert ["listen", "status", "control", "store", "fallback_store"] == [
            event["name"] for event in events if "name" in event
        ]
        assert 3 == events[-1]["procs"]
        assert [replace(SETTINGS, procs=3, splice=False)] == self.changes.adopted

    def test_addresses_that_stay_keep_their_certificates(self) -> None:
        """
        Read again, where other ones were asked for.
        """
        with tempfile.TemporaryDirectory() as folder:
            tls = localhost().write(Path(folder), "cert")
            settings = replace(SETTINGS, listen=(TCPAddress("127.0.0.1", 1, tls=tls),))
            new = replace(settings, listen=SETTINGS.listen)
            changes: Any = self.changes
            reloading = Reload(settings, lambda: new, check_at_once, changes)
            with capturedLogs():
                self.successResultOf(reloading.start())

        (adopted,) = self.changes.adopted
        assert settings.listen == adopted.listen
        assert [tls] == [each.tls for each in adopted.credentials]

    def test_other_files_for_tls_are_reported(self) -> None:
        """
        The paths of an address stay; what is in the files is read again.
        """
        changes: Any = self.changes
        with tempfile.TemporaryDirectory() as folder:
            first = localhost().write(Path(folder), "first")
            second = localhost().write(Path(folder), "second")
            settings, new = (
                replace(SETTINGS, listen=(TCPAddress("127.0.0.1", 1, tls=tls),))
                for tls in (first, second)
            )
            with capturedLogs() as events:
                reloading = Reload(settings, lambda: new, check_at_once, changes)
                self.successResultOf(reloading.start())

        (event,) = events
        assert "listen names other files for TLS" in formatEvent(event)
        (adopted,) = self.changes.adopted
        assert settings.listen == adopted.listen
        assert [first] == [each.tls for each in adopted.credentials]

    def test_what_cannot_be_read_changes_nothing(self) -> None:
        """
        And the log says why.
        """

        def refuse() -> Settings:
            raise BadSetting("there is no setting 'polcy'")

        (event,) = self.reload(refuse)

        assert "there is no setting 'polcy'" == event["reason"]
        assert [] == self.changes.adopted

    def test_what_cannot_be_written_changes_nothing(self) -> None:
        """
        Who died would be replaced by one that loses what it should write.
        """
        for new in (
            replace(SETTINGS, access_log="/absent/log"),
            replace(SETTINGS, record="/absent/record"),
        ):
            (event,) = self.reload(lambda new=new: new)  # type: ignore[misc]
            assert "/absent/" in event["reason"]

        assert [] == self.changes.adopted

    def test_of_two_readings_the_later_counts(self) -> None:
        """
        Also where the check of the earlier takes longer.
        """
        checks: list[Deferred[None]] = []
        read = [replace(SETTINGS, procs=procs) for procs in (5, 4)]

        def check(settings: Settings) -> Deferred[None]:
            checks.append(Deferred())
            return checks[-1]

        changes: Any = self.changes
        reloading = Reload(SETTINGS, read.pop, check, changes)
        ended = [reloading.start() for _ in range(2)]
        assert [] == self.changes.adopted
        for checked in reversed(checks):
            checked.callback(None)
        for one in ended:
            self.successResultOf(one)

        assert [5] == [settings.procs for settings in self.changes.adopted]

    def test_readings_wait_for_another_change(self) -> None:
        """
        Whoever sends a signal is not told to try again. The last reading counts.
        """
        self.changes.idle = Deferred()
        read = [replace(SETTINGS, procs=procs) for procs in (5, 4)]
        changes: Any = self.changes
        reloading = Reload(SETTINGS, read.pop, check_at_once, changes)
        ended = [reloading.start() for _ in range(2)]
        for one in ended:
            self.assertNoResult(one)
        assert [] == self.changes.adopted
        self.changes.idle.callback(None)
        for one in ended:
            self.successResultOf(one)

        assert [5] == [settings.procs for settings in self.changes.adopted]

    def test_rights_wait_for_no_other_change(self) -> None:
        """
        It may take as long as clients like.
        """
        self.changes.idle = Deferred()
        users = [None, *(RightsFile("/rights", text) for text in ("new", "old"))]
        changes: Any = self.changes
        reloading = Reload(
            SETTINGS,
            lambda: replace(SETTINGS, users=users.pop()),
            check_at_once,
            changes,
        )
        for _ in range(3):
            self.assertNoResult(reloading.start())

        texts = [file and file.text for file in self.changes.users]
        assert ["old", "new", None] == texts
        assert [] == self.changes.adopted

    def test_what_cannot_be_done_is_reported(self) -> None:
        """
        A worker may not get ready.
        """
        self.changes.answer = fail(ChangeImpossible("not now"))
        (event,) = self.reload(lambda: SETTINGS)

        assert "not now" == event["reason"]

    def test_what_another_process_does_instead_is_no_failure(self) -> None:
        """
        It got the signal too.
        """
        self.changes.answer = fail(PlaceTaken("another process serves"))
        (event,) = self.reload(lambda: SETTINGS)

        assert LogLevel.info is event["log_level"]
        assert "another process serves" in formatEvent(event)

    def test_the_end_of_the_daemon_is_no_failure(self) -> None:
        """
        The signal to end may follow at once.
        """
        self.changes.answer = fail(DaemonEnds("kvd is ending"))
        (event,) = self.reload(lambda: SETTINGS)

        assert LogLevel.info is event["log_level"]
        assert "kvd is ending" in formatEvent(event)

    def test_a_terminal_is_noticed(self) -> None:
        """
        Its end would be reported as SIGHUP, too.
        """
        for session, expected in ((pty.fork, True), (without_terminal, False)):
            child, descriptor = session()
            if child == 0:
                os._exit(has_terminal() is not expected)
            assert 0 == os.waitpid(child, 0)[1]
            os.close(descriptor)

    def test_a_mistake_is_logged_as_such(self) -> None:
        """
        With its traceback.
        """
        self.changes.answer = fail(ZeroDivisionError())
        self.reload(lambda: SETTINGS)

        assert 1 == len(self.flushLoggedErrors(ZeroDivisionError))
