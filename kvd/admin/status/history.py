"""
What the workers did recently, second by second.

Sums only grow; the difference of two readings is what happened between them. So the
sums of all workers are read each second, and the differences of a few minutes are kept.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from kvd.dispatch.balance import jain_index
from kvd.ipc.counts import Sums
from kvd.ipc.histogram import highest, quantile
from kvd.ipc.row import STATUSES

INTERVAL_SECONDS: Final = 1.0
KEPT_SAMPLES: Final = 300
"""
Five minutes.
"""

STEP_SAMPLES: Final = 10
KEPT_STEPS: Final = 360
"""
An hour, in steps of ten seconds.
"""

BALANCE_SAMPLES: Final = 10
"""
The balance index covers this many seconds. In a single second it would show only
chance: of eight requests to eight workers, some worker gets two.
"""


@dataclass(frozen=True, slots=True)
class Reading:
    """
    The sums at one moment.
    """

    monotonic_seconds: float
    sums: Sequence[Sums]


@dataclass(frozen=True, slots=True)
class WorkerRates:
    """
    The rates of one worker, per second.
    """

    requests: float
    bytes_in: float
    bytes_out: float
    busy: float
    """The share of the time in which it did not wait, from 0 to 1."""
    latency_p99: float | None
    """The 99th percentile of the requests that ended, in seconds; None if none
    ended."""
    loop_delay: float | None
    """An upper bound of the longest turn of its reactor, in seconds."""


@dataclass(frozen=True, slots=True)
class Sample:
    """
    What happened in one second.
    """

    at: float
    """The end of the second, in seconds since the epoch: a date to show. The clock may
    be set, so it does not say which sample is newer."""
    monotonic_seconds: float
    """The end of the second, by the machine's monotonic clock."""
    supervisor_delay: float
    """By how many seconds the supervisor's reactor took the sample late."""
    statuses: Sequence[float]
    """Requests per second by the class of their status (`kvd.ipc.row.STATUSES`)."""
    latency_p50: float | None
    latency_p99: float | None
    balance_requests: float | None
    """Jain's index of the requests in the last `BALANCE_SAMPLES`, over the workers that
    existed throughout; None if there were no requests."""
    balance_busy: float | None
    """The same index of the workers' busy time."""
    workers: Sequence[WorkerRates]

    def summary(self) -> dict[str, Any]:
        """
        Return the whole sample, as plain data.
        """
        return {
            "at": round(self.at, 3),
            "monotonic_seconds": round(self.monotonic_seconds, 3),
            "supervisor_delay_seconds": _digits(self.supervisor_delay),
            "requests_per_second": _digits(sum(w.requests for w in self.workers)),
            "bytes_in_per_second": _digits(sum(w.bytes_in for w in self.workers)),
            "bytes_out_per_second": _digits(sum(w.bytes_out for w in self.workers)),
            "statuses_per_second": _by_class(self.statuses),
            "latency_p50_seconds": _digits(self.latency_p50),
            "latency_p99_seconds": _digits(self.latency_p99),
            "balance_requests": _digits(self.balance_requests),
            "balance_busy": _digits(self.balance_busy),
            "workers": [
                {
                    "requests_per_second": _digits(rates.requests),
                    "bytes_in_per_second": _digits(rates.bytes_in),
                    "bytes_out_per_second": _digits(rates.bytes_out),
                    "busy": _digits(rates.busy),
                    "latency_p99_seconds": _digits(rates.latency_p99),
                    "loop_delay_seconds": _digits(rates.loop_delay),
                }
                for rates in self.workers
            ],
        }

    def as_remembered(self) -> dict[str, Any]:
        """
        Return the sample with only the busy share of each worker, in percent.
        """
        remembered = self.summary()
        remembered["workers"] = [round(100 * rates.busy) for rates in self.workers]
        return remembered


@dataclass(frozen=True, slots=True)
class Step:
    """
    What all workers together did in `STEP_SAMPLES`.
    """

    at: float
    """See `Sample`."""
    monotonic_seconds: float
    statuses: Sequence[float]
    bytes_in: float
    """Per second."""
    bytes_out: float
    latency_p50: float | None
    latency_p99: float | None

    def as_remembered(self) -> dict[str, Any]:
        """
        Return the step as plain data.
        """
        return {
            "at": round(self.at, 3),
            "monotonic_seconds": round(self.monotonic_seconds, 3),
            "statuses_per_second": _by_class(self.statuses),
            "bytes_in_per_second": _digits(self.bytes_in),
            "bytes_out_per_second": _digits(self.bytes_out),
            "latency_p50_seconds": _digits(self.latency_p50),
            "latency_p99_seconds": _digits(self.latency_p99),
        }


