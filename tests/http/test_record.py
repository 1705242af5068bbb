"""
Tests for `kvd.http.record` and `kvd.http.recorder`.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kvd.errors import RecordUnusable
from kvd.http.record import RECORD, Connection, pack, read_record
from kvd.http.recorder import Recorder, check_record, record_to
from kvd.log.buffered import FLUSH_SECONDS
from tests.stepped import inline

ONE = Connection(
    arrived_ns=1_700_000_000_000_000_000,
    open_ns=2_000_000_000,
    service_ns=1_500_000_000,
    bytes=40_000_123,
    requests=7,
    worker=31,
)
LATER = replace(ONE, arrived_ns=ONE.arrived_ns + 1, worker=4095)


def test_a_record_is_as_small_as_promised() -> None:
    """
    In the order and the sizes of the module's table.
    """
    assert (
        "00002a36fe9c9717" "0094357700000000" "002f685900000000"
        "7b5a620200000000" "07000000" "1f00" "0000"
    ) == pack([ONE]).hex()  # fmt: skip


def test_what_was_recorded_is_read_in_the_order_of_arrival(tmp_path: Path) -> None:
    """
    Whenever it was written, and by however many.
    """
    path = str(tmp_path / "record")
    record_to(path)(pack([LATER]))
    record_to(path)(pack([ONE]))

    assert [ONE, LATER] == read_record(path)
    assert 40 * 3 == os.path.getsize(path)


def test_a_full_file_is_set_aside(tmp_path: Path) -> None:
    """
    And the one before it is gone: two files are all there ever are.
    """
    path = str(tmp_path / "record")
    append = record_to(path, max_bytes=40 * 3)
    for number in range(5):
        append(pack([replace(ONE, arrived_ns=number)]))

    assert [4] == [one.arrived_ns for one in read_record(path)]
    assert [2, 3] == [one.arrived_ns for one in read_record(f"{path}.1")]
    assert {"record", "record.1"} == set(os.listdir(tmp_path))


def test_what_is_longer_than_a_file_may_be_is_written(tmp_path: Path) -> None:
    """
    Alone, rather than nowhere.
    """
    path = str(tmp_path / "record")
    append = record_to(path, max_bytes=10)
    append(pack([ONE, LATER]))
    append(pack([ONE]))

    assert [ONE, LATER] == read_record(f"{path}.1")
    assert [ONE] == read_record(path)


def await_waiting_for_lock(descriptor: int) -> None:
    """
    Until somebody waits for the lock on a file: the kernel shows them with an arrow.
    """
    inode = os.fstat(descriptor).st_ino
    waiting = re.compile(rf"-> FLOCK .*:{inode} ")
    end = time.monotonic() + 30
    while not waiting.search(Path("/proc/locks").read_text()):
        assert time.monotonic() < end, "nobody waits for the lock"
        time.sleep(0.001)


def test_a_process_that_waited_writes_to_the_new_file(tmp_path: Path) -> None:
    """
    What has been set aside meanwhile is complete.
    """
    path = str(tmp_path / "record")
    append = record_to(path)
    append(pack([ONE]))
    with open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        writer = threading.Thread(target=append, args=[pack([LATER])])
        writer.start()
        await_waiting_for_lock(file.fileno())
        os.rename(path, f"{path}.1")
    writer.join()

    assert [ONE] == read_record(f"{path}.1")
    assert [LATER] == read_record(path)


def test_a_record_cut_short_spoils_no_other(tmp_path: Path) -> None:
    """
    As a full disk leaves it; readers pass over it, and the next writer cuts it
    off.
    """
    path = tmp_path / "record"
    append = record_to(str(path))
    append(pack([ONE]))
    with path.open("ab") as file:
        file.write(pack([LATER])[:13])
    assert [ONE] == read_record(str(path))

    append(pack([LATER]))
    assert [ONE, LATER] == read_record(str(path))


def test_something_else_is_neither_read_nor_extended(tmp_path: Path) -> None:
    """
    Somebody's file stays as it was, and is named.
    """
    path = tmp_path / "notes"
    path.write_text("Somebody's notes, longer than any header of a record is.\n")
    before = path.read_bytes()

    with pytest.raises(
        RecordUnusable, match=r"notes cannot be recorded to: it contains"
    ):
        check_record(str(path))
    with pytest.raises(OSError, match="it contains something other"):
        record_to(str(path))(pack([ONE]))
    with pytest.raises(RecordUnusable, match=r"notes is not a record of connections"):
        read_record(str(path))
    assert before == path.read_bytes()


def test_a_place_that_cannot_be_is_named(tmp_path: Path) -> None:
    """
    When kvd starts, not when the first connection ends.
    """
    path = str(tmp_path / "absent" / "record")

    with pytest.raises(RecordUnusable, match="No such file or directory"):
        check_record(path)
    with pytest.raises(RecordUnusable, match="No such file or directory"):
        read_record(path)


def test_checking_begins_a_file(tmp_path: Path) -> None:
    """
    Which is a record of nothing, and can be continued.
    """
    path = str(tmp_path / "record")
    check_record(path)
    assert [] == read_record(path)

    check_record(path)
    record_to(path)(pack([ONE]))
    assert [ONE] == read_record(path)


class RecorderTests(SynchronousTestCase):
    """
    `Recorder` collects what a worker reports of its connections.
    """

    def test_a_connection_is_reported_at_its_end(self) -> None:
        """
        With its worker, and written later.
        """
        clock = Clock()
        written: list[bytes] = []
        recorder = Recorder(3, written.append, clock, inline, 10**18)
        before = 10**18 + time.monotonic_ns()
        recorder.ended(2.0, 1.5, 100, 7)
        after = 10**18 + time.monotonic_ns()
        assert [] == written

        clock.advance(FLUSH_SECONDS)
        (records,) = written
        arrived = int.from_bytes(records[:8], "little")
        assert before <= arrived + 2_000_000_000 <= after
        assert pack([replace(ONE, bytes=100, worker=3)])[8:] == records[8:]

    def test_a_clock_that_is_set_changes_no_order(self) -> None:
        """
        A record is replayed by the distances between arrivals.
        """
        written: list[bytes] = []
        recorder = Recorder(31, written.append, Clock(), inline, 10**18)
        for date in (2e9, 1e9, 3e9):
            with (
                mock.patch("time.time", return_value=date),
                mock.patch("time.time_ns", return_value=int(date * 1e9)),
            ):
                recorder.ended(0.0, 0.0, 1, 1)
        recorder.stop()
        arrivals = [one[0] for one in RECORD.iter_unpack(written[0])]

        assert sorted(arrivals) == arrivals
        assert arrivals[-1] - arrivals[0] < 10**9

    def test_stop_writes_what_waits(self) -> None:
        """
        No buffered line is lost at a clean end.
        """
        written: list[bytes] = []
        recorder = Recorder(3, written.append, Clock(), inline, 10**18)
        recorder.ended(2.0, 1.5, 100, 7)
        recorder.stop()

        assert 1 == len(written)
