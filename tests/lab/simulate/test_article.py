"""
What ``kvd simulate --preset article`` says of the article is so.
"""

from __future__ import annotations

import pytest

from kvd.lab.simulate.figures import Figures
from kvd.lab.simulate.laboratory import load_policies, simulate_case
from kvd.lab.simulate.presets import PRESETS

# Millions of choices.
pytestmark = pytest.mark.untraced


@pytest.fixture(scope="module")
def cases() -> list[dict[str, Figures]]:
    """
    With keep-alive, with new connections, and all at once.
    """
    plan = PRESETS["article"]
    policies = load_policies(["reuseport", "roundrobin", "shared"])
    return [
        {row.policy: row.figures for row in simulate_case(case, policies, range(1, 11))}
        for case in plan.cases
    ]


def test_turns_lose_nothing(cases: list[dict[str, Figures]]) -> None:
    """
    But what is left over when 10,000 are divided by 32, and the lag.
    """
    for found in cases:
        assert found["roundrobin"].regret < 0.02


def test_the_rate_is_lost_to_the_hash(cases: list[dict[str, Figures]]) -> None:
    """
    More than 3 times, 1.7 times, and little.
    """
    regrets = [found["reuseport"].regret for found in cases]

    assert 2 < regrets[0] < 3
    assert 0.65 < regrets[1] < 0.85
    assert regrets[2] < 0.15


def test_the_tail_is_long_with_keep_alive(cases: list[dict[str, Figures]]) -> None:
    """
    Over a third of the run; elsewhere it is short.
    """
    tails = [found["reuseport"].tail for found in cases]

    assert 1 / 3 < tails[0]
    assert max(tails[1:]) < 0.1


def test_all_work_only_where_many_wait(cases: list[dict[str, Figures]]) -> None:
    """
    Three quarters of the run, and never with 32 clients.
    """
    shares = [found["reuseport"].all_busy for found in cases]

    assert max(shares[:2]) < 0.01
    assert pytest.approx(0.75, abs=0.06) == shares[2]


def test_one_socket_for_all_loses_as_much_with_keep_alive(
    cases: list[dict[str, Figures]],
) -> None:
    """
    Between reuseport and turns it is only where connections are made anew.
    """
    assert pytest.approx(cases[0]["reuseport"].regret) == cases[0]["shared"].regret
    assert 0.1 < cases[1]["shared"].regret < 0.4