class History:
    """
    Takes a sample each second and keeps the last `KEPT_SAMPLES`, and `KEPT_STEPS` of
    longer ones.
    """

    def __init__(
        self,
        sums: Callable[[], Sequence[Sums]],
        clock: IReactorTime,
        date: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            sums: Reads the sums of all current workers.
            clock: Measures the time between two samples.
            date: Returns the date of a sample.
        """
        self._sums = sums
        self._clock = clock
        self._date = date
        self.samples: deque[Sample] = deque(maxlen=KEPT_SAMPLES)
        self.steps: deque[Step] = deque(maxlen=KEPT_STEPS)
        self._step_began: Reading | None = None
        self._readings: deque[Reading] = deque(maxlen=BALANCE_SAMPLES)
        self._sampling = LoopingCall(self._take)
        self._sampling.clock = clock

    def start(self) -> None:
        """
        Begin to take samples.
        """
        self._sampling.start(INTERVAL_SECONDS)

    def stop(self) -> None:
        """
        Take no more samples.
        """
        self._sampling.stop()

    @property
    def newest(self) -> Sample | None:
        """
        The newest sample; None in the first second.
        """
        return self.samples[-1] if self.samples else None

    def _take(self) -> None:
        now = Reading(self._clock.seconds(), self._sums())
        if self._readings:
            self.samples.append(_sample(self._readings, now, self._date()))
        self._readings.append(now)
        began = self._step_began = self._step_began or now
        seconds = now.monotonic_seconds - began.monotonic_seconds
        if seconds >= (STEP_SAMPLES - 0.5) * INTERVAL_SECONDS:
            self.steps.append(_step(began, now, seconds, self._date()))
            self._step_began = now


def _sample(readings: Sequence[Reading], now: Reading, date: float) -> Sample:
    before, oldest = readings[-1], readings[0]
    seconds = now.monotonic_seconds - before.monotonic_seconds
    delay = seconds - INTERVAL_SECONDS
    pairs = list(_pairs(before.sums, now.sums))
    latency = _sum_up((b.total - a.total).latency for a, b in pairs)
    # Without new workers, which have not had their share yet.
    long = list(zip(oldest.sums, now.sums, strict=False))
    return Sample(
        at=date,
        monotonic_seconds=now.monotonic_seconds,
        supervisor_delay=max(0.0, delay),
        statuses=_statuses(pairs, seconds),
        latency_p50=quantile(latency, 0.5),
        latency_p99=quantile(latency, 0.99),
        balance_requests=_balance([b.requests - a.requests for a, b in long]),
        balance_busy=_balance([b.busy_seconds - a.busy_seconds for a, b in long]),
        workers=[_rates(a, b, seconds) for a, b in pairs],
    )


def _step(before: Reading, now: Reading, seconds: float, date: float) -> Step:
    pairs = list(_pairs(before.sums, now.sums))
    latency = _sum_up((b.total - a.total).latency for a, b in pairs)
    return Step(
        at=date,
        monotonic_seconds=now.monotonic_seconds,
        statuses=_statuses(pairs, seconds),
        bytes_in=sum(b.bytes_in - a.bytes_in for a, b in pairs) / seconds,
        bytes_out=sum(b.bytes_out - a.bytes_out for a, b in pairs) / seconds,
        latency_p50=quantile(latency, 0.5),
        latency_p99=quantile(latency, 0.99),
    )


def _statuses(pairs: Iterable[tuple[Sums, Sums]], seconds: float) -> list[float]:
    counts = _sum_up((b.total - a.total).statuses for a, b in pairs)
    return [count / seconds for count in counts]


def _by_class(rates: Sequence[float]) -> dict[str, float | None]:
    return dict(zip(STATUSES, map(_digits, rates), strict=False))


def _pairs(before: Sequence[Sums], now: Sequence[Sums]) -> Iterator[tuple[Sums, Sums]]:
    """
    The sums of each worker before and now. There may be more workers than before, or
    fewer; a new worker counts as if nothing had happened yet.
    """
    for worker, sums in enumerate(now):
        yield (before[worker] if worker < len(before) else sums), sums


def _rates(before: Sums, now: Sums, seconds: float) -> WorkerRates:
    return WorkerRates(
        requests=(now.requests - before.requests) / seconds,
        bytes_in=(now.bytes_in - before.bytes_in) / seconds,
        bytes_out=(now.bytes_out - before.bytes_out) / seconds,
        busy=min(1.0, (now.busy_seconds - before.busy_seconds) / seconds),
        latency_p99=quantile((now.total - before.total).latency, 0.99),
        loop_delay=highest(_between(before.loop_delay, now.loop_delay)),
    )


def _between(before: Sequence[int], now: Sequence[int]) -> list[int]:
    return [b - a for a, b in zip(before, now, strict=True)]


def _sum_up(histograms: Iterable[Sequence[int]]) -> list[int]:
    return [sum(counts) for counts in zip(*histograms, strict=True)]


def _balance(shares: Sequence[float]) -> float | None:
    return jain_index(shares) if any(shares) else None


def _digits(number: float | None) -> float | None:
    """
    Round a number to its significant digits.
    """
    return None if number is None else float(f"{number:.4g}")
