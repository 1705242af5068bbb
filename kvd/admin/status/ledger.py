"""
What was done under which policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kvd.dispatch.histogram import BUCKETS
from kvd.dispatch.scoreboard import Sums

NOTHING: Final = Sums(
    starts=0,
    stalls=0,
    accepted=0,
    requests=0,
    bytes_in=0,
    bytes_out=0,
    busy_seconds=0.0,
    serving_seconds=0.0,
    latency=[0] * BUCKETS,
    loop_delay=[0] * BUCKETS,
)
"""
Of a place in which nobody has been.
"""


@dataclass(frozen=True, slots=True)
class Account:
    """
    What all workers did while one policy was in force.
    """

    connections: int = 0
    serving_seconds: float = 0.0
    latency: tuple[int, ...] = (0,) * BUCKETS
    """Of requests; see `Sums`."""

    def plus(self, now: Sums, before: Sums) -> Account:
        """
        What it is with what was added to the sums of a place.

        Args:
            now: The sums.
            before: What they were.
        """
        return Account(
            self.connections + now.accepted - before.accepted,
            self.serving_seconds + now.serving_seconds - before.serving_seconds,
            tuple(
                count + b - a
                for count, a, b in zip(
                    self.latency, before.latency, now.latency, strict=True
                )
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
        self._before: dict[int, Sums] = {}

    def enter(self, policy: str, sums: Sequence[Sums]) -> None:
        """
        Take a reading.

        Args:
            policy: The one in force.
            sums: Of all places that there have ever been, as they are now.
        """
        account = self.accounts.get(policy, Account())
        for place, now in enumerate(sums):
            account = account.plus(now, self._before.get(place, NOTHING))
            self._before[place] = now
        self.accounts[policy] = account
