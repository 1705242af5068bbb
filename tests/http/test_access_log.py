"""
Tests for `kvd.http.access_log`.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from select import PIPE_BUF

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from kvd.http.access_formats import plain
from kvd.http.access_log import (
    AccessLog,
    Entry,
    Sender,
    append_to,
    in_pieces,
    write_all,
)
from kvd.log import buffered
from kvd.log.buffered import (
    FIRST_REPORT_SECONDS,
    FLUSH_SECONDS,
    REPORT_SECONDS,
    STOP_SECONDS,
    Lost,
)
from tests.stepped import inline

ENTRY = Entry(
    ended=1700000000.25,
    peer="127.0.0.1:4711",
    sender=Sender("ci", 1, "curl/8.5.0", "https://ci.example/build"),
    method="PUT",
    key="/a%20b",
    status=201,
    body_bytes=42,
    seconds=0.001234,
)


class Complaints:
    """
    The texts of what the access log complained of.
    """

    def __init__(self, events: Sequence[LogEvent]) -> None:
        self._events = events

    def __iter__(self) -> Iterator[str]:
        return (formatEvent(event) for event in self._events)

    def __len__(self) -> int:
        return len(self._events)


class AccessLogTests(SynchronousTestCase):
    """
    `AccessLog` buffers lines and writes them now and then.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.written: list[bytes] = []
        capture = capturedLogs()
        events = capture.__enter__()
        self.addCleanup(capture.__exit__, None, None, None)
        self.warnings = Complaints(events)

    def make(
        self,
        append: Callable[[bytes], None] | None = None,
        off_reactor: Callable[[Callable[[], None]], Deferred[None]] = inline,
    ) -> AccessLog:
        """
        A log that writes into a list.
        """
        return AccessLog(
            0, plain, append or self.written.append, self.clock, off_reactor
        )

    def make_slow(self, writes: list[Deferred[None]]) -> AccessLog:
        """
        The same, on a disk where each write ends when the test says so.

        Args:
            writes: Gets one Deferred for each write that has begun.
        """

        def slow(function: Callable[[], None]) -> Deferred[None]:
            function()
            writes.append(Deferred())
            return writes[-1]

        return self.make(off_reactor=slow)

    def test_request_writes_nothing_itself(self) -> None:
        """
        A line waits until its time has come.
        """
        log = self.make()
        log.note(ENTRY)
        assert [] == self.written

        self.clock.advance(FLUSH_SECONDS)
        assert 1 == len(self.written)

    def test_lines_of_one_flush_go_out_together_and_in_order(self) -> None:
        """
        Entries keep their order and cost one write.
        """
        log = self.make()
        log.note(ENTRY)
        log.note(replace(ENTRY, key="/second"))
        self.clock.advance(FLUSH_SECONDS)

        (lines,) = self.written
        assert [b"/a%20b", b"/second"] == [
            line.split()[5] for line in lines.splitlines()
        ]
        assert lines.endswith(b"\n")

    def test_a_slow_disk_gets_one_write_at_a_time(self) -> None:
        """
        The next write begins when the last one has ended.
        """
        begun = list[Deferred[None]]()
        log = self.make_slow(begun)
        log.note(ENTRY)
        self.clock.advance(FLUSH_SECONDS)
        log.note(ENTRY)
        self.clock.advance(FLUSH_SECONDS * 10)
        assert 1 == len(begun)

        begun[0].callback(None)
        self.clock.advance(FLUSH_SECONDS)
        assert 2 == len(begun)

    def test_what_waits_is_bounded_and_the_rest_is_counted(self) -> None:
        """
        Memory is bounded; how many lines were dropped is said once.
        """
        self.patch(buffered, "MAX_WAITING", 2)
        log = self.make()
        for _ in range(5):
            log.note(ENTRY)
        self.clock.pump([FLUSH_SECONDS, FIRST_REPORT_SECONDS])

        assert 2 == len(self.written[0].splitlines())
        assert [
            "entries that are missing in the access log: 3; its file takes them too"
            " slowly"
        ] == list(self.warnings)

    def test_what_a_pipe_that_nobody_reads_does_not_take_is_counted_meanwhile(
        self,
    ) -> None:
        """
        The thread may never return, and the operator hears of it all the same: soon,
        and then now and then.
        """
        self.patch(buffered, "MAX_WAITING", 1)
        log = self.make(off_reactor=lambda function: Deferred())
        log.note(ENTRY)
        self.clock.advance(FLUSH_SECONDS)
        for _ in range(1000):
            log.note(ENTRY)
        self.clock.advance(FIRST_REPORT_SECONDS)
        for _ in range(60):
            log.note(ENTRY)
            self.clock.advance(REPORT_SECONDS / 40)

        told = [int(text.split(": ")[1].partition(";")[0]) for text in self.warnings]
        assert [999, 40] == told

    def test_entries_that_a_full_disk_does_not_take_are_counted(self) -> None:
        """
        Requests go on. The log says how many are missing, at most once in a while, and
        is silent again when the disk has room.
        """
        full = True

        def append(lines: bytes) -> None:
            if full:
                raise Lost(lines.count(b"\n"), OSError(28, "No space left on device"))
            self.written.append(lines)

        log = self.make(append)
        for _ in range(100):
            log.note(ENTRY)
            self.clock.advance(REPORT_SECONDS / 10)
        told = list(self.warnings)
        assert 10 <= len(told) <= 12
        assert told[-1].endswith("; No space left on device")

        full = False
        self.clock.advance(REPORT_SECONDS)
        before = len(self.warnings)
        log.note(ENTRY)
        self.clock.pump([FLUSH_SECONDS, REPORT_SECONDS, REPORT_SECONDS])
        assert 1 == len(self.written)
        assert before == len(self.warnings)
        counts = [int(text.split(": ")[1].partition(";")[0]) for text in self.warnings]
        assert 100 == sum(counts)

    def test_stop_writes_what_waits(self) -> None:
        """
        No buffered line is lost at a clean end, even by a failing disk's fault.
        """
        log = self.make()
        log.note(ENTRY)
        log.stop()
        assert 1 == len(self.written)

        def fail(lines: bytes) -> None:
            raise OSError(5, "Input/output error")

        log = self.make(fail)
        log.note(ENTRY)
        log.stop()
        assert 1 == len(self.warnings)

    def test_what_clients_choose_is_bounded_too(self) -> None:
        """
        A key may be long.
        """
        self.patch(buffered, "MAX_WAITING_BYTES", 5000)
        log = self.make()
        for _ in range(20):
            log.note(replace(ENTRY, key="/" + "k" * 999))
        self.clock.advance(FLUSH_SECONDS)
        assert 5 == len(self.written[0].splitlines())

        log.note(ENTRY)
        self.clock.advance(FLUSH_SECONDS)
        assert 1 == len(self.written[1].splitlines())

    def test_the_end_does_not_wait_for_ever(self) -> None:
        """
        A pipe may be read by nobody; what is lost is counted.
        """
        never: Deferred[None] = Deferred()
        log = self.make(off_reactor=lambda function: never)
        log.note(ENTRY)
        self.clock.advance(FLUSH_SECONDS)
        log.note(ENTRY)
        log.note(ENTRY)
        stopped = log.stop()
        self.assertNoResult(stopped)
        self.clock.advance(STOP_SECONDS)
        self.successResultOf(stopped)

        assert [
            "entries that are missing in the access log: 2; its file takes them too"
            " slowly"
        ] == list(self.warnings)
        assert [] == self.clock.getDelayedCalls()

    def test_the_end_waits_for_a_slow_disk(self) -> None:
        """
        What is being written, and what waits behind it.
        """
        writes = list[Deferred[None]]()
        log = self.make_slow(writes)
        log.note(ENTRY)
        self.clock.advance(FLUSH_SECONDS)
        log.note(replace(ENTRY, key="/second"))
        stopped = log.stop()
        writes[0].callback(None)
        self.assertNoResult(stopped)
        writes[1].callback(None)
        self.successResultOf(stopped)

        assert 2 == len(self.written)
        assert [] == list(self.warnings)

    def test_the_end_adds_nothing_to_what_is_being_written(self) -> None:
        """
        No empty line, either.
        """
        writes = list[Deferred[None]]()
        log = self.make_slow(writes)
        log.note(ENTRY)
        self.clock.advance(FLUSH_SECONDS)
        stopped = log.stop()
        for write in writes:
            write.callback(None)
        self.successResultOf(stopped)

        assert 1 == len(self.written)


