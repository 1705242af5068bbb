"""
A worker is stopped while clients come. ``make crash`` says for how long they wait.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kvd.plugins import IPolicyDeclaration, declared
from tests.crash.stopping import LIVES, stop_a_worker
from tests.dispatch.kernels import may_load

pytestmark = pytest.mark.integration

needs_privilege = pytest.mark.skipif(
    not may_load(), reason="programs of extended BPF take CAP_BPF"
)

EXTENDED = ("steered:by=turns", "steered:by=least")


@pytest.mark.parametrize(
    "policy",
    [
        *sorted(declared(IPolicyDeclaration)),
        *(pytest.param(policy, marks=needs_privilege) for policy in EXTENDED),
    ],
)
def test_nobody_new_waits_for_a_worker_that_is_stopped(
    policy: str, tmp_path: Path
) -> None:
    """
    All are answered while it is, whoever chooses. It is logged once, and once more when
    it responds again and gets its share.
    """
    report = stop_a_worker(policy, tmp_path)

    assert {200} == report.statuses
    assert 1 == report.stalls
    stopped, lives = (line for line in report.lines if "worker 1 " in line)
    assert "has not responded for " in stopped
    assert LIVES in lives
