"""
Tests for `kvd.log.writing`.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import pytest
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import (
    ILogObserver,
    LogEvent,
    Logger,
    LogPublisher,
    eventAsText,
    formatEvent,
    textFileLogObserver,
)
from twisted.python.logfile import LogFile
from twisted.trial.unittest import SynchronousTestCase

from kvd.log import writing
from kvd.log.writer import Writer
from kvd.log.writing import WrittenLater, write_log_later
from tests.no_threads import no_more_threads

MANY_SECONDS = 60.0


@pytest.fixture(autouse=True)
def threads_end(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """
    A daemon has one of these threads until its end; here, many tests make one each.
    """
    made = []

    def make(name: str) -> Writer:
        made.append(Writer(name))
        return made[-1]

    monkeypatch.setattr(writing, "Writer", make)
    yield
    for writer in made:
        writer.end()


class Pipe:
    """
    An observer that takes events when it may.
    """

    def __init__(self) -> None:
        self.read = threading.Event()
        self.entered = threading.Event()
        self.events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        self.entered.set()
        assert self.read.wait(MANY_SECONDS)
        self.events.append(event)

    @property
    def texts(self) -> list[str]:
        """
        What it took.
        """
        return [formatEvent(event) for event in self.events]


class WrittenLaterTests(SynchronousTestCase):
    """
    `WrittenLater` hands events on in a thread.
    """

    def setUp(self) -> None:
        self.pipe = Pipe()
        self.addCleanup(self.pipe.read.set)
        self.later = WrittenLater(cast(ILogObserver, self.pipe))
        self.log = Logger("here", observer=cast(ILogObserver, self.later))

    def written(self) -> list[str]:
        """
        All that the observer took, once it is read.
        """
        self.pipe.read.set()
        assert self.later._writer.wait(MANY_SECONDS)
        return self.pipe.texts

    def test_nothing_is_lost_or_changed(self) -> None:
        """
        Events come in their order, each with the text that it had.
        """
        about = [0]
        for number in range(1000):
            about[0] = number
            self.log.info("about {about}", about=about)
        about[0] = -1

        assert [f"about [{number}]" for number in range(1000)] == self.written()

    def test_logging_waits_for_nothing(self) -> None:
        """
        What is too much is left out, and counted where it is missing.
        """
        text = "x" * 1000
        self.log.info("first")
        assert self.pipe.entered.wait(MANY_SECONDS)
        for _ in range(5000):
            self.log.info("{text}", text=text)
        count = writing.MAX_WAITING_CHARACTERS // len(text)
        texts = self.written()

        assert ["first", *[text] * count] == texts[: count + 1]
        (note,) = texts[count + 1 :]
        assert note.startswith(f"{5000 - count} lines of the log are missing here:")
        self.log.info("last")
        assert "last" == self.written()[-1]

    def test_short_events_and_failures_cost_too(self) -> None:
        """
        Whatever an event has besides its text is in memory.
        """
        self.log.info("first")
        assert self.pipe.entered.wait(MANY_SECONDS)
        for _ in range(100):
            try:
                raise KeyError("missing")
            except KeyError:
                self.log.failure("it failed")
        texts = self.written()
        assert len(texts) < 20
        assert "missing here" in texts[-1]
        assert "KeyError: 'missing'" in eventAsText(self.pipe.events[1])

        self.pipe.read.clear()
        self.pipe.entered.clear()
        self.log.info("second")
        assert self.pipe.entered.wait(MANY_SECONDS)
        for _ in range(5000):
            self.log.info("")
        waiting = writing.MAX_WAITING_CHARACTERS // writing.LEAST_CHARACTERS
        assert len(texts) + 1 + waiting + 1 == len(self.written())

    def test_without_a_thread_events_wait_for_one(self) -> None:
        """
        Each event tries again to start it.
        """
        with no_more_threads():
            self.log.info("first")
            self.log.info("second")
        self.log.info("third")

        assert ["first", "second", "third"] == self.written()

    def test_an_event_may_come_while_another_is_taken(self) -> None:
        """
        From a signal's handler, in the same thread.
        """

        class Interrupted:
            """Logs when it is formatted."""

            def __repr__(inner) -> str:  # noqa: N805
                self.log.info("Received SIGTERM, shutting down.")
                return "interrupted"

        with self.later._lock:
            self.log.info("{what!r}", what=Interrupted())

        assert ["Received SIGTERM, shutting down.", "interrupted"] == self.written()

    def test_an_observer_that_fails_costs_its_own_lines_only(self) -> None:
        """
        The thread goes on.
        """

        def fail(event: LogEvent) -> None:
            raise OSError(5, "Input/output error")

        self.later = WrittenLater(
            cast(ILogObserver, fail), cast(ILogObserver, self.pipe)
        )
        self.log = Logger("here", observer=cast(ILogObserver, self.later))
        self.log.info("first")
        self.log.info("second")

        texts = [text for text in self.written() if "Temporarily" not in text]
        assert ["first", "second"] == texts

    def test_at_the_end_each_line_is_waited_for(self) -> None:
        """
        The process may end behind it.
        """
        self.pipe.read.set()
        self.log.info("first")
        self.later.end()
        assert ["first"] == self.pipe.texts
        self.log.info("second")

        assert ["first", "second"] == self.pipe.texts

    def test_the_end_does_not_wait_for_ever(self) -> None:
        """
        However many lines come.
        """
        self.patch(writing, "END_SECONDS", 0.01)
        self.log.info("first")
        self.later.end()
        before = time.monotonic()
        for _ in range(1000):
            self.log.info("more")

        assert time.monotonic() - before < MANY_SECONDS
        assert [] == self.pipe.texts


class Reactor(MemoryReactorClock):
    """
    Remembers what is to happen at its end.
    """

    def callFromThread(self, function: Callable[..., object], *rest: object) -> None:
        function(*rest)


class WriteLogLaterTests(SynchronousTestCase):
    """
    `write_log_later` takes twistd's observers over.
    """

    def test_observers_are_called_in_a_thread_until_the_end(self) -> None:
        """
        Limited; and what was left out is reported before the process ends.
        """
        threads: set[int] = set()
        texts: list[str] = []

        def observe(event: LogEvent) -> None:
            threads.add(threading.get_ident())
            texts.append(formatEvent(event))

        publisher = LogPublisher(cast(ILogObserver, observe))
        self.patch(writing, "globalLogPublisher", publisher)
        reactor = Reactor()
        write_log_later(reactor)
        log = Logger("here", observer=publisher)
        for _ in range(100):
            log.info("again")
        (end,) = reactor.triggers["after"]["shutdown"]
        end[0]()
        log.info("Server Shut Down.")

        assert 12 == len(texts)
        assert texts[10].startswith("90 more lines")
        assert "Server Shut Down." == texts[11]
        assert threading.get_ident() not in threads

    def test_the_file_of_the_log_is_opened_again(self) -> None:
        """
        By its name, between two events, after it was renamed.
        """
        temporary = TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        folder = Path(temporary.name)
        file = LogFile.fromFullPath(str(folder / "log"))
        self.addCleanup(file.close)
        publisher = LogPublisher(textFileLogObserver(file, None))
        self.patch(writing, "globalLogPublisher", publisher)
        reactor = Reactor()
        reopen = write_log_later(reactor, "json")
        log = Logger("here", observer=publisher)
        log.info("first")
        # Written by now, or before the file is opened again.
        (folder / "log").rename(folder / "renamed")
        reopen()
        end_seconds = time.monotonic() + MANY_SECONDS
        while not (folder / "log").exists():
            assert time.monotonic() < end_seconds
            time.sleep(0.001)
        log.info("second")
        (end,) = reactor.triggers["after"]["shutdown"]
        end[0]()

        for name, text in [("renamed", "first"), ("log", "second")]:
            (line,) = (folder / name).read_text().splitlines()
            assert text == json.loads(line)["message"]

    def test_a_format_that_an_observer_does_not_know_is_warned_about(self) -> None:
        """
        As syslog, or one of somebody else's.
        """
        texts: list[str] = []

        def observe(event: LogEvent) -> None:
            texts.append(formatEvent(event))

        publisher = LogPublisher(cast(ILogObserver, observe))
        self.patch(writing, "globalLogPublisher", publisher)
        self.patch(writing, "_log", Logger("here", observer=publisher))
        reactor = Reactor()
        write_log_later(reactor, "json")
        (end,) = reactor.triggers["after"]["shutdown"]
        end[0]()

        assert 1 == len(texts)
        assert texts[0].startswith("the log is not written as json")