def test_appending_follows_a_rotated_file(tmp_path: Path) -> None:
    """
    After the file was moved away, lines go to a new one of its name.
    """
    path = tmp_path / "access.log"
    append = append_to(str(path))
    append(b"one\n")
    path.rename(tmp_path / "access.log.1")
    append(b"two\n")

    assert b"one\n" == (tmp_path / "access.log.1").read_bytes()
    assert b"two\n" == path.read_bytes()


def test_a_line_never_joins_one_that_a_full_disk_has_cut(tmp_path: Path) -> None:
    """
    What is appended begins with a line of its own.
    """
    path = tmp_path / "access.log"
    path.write_bytes(b"whole\nha")
    append = append_to(str(path))
    append(b"one\n")
    append(b"two\n")

    assert b"whole\nha\none\ntwo\n" == path.read_bytes()


def test_lines_that_a_full_disk_does_not_take_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The one that it has cut, and those after it.
    """
    path = tmp_path / "access.log"
    left = 10
    write = os.write

    def fill(descriptor: int, data: bytes) -> int:
        nonlocal left
        if not left:
            raise OSError(28, "No space left on device")
        count = write(descriptor, data[:left])
        left -= count
        return count

    append = append_to(str(path))
    monkeypatch.setattr(os, "write", fill)
    with pytest.raises(Lost, match="No space left") as raised:
        append(b"first\nsecond\nthird\n")

    assert b"first\nseco" == path.read_bytes()
    assert 2 == raised.value.count


def test_what_is_printed_goes_out_in_pieces_that_a_pipe_keeps_whole() -> None:
    """
    Of whole lines; all of them, in order.
    """
    lines = [b"%d %s\n" % (number, b"x" * (number % 300)) for number in range(500)]
    lines[250] = b"x" * (2 * PIPE_BUF) + b"\n"
    pieces = list(in_pieces(b"".join(lines)))

    assert b"".join(lines) == b"".join(pieces)
    assert all(piece.endswith(b"\n") for piece in pieces)
    assert [lines[250]] == [piece for piece in pieces if len(piece) > PIPE_BUF]
    # As few as it takes.
    assert len(pieces) < 3 + 2 * len(b"".join(lines)) // PIPE_BUF


def test_a_pipe_that_is_full_at_the_moment_is_waited_for() -> None:
    """
    Somebody else who has it may want to wait for nothing himself.
    """
    end, pipe = os.pipe()
    os.set_blocking(pipe, False)
    data = os.urandom(1 << 20)
    writer = threading.Thread(target=write_all, args=(pipe, data))
    writer.start()
    got = b""
    while len(got) < len(data):
        got += os.read(end, 1 << 16)
    writer.join()
    os.close(pipe)
    os.close(end)

    assert data == got
