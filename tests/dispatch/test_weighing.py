"""
Tests for `kvd.dispatch.policies.weighing`.
"""

from __future__ import annotations

from kvd.dispatch.policies.weighing import weigh
from kvd.testing import view


def test_requests_come_before_connections() -> None:
    """
    One more outweighs any number of them.
    """
    one, many = weigh(view(2, requests=(1, 0), connections=(0, 1_000_000)))

    assert many < one


def test_what_is_on_its_way_is_a_request_and_a_connection() -> None:
    """
    Else a crowd would go to one worker before any has arrived there.
    """
    coming, there = weigh(
        view(2, requests=(0, 1), connections=(0, 1), handing_over=(1, 0))
    )

    assert coming == there


def test_only_ready_workers_are_weighed() -> None:
    """
    In their order.
    """
    seen = view(3, ready=(0, 2), requests=(5, 0, 7), handing_over=(0, 0, 1))

    assert [5, 8] == [tasks for tasks, _ in weigh(seen)]
