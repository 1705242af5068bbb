"""
Tests for what ``kvd top`` shows: `kvd.cli.rates` and `kvd.cli.frame`.
"""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from kvd.cli.frame import draw
from kvd.cli.rates import Rates
from kvd.ipc.histogram import BUCKETS


def row(worker: int, pid: int | None = 10, **numbers: Any) -> dict[str, Any]:
    """
    A worker in the status; without a process it has no numbers.
    """
    if pid is None:
        return {"worker": worker, "pid": None, "state": "starting"}
    counted = {
        "accepted": 0, "open": 0, "requests": 0, "in_progress": 0,
        "bytes_in": 0, "bytes_out": 0, "busy_seconds": 0.0, "silent_seconds": 0.0,
        "loop_delay": [0] * BUCKETS,
    }  # fmt: skip
    return {"worker": worker, "pid": pid, "state": "ready", **counted, **numbers}


def status(*rows: dict[str, Any], waiting: Any = ()) -> dict[str, Any]:
    """
    Of a daemon.
    """
    return {
        "version": "1.2", "pid": 1, "policy": "shared", "uptime_seconds": 12.3,
        "workers": list(rows), "accept_queues": [{"waiting": waiting}],
    }  # fmt: skip


def drawn(rates: Rates, height: int = 24) -> str:
    """
    A frame as text, for a terminal of 80 columns.
    """
    text = io.StringIO()
    screen = Console(file=text, width=80, height=height)
    screen.print(draw(rates, screen))
    return text.getvalue()


def turned(*buckets: int) -> list[int]:
    """
    Turns of a reactor: one for each mention of a bucket.
    """
    return [buckets.count(bucket) for bucket in range(BUCKETS)]


def test_rates_are_those_since_the_last_look() -> None:
    """
    Whatever the time between both.
    """
    before = status(row(0, requests=100, bytes_in=1000), row(1))
    now = status(row(0, requests=150, bytes_in=2000), row(1, requests=10))
    rates = Rates(before, now, 0.5)

    assert [100, 20] == [each.per_second["requests"] for each in rates.workers]
    assert 120 == rates.total("requests")
    assert 2000 == rates.total("bytes_in")
    assert pytest.approx(120**2 / (2 * (100**2 + 20**2))) == rates.balance_of_requests


def test_a_new_process_counts_on() -> None:
    """
    What was done before the last look is no rate of its; and a place without a process
    has none.
    """
    before = status(row(0, pid=10, requests=500), row(1, requests=3), row(2, None))
    now = status(row(0, pid=11, requests=507), row(1, None), row(2, requests=900))
    rates = Rates(before, now, 1.0)

    assert 7 == rates.total("requests")
    assert {} == rates.workers[1].per_second
    assert 0 == rates.workers[2].per_second["requests"]


def test_balance_goes_over_more_than_the_last_look() -> None:
    """
    Taking turns is even, as it is not in a second with one request; who is new has not
    had its turn.
    """
    long_before = status(row(0, requests=10), row(1, requests=70), row(2, None))
    before = status(row(0, requests=15), row(1, requests=74), row(2, requests=5))
    now = status(row(0, requests=15), row(1, requests=75), row(2, requests=6))

    assert pytest.approx(2 / 3) == Rates(before, now, 1.0).balance_of_requests
    assert 1.0 == Rates(before, now, 1.0, long_before).balance_of_requests


def test_loop_delay_is_that_since_the_last_look() -> None:
    """
    Of the longest turn, by its upper bound, whatever was before. None where there was
    no turn, or nobody looked.
    """
    before = status(
        row(0, loop_delay=turned(20, 20)), row(1, loop_delay=turned(3)), row(2, None)
    )
    now = status(
        row(0, loop_delay=turned(20, 20, 5, 13, 13)),
        row(1, loop_delay=turned(3)),
        row(2, loop_delay=turned(9)),
    )
    rates = Rates(before, now, 1.0)

    assert [1 / 16, None, None] == [each.loop_delay for each in rates.workers]
    shown = [line.split()[-3:-1] for line in drawn(rates).splitlines()[-3:]]
    assert [["<63", "ms"], ["%", "-"], ["%", "-"]] == shown


