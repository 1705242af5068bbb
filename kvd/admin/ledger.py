"""
What was done under which policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kvd.histogram import BUCKETS
from kvd.scoreboard import Sums


@dataclass(frozen=True, slots=True)
class Account:
    """
    What all workers did while one policy was in force.
    """

    connections: int = 0
    serving_seconds: float = 0.0
    latency: tuple[int, ...] = (0,) * BUCKETS
    """Of requests; see `Sums`."""

    def plus(self, other: Account, sign: int = 1) -> Account:
        """
        The sum, or with a negative sign the difference.
        """
        return Account(
            self.connections + sign * other.connections,
            self.serving_seconds + sign * other.serving_seconds,
            tuple(
                a + sign * b for a, b in zip(self.latency, other.latency, strict=True)
            ),
        )


class Ledger:
    """
    Enters what the sums have grown by to the account of the policy.

    Whoever switches the policy need not tell: what is found at a reading goes to the
    policy of that moment. So a second's worth of work may be on the wrong account
    after a switch, and nothing is lost or counted twice.
    """

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self._before = Account()

    def enter(self, policy: str, sums: Sequence[Sums]) -> None:
        """
        Take a reading.

        Args:
            policy: The one in force.
            sums: Of all places, as they are now.
        """
        now = Account(
            sum(s.accepted for s in sums),
            sum(s.serving_seconds for s in sums),
            _added(s.latency for s in sums),
        )
        account = self.accounts.get(policy, Account())
        self.accounts[policy] = account.plus(now).plus(self._before, -1)
        self._before = now


def _added(histograms: Iterable[Sequence[int]]) -> tuple[int, ...]:
    return tuple(map(sum, zip(*histograms, strict=True)))
