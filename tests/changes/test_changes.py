"""
A daemon is changed under load. ``make changes`` does the same for longer, with
figures.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.changes.changing import (
    Act,
    restart_under,
    switch_and_resize,
    under_load,
    upgrade_under,
)

pytestmark = pytest.mark.integration

CLIENTS = 8
PAUSE_SECONDS = 0.01


@pytest.mark.parametrize(
    "act",
    [
        switch_and_resize(12, 4),
        restart_under("reuseport"),
        restart_under("leastbusy"),
    ],
    ids=[
        "switch and resize",
        "restart where workers accept",
        "restart where the supervisor accepts",
    ],
)
def test_no_request_is_lost(act: Act, tmp_path: Path) -> None:
    """
    Half of the clients connect for each, half keep their connections.
    """
    report = under_load(CLIENTS, tmp_path, act, pause_seconds=PAUSE_SECONDS)

    assert [] == report.wrong
    # Else nothing was tested.
    assert report.requests > 100


@pytest.mark.parametrize("policy", ["reuseport", "leastbusy"])
def test_an_upgrade_loses_no_request(policy: str, tmp_path: Path) -> None:
    """
    Whether workers accept, or the supervisor.
    """
    upgrade = upgrade_under(policy, 1)
    report = under_load(CLIENTS, tmp_path, upgrade, pause_seconds=PAUSE_SECONDS)

    assert [] == report.wrong
    assert report.requests > 100