def test_a_worker_that_does_not_come_back_from_a_turn_is_conspicuous() -> None:
    """
    By how long that has been; the turn is in no histogram yet.
    """
    stuck = row(0, silent_seconds=12.9, loop_delay=turned(2))
    line = drawn(Rates(status(row(0)), status(stuck), 1.0)).splitlines()[-1]

    assert [">12", "s", "-"] == line.split()[-3:]


@pytest.mark.parametrize("height", [7, 16, 24])
def test_a_window_shows_the_busiest(height: int) -> None:
    """
    Behind those that are stuck or not ready, and a line says how many there are more.
    No frame is higher than the window.
    """
    rows = [row(worker, busy_seconds=worker / 100) for worker in range(64)]
    rows[5] = row(5, None)
    rows[7] = row(7, silent_seconds=3.0)
    before = status(*(row(worker) for worker in range(64)))
    lines = drawn(Rates(before, status(*rows), 1.0), height).splitlines()
    shown = [line.split()[0] for line in lines[6:-1]]

    assert height == len(lines)
    assert ["5", "7", "63", "62", "61"][: height - 7] == shown[:5]
    assert lines[-1].startswith(f"… and {64 - len(shown)} less busy workers, at most ")


def test_what_waits_is_a_workers_if_nobody_else_looks_there() -> None:
    """
    Else it is everybody's, or the supervisor's; of some sockets nothing is known.
    """
    now = status(row(0, accept_queue=5), row(1), waiting=[5, 12])
    rates = Rates(status(), now, 1.0)

    assert [5, None] == [each.waiting for each in rates.workers]
    assert 17 == rates.waiting


def test_everything_fits_into_a_terminal_of_80_columns() -> None:
    """
    Large numbers too.
    """
    busy = row(
        4095, pid=9, open=12345, in_progress=99, requests=123456,
        bytes_in=987_600_000, bytes_out=987_600_000, busy_seconds=1.0,
        loop_delay=turned(16), accept_queue=4096,
    )  # fmt: skip
    text = drawn(
        Rates(status(row(4095)), status(busy, row(1, None), waiting=[4096]), 1.0)
    )

    assert "…" not in text
    for word in ("4095", "12345", "123456", "987.6 MB", "██████ 100 %", "<500 ms"):
        assert word in text
    assert "1 of 2 workers ready" in text
    assert "starting" in text


def test_what_chooses_in_the_stead_of_a_policy_is_named() -> None:
    """
    Once, however many addresses there are.
    """
    unchanged = status(row(0))
    assert "policy shared, up" in drawn(Rates(unchanged, unchanged, 1.0))

    unchanged["fallbacks"] = [{"by": "the kernel's hash"}, {"by": "the kernel's hash"}]
    text = drawn(Rates(unchanged, unchanged, 1.0))
    assert "policy not shared but the kernel's hash, up" in " ".join(text.split())


def test_what_nobody_counts_is_a_dash() -> None:
    """
    With ``--procs 0``, how busy it is; and where it shares its sockets, what waits.
    """
    alone = row(0)
    del alone["busy_seconds"], alone["silent_seconds"], alone["loop_delay"]
    line = drawn(Rates(status(), status(alone), 1.0)).splitlines()[-1]

    assert ["-", "-", "-"] == line.split()[-3:]


def test_a_plain_frame_has_no_bars() -> None:
    """
    Nor anything but letters in its rows; and all workers are in it.
    """
    rows = [row(worker, busy_seconds=0.25) for worker in range(100)]
    text = io.StringIO()
    frame = draw(Rates(status(*map(row, range(100))), status(*rows), 1.0))
    Console(file=text, width=200, height=24).print(frame)
    *_, line = lines = text.getvalue().splitlines()

    assert 106 == len(lines)
    assert "25 %" in line
    assert line.isascii()
