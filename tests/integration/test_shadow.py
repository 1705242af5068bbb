"""
A second policy that looks on in a true daemon.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvd.admin.control.asking import ControlSocket
from tests.integration.commands import run_kvd
from tests.integration.http import ask
from tests.integration.test_status import null, status_of
from tests.integration.twistd import Twistd

pytestmark = pytest.mark.integration


@pytest.fixture
def control(tmp_path: Path) -> Path:
    """
    Where the daemon is asked.
    """
    return tmp_path / "control"


@pytest.fixture
def daemon(tmp_path: Path, control: Path) -> Iterator[Twistd]:
    """
    Policy ``roundrobin``, with ``leastbusy`` looking on.
    """
    options = ["--policy=roundrobin", "--procs=2", "--shadow=leastbusy"]
    with Twistd(null(*options, f"--control={control}"), tmp_path) as daemon:
        yield daemon


def serve(daemon: Twistd, requests: int) -> None:
    """
    Each over a connection of its own.
    """
    for _ in range(requests):
        assert 201 == ask(daemon.port, "PUT", "/k", b"x").status


def kvd(control: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """
    What the command prints.
    """
    return run_kvd(*words, f"--control={control}")


def seen(control: Path) -> dict[str, Any]:
    """
    What the shadow would have done.
    """
    compared: dict[str, Any] = status_of(control)["shadow"]
    return compared


def test_it_is_counted_and_changes_nothing(daemon: Twistd, control: Path) -> None:
    """
    Connections go where the policy in force sends them.
    """
    status = kvd(control, "status").stdout
    assert "shadow leastbusy: no connection was counted yet" in status
    serve(daemon, 6)

    assert [3, 3] == [row["accepted"] for row in status_of(control)["workers"]]
    compared = seen(control)
    assert ("leastbusy", False) == (compared["policy"], compared["model"])
    assert (6, 0) == (compared["connections"], compared["unanswered"])
    assert [3, 3] == [row["dispatched"] for row in compared["workers"]]
    assert 6 == sum(row["shadow"] for row in compared["workers"])

    shown = kvd(control, "status").stdout
    assert "% of 6 connections; " in shown
    assert "against the policy in force: balance " in shown


def test_another_begins_anew(daemon: Twistd, control: Path) -> None:
    """
    As it does with another policy in force: the counts are of one pair.
    """
    serve(daemon, 3)
    assert 0 == kvd(control, "shadow", "roundrobin").returncode
    assert 0 == seen(control)["connections"]

    serve(daemon, 4)
    assert (4, 4) == (seen(control)["connections"], seen(control)["agreed"])

    asked = ControlSocket(str(control))
    asked.change("policy", {"policy": "leastbusy"})
    asked.close()
    assert 0 == seen(control)["connections"]


def test_where_the_kernel_chooses_it_waits(daemon: Twistd, control: Path) -> None:
    """
    And is not let in, as long as there is nothing to see.
    """
    asked = ControlSocket(str(control))
    asked.change("policy", {"policy": "reuseport"})
    assert {"policy": "leastbusy", "model": False} == seen(control)
    assert "nothing to compare" in kvd(control, "status").stdout

    refused = kvd(control, "shadow", "roundrobin")
    assert 1 == refused.returncode
    assert "under the policy 'reuseport'" in refused.stderr

    asked.change("policy", {"policy": "roundrobin"})
    asked.close()
    serve(daemon, 2)
    assert 2 == seen(control)["connections"]


def test_a_model_is_called_one(daemon: Twistd, control: Path) -> None:
    """
    What it would have done is what the kernel might have done.
    """
    assert 0 == kvd(control, "shadow", "reuseport").returncode
    assert "shadow reuseport (model): " in kvd(control, "status").stdout


def test_it_can_be_sent_away(daemon: Twistd, control: Path) -> None:
    """
    As if there had been none.
    """
    assert 0 == kvd(control, "shadow", "off").returncode

    assert seen(control) is None
    assert "shadow" not in kvd(control, "status").stdout


def test_what_cannot_look_on_is_reported(
    daemon: Twistd, control: Path, tmp_path: Path
) -> None:
    """
    In a line, and whoever looked on goes on.
    """
    unknown = kvd(control, "shadow", "nobody")
    assert 1 == unknown.returncode
    assert "no policy named 'nobody'" in unknown.stderr
    assert "leastbusy" == seen(control)["policy"]

    nowhere = kvd(tmp_path / "nowhere", "shadow", "off")
    assert 5 == nowhere.returncode
    assert "no kvd answers" in nowhere.stderr
