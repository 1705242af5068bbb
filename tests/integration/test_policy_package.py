"""
Somebody's own package brings policies.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from kvd.admin.control.asking import ControlSocket
from tests.integration.http import ask
from tests.integration.installing import ROOT, Installed, install, once, the_wheel
from tests.integration.twistd import RUN_TWISTD, Twistd

pytestmark = pytest.mark.integration

PACKAGE = ROOT / "tests" / "integration" / "policy_package"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """
    Beside kvd.
    """

    def make(folder: Path) -> None:
        wheel = str(the_wheel(tmp_path_factory))
        install(folder, wheel, str(PACKAGE))

    return Installed(once(tmp_path_factory, "installed-policies", make))


def serve(
    installed: Installed,
    folder: Path,
    policy: str,
    requests: int = 6,
    more: Sequence[str] = (),
) -> tuple[Mapping[int, int], str]:
    """
    Serve some requests under a policy.

    Returns:
        How many connections each worker got, and the log.
    """
    control = folder / "control"
    options = [f"--policy={policy}", "--procs=3", "--store=null:", *more]
    daemon = Twistd(
        [*options, f"--control={control}"],
        folder,
        installed.python,
        installed.environment,
    )
    with daemon:
        for _ in range(requests):
            assert 201 == ask(daemon.port, "PUT", "/k", b"x").status
        asked = ControlSocket(str(control))
        rows: list[dict[str, Any]] = asked.status()["workers"]
        asked.close()
        daemon.stop()
    return {row["worker"]: row["accepted"] for row in rows}, "".join(daemon.lines)


def test_a_policy_of_ones_own_deals(installed: Installed, tmp_path: Path) -> None:
    """
    Chosen by its name, as kvd's own are.
    """
    accepted, log = serve(installed, tmp_path, "highest")

    assert {0: 0, 1: 0, 2: 6} == accepted
    assert "policy highest" in log


def test_one_that_errs_costs_no_request(installed: Installed, tmp_path: Path) -> None:
    """
    Others take what it leaves, and it is said once.
    """
    accepted, log = serve(installed, tmp_path, "odd", requests=9)

    assert 9 == sum(accepted.values())
    assert 3 == accepted[1]
    assert 1 == log.count("RuntimeError: it is the turn of worker 1")
    assert 0 == log.count("Traceback")


def test_one_that_never_decides_is_left(installed: Installed, tmp_path: Path) -> None:
    """
    Workers take turns then.
    """
    accepted, log = serve(installed, tmp_path, "stuck")

    assert 6 == sum(accepted.values())
    # On a busy machine a worker may be passed over now and then.
    assert 1 < sum(map(bool, accepted.values()))
    assert 1 == log.count("did not decide within")


def test_one_that_errs_or_hangs_may_look_on(
    installed: Installed, tmp_path: Path
) -> None:
    """
    Nobody notices, except who reads the log.
    """
    for shadow, words in (("odd", "RuntimeError"), ("stuck", "did not decide within")):
        accepted, log = serve(
            installed, tmp_path, "roundrobin", more=[f"--shadow={shadow}"]
        )

        assert 6 == sum(accepted.values())
        assert 1 < sum(map(bool, accepted.values()))
        assert 1 == log.count(f"policy {shadow} ")
        assert words in log


def test_a_broken_one_is_named_when_it_is_asked_for(
    installed: Installed, tmp_path: Path
) -> None:
    """
    And hinders no other: the tests above have it installed too.
    """
    tried = subprocess.run(
        [installed.python, "-c", RUN_TWISTD, "-n", "kvd", "--policy=broken"],
        cwd=tmp_path,
        env=installed.environment,
        capture_output=True,
        text=True,
    )

    assert 1 == tried.returncode
    [last] = tried.stderr.splitlines()
    assert "'broken'" in last
    assert "someones.broken.policy" in last
    assert "no_such_module" in last
