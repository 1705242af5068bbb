"""
Counts the work of all workers separately for each policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kvd.ipc.counts import MethodSums, Sums
from kvd.ipc.histogram import BUCKETS
from kvd.ipc.row import METHODS, STATUSES

_NO_REQUESTS: Final = MethodSums((0,) * len(STATUSES), 0.0, (0,) * BUCKETS)

NOTHING: Final = Sums(
    starts=0,
    stalls=0,
    accepted=0,
    requests=0,
    bytes_in=0,
    bytes_out=0,
    busy_seconds=0.0,
    methods=(_NO_REQUESTS,) * len(METHODS),
    total=_NO_REQUESTS,
    sync_seconds=0.0,
    syncs=[0] * BUCKETS,
    loop_delay=[0] * BUCKETS,
)
"""
The sums of a worker that has never had a process.
"""


@dataclass(frozen=True, slots=True)
class Account:
    """
    The work of all workers while one policy was in force.
    """

    connections: int = 0
    requests: MethodSums = _NO_REQUESTS
    """Those that have ended."""

    def plus(self, now: Sums, before: Sums) -> Account:
        """
        Return the account with what was added to the sums of one worker.

        Args:
            now: The sums now.
            before: The sums at the reading before.
        """
        return Account(
            self.connections + now.accepted - before.accepted,
            self.requests + (now.total - before.total),
        )


class Ledger:
    """
    Adds the growth of the sums to the account of the policy in force.

    A change of the policy need not be reported: the growth since the reading before
    goes to the policy at the moment of the reading. So after a change a second's worth
    of work may be on the wrong account, but nothing is lost or counted twice.
    """

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self._before: dict[int, Sums] = {}

    def enter(self, policy: str, sums: Sequence[Sums]) -> None:
        """
        Take a reading.

        Args:
            policy: The policy in force.
            sums: The current sums of all workers that there have ever been.
        """
        account = self.accounts.get(policy, Account())
        for worker, now in enumerate(sums):
            account = account.plus(now, self._before.get(worker, NOTHING))
            self._before[worker] = now
        self.accounts[policy] = account
