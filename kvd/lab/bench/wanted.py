"""
The figures that dispatch is to reach, beside what was seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from kvd.lab.bench.dispatch import Compared, Outcome, Seen
from kvd.settings import Settings

BY_CHANCE: Final = ("reuseport", "shared")
"""
Who gets a connection that stays is chance with these: nobody promises more.
"""

EVEN: Final = ("roundrobin", "leastbusy", "gated")


@dataclass(frozen=True, slots=True)
class Wanted:
    """
    One figure.
    """

    name: str
    seen: float
    limit: float
    at_least: bool
    """Else: at most."""
    spelled: str = "{:.2f}"

    @property
    def reached(self) -> bool:
        """
        Not where nothing was seen.
        """
        if math.isnan(self.seen):
            return False
        return self.seen >= self.limit if self.at_least else self.seen <= self.limit

    def cells(self) -> Sequence[str]:
        """
        A line of a table.
        """
        sign = "at least" if self.at_least else "at most"
        return (
            self.name,
            "-" if math.isnan(self.seen) else self.spelled.format(self.seen),
            f"{sign} {self.spelled.format(self.limit)}",
            "reached" if self.reached else "not reached",
        )


def wanted(outcome: Outcome) -> list[Wanted]:
    """
    All figures that what was measured tells of.
    """
    found: list[Wanted] = []
    for compared in outcome.compared:
        name = compared.case.name
        if name == "equal":
            found += _evenness(compared)
        elif name in ("uneven", "uneven-many"):
            found += _idleness(compared)
            if name == "uneven":
                found += _gain(compared)
        elif name == "storm":
            found += _storm(compared)
        else:
            found += _kept(compared)
    for cost in outcome.hand_over:
        found.append(
            Wanted(
                f"microseconds of the supervisor for a connection: {cost.policy}",
                cost.seconds * 1e6, 25, False, "{:.1f}",
            )
        )  # fmt: skip
        found.append(
            Wanted(
                f"connections/s that would fill the supervisor: {cost.policy}",
                cost.connections_per_second, 20_000, True, "{:,.0f}",
            )
        )  # fmt: skip
    return found


def _evenness(compared: Compared) -> Iterator[Wanted]:
    for policy in EVEN:
        seen = compared.by(policy)
        if seen is not None:
            yield Wanted(
                f"Jain's index of requests, equal: {policy}",
                seen.middle(lambda run: run.balance), 0.99, True, "{:.4f}",
            )  # fmt: skip


def _idleness(compared: Compared) -> Iterator[Wanted]:
    seen = compared.by("leastbusy")
    if seen is not None:
        yield Wanted(
            f"idle while others queue, {compared.case.name}: leastbusy",
            100 * seen.middle(lambda run: run.idle_while_others_queue),
            2, False, "{:.1f} %",
        )  # fmt: skip


def _gain(compared: Compared) -> Iterator[Wanted]:
    best = compared.by("leastbusy")
    for policy in ("roundrobin", "reuseport"):
        other = compared.by(policy)
        if best is not None and other is not None:
            yield Wanted(
                f"rate, uneven: leastbusy by {policy}", ratio(best, other), 1.5, True
            )


def _kept(compared: Compared) -> Iterator[Wanted]:
    best = max(compared.seen, key=lambda seen: seen.rate)
    for seen in compared.seen:
        if seen.policy not in BY_CHANCE and len(compared.seen) > 1:
            yield Wanted(
                f"rate by the best, {compared.case.name}: {seen.policy}",
                ratio(seen, best), 0.95, True, "{:.3f}",
            )  # fmt: skip


def _storm(compared: Compared) -> Iterator[Wanted]:
    default = compared.by(Settings().policy)
    if default is not None and len(compared.seen) > 1:
        best = min(seen.latency(1.0) for seen in compared.seen)
        yield Wanted(
            f"longest request by the best, storm: {default.policy}",
            default.latency(1.0) / best, 2, False,
        )  # fmt: skip


def ratio(one: Seen, other: Seen) -> float:
    """
    Of two rates: the median of the rounds' ratios, since both of a round met the
    same machine.
    """
    pairs = zip(one.runs, other.runs, strict=True)
    return median(a.rate / b.rate if b.rate else math.nan for a, b in pairs)
