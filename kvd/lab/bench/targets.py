"""
The figures that dispatch is to reach.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from kvd.lab.bench.dispatch import Compared, Outcome
from kvd.lab.bench.run import Rounds
from kvd.lab.measuring.figures import median, ratios
from kvd.lab.measuring.targets import Target
from kvd.settings import Settings

BY_CHANCE: Final = ("reuseport", "shared")
"""
Policies under which chance decides who gets a connection that is kept: they have no
target there.
"""

EVEN: Final = ("roundrobin", "leastbusy", "gated")


def targets(outcome: Outcome) -> list[Target]:
    """
    All targets of what was measured.
    """
    found: list[Target] = []
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
            Target(
                f"microseconds of the supervisor for a connection: {cost.policy}",
                cost.seconds * 1e6, 25, False, "{:.1f}",
            )
        )  # fmt: skip
        found.append(
            Target(
                f"connections/s that would fill the supervisor: {cost.policy}",
                cost.connections_per_second, 20_000, True, "{:,.0f}",
            )
        )  # fmt: skip
    return found


def _evenness(compared: Compared) -> Iterator[Target]:
    for policy in EVEN:
        rounds = compared.by(policy)
        if rounds is not None:
            yield Target(
                f"Jain's index of requests, equal: {policy}",
                rounds.median(lambda run: run.balance), 0.99, True, "{:.4f}",
            )  # fmt: skip


def _idleness(compared: Compared) -> Iterator[Target]:
    rounds = compared.by("leastbusy")
    if rounds is not None:
        yield Target(
            f"idle while others queue, {compared.case.name}: leastbusy",
            100 * rounds.median(lambda run: run.idle_while_others_queue),
            2, False, "{:.1f} %",
        )  # fmt: skip


def _gain(compared: Compared) -> Iterator[Target]:
    best = compared.by("leastbusy")
    for policy in ("roundrobin", "reuseport"):
        other = compared.by(policy)
        if best is not None and other is not None:
            yield Target(
                f"rate, uneven: leastbusy by {policy}", ratio(best, other), 1.5, True
            )


def _kept(compared: Compared) -> Iterator[Target]:
    best = max(compared.policies, key=lambda rounds: rounds.rate)
    for rounds in compared.policies:
        if rounds.policy not in BY_CHANCE and len(compared.policies) > 1:
            yield Target(
                f"rate by the best, {compared.case.name}: {rounds.policy}",
                ratio(rounds, best), 0.95, True, "{:.3f}",
            )  # fmt: skip


def _storm(compared: Compared) -> Iterator[Target]:
    default = compared.by(Settings().policy)
    if default is not None and len(compared.policies) > 1:
        best = min(rounds.latency(1.0) for rounds in compared.policies)
        yield Target(
            f"longest request by the best, storm: {default.policy}",
            default.latency(1.0) / best, 2, False,
        )  # fmt: skip


def ratio(ours: Rounds, others: Rounds) -> float:
    """
    Of two rates: the median of the rounds' ratios.
    """
    return median(ratios(ours.rates, others.rates))
