"""
Tests for `kvd.admin.status.ledger`.
"""

from __future__ import annotations

from kvd.admin.status.ledger import NOTHING, Ledger
from tests.admin.status.worked import served


def test_work_is_entered_for_the_policy_of_the_time() -> None:
    """
    Each policy has what was added while it was in force, also when it returns.
    """
    ledger = Ledger()
    ledger.enter("shared", [NOTHING, NOTHING])
    ledger.enter("shared", [served(5), served(1)])
    ledger.enter("roundrobin", [served(7), served(3)])
    ledger.enter("shared", [served(17), served(3)])

    assert {"shared": 16, "roundrobin": 4} == {
        policy: account.connections for policy, account in ledger.accounts.items()
    }
    assert 16 == sum(ledger.accounts["shared"].requests.latency)


def test_no_account_shrinks_with_the_number_of_workers() -> None:
    """
    Work stays counted, and the work of a worker that returns is added.
    """
    ledger = Ledger()
    ledger.enter("shared", [served(5), served(7)])
    ledger.enter("shared", [served(6)])
    assert 13 == ledger.accounts["shared"].connections

    ledger.enter("shared", [served(6), served(9)])
    assert 15 == ledger.accounts["shared"].connections


def test_nothing_is_lost_however_rarely_it_is_read() -> None:
    """
    The accounts together have everything that was counted.
    """
    ledger = Ledger()
    ledger.enter("shared", [served(40), served(2)])

    assert 42 == ledger.accounts["shared"].connections
