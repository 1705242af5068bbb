"""
Workers die under load. ``make crash`` does the same for longer, with figures.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kvd.plugins import IPolicyDeclaration, declared
from tests.crash.killing import kill_daemon, kill_workers

pytestmark = pytest.mark.integration

KILLS = 3
"""
The last of them behind the death of the fork server.
"""

CLIENTS = 8
PAUSE_SECONDS = 0.005
"""
With which there are requests in service on most workers that are killed.
"""


@pytest.mark.parametrize("policy", sorted(declared(IPolicyDeclaration)))
def test_only_requests_in_service_on_a_killed_worker_fail(
    policy: str, tmp_path: Path
) -> None:
    """
    And nothing acknowledged is missing or torn.
    """
    report = kill_workers(
        policy, KILLS, tmp_path, clients=CLIENTS, pause_seconds=PAUSE_SECONDS
    )

    assert [] == report.wrong
    # Else nothing was tested.
    assert report.requests > 100


def test_the_same_holds_of_what_is_synced(tmp_path: Path) -> None:
    """
    Those values go another way, by threads.
    """
    report = kill_workers(
        "reuseport",
        KILLS,
        tmp_path,
        durability="disk",
        clients=CLIENTS,
        pause_seconds=PAUSE_SECONDS,
    )

    assert [] == report.wrong
    assert report.requests > 100


@pytest.mark.parametrize("policy", sorted(declared(IPolicyDeclaration)))
def test_what_was_acknowledged_outlives_the_supervisor(
    policy: str, tmp_path: Path
) -> None:
    """
    And no worker does.
    """
    report = kill_daemon(policy, 1, tmp_path, CLIENTS, PAUSE_SECONDS)

    assert [] == report.wrong
    assert report.requests > 100
