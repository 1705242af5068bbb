"""
Tests for `kvd.lab.bench.programs`.
"""

from __future__ import annotations

import signal
import subprocess
from typing import Any

import pytest

from kvd.admin.control.asking import ControlSocket
from kvd.lab.bench.programs import serving, sink
from kvd.lab.measuring.errors import BenchFailed
from tests.integration.measured import forked_programs
from tests.processes import has_ended


@pytest.mark.integration
def test_a_daemon_that_does_not_start_says_why() -> None:
    """
    With the end of its log.
    """
    with (
        pytest.raises(BenchFailed, match="did not begin to serve") as caught,
        serving("fair", 1),
    ):
        pass

    assert "no policy named 'fair'" in caught.value.output


@pytest.mark.integration
@forked_programs()
def test_a_daemon_serves_until_the_end_of_the_with() -> None:
    """
    Also when the measurement fails.
    """
    seen = []

    def measure() -> None:
        with serving("shared", 2) as served:
            seen.append(served.control.status())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        measure()

    assert ["ready", "ready"] == [row["state"] for row in seen[0]["workers"]]
    assert has_ended(seen[0]["pid"])


def test_an_interruption_while_a_program_starts_ends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    The signal waits until there is something to end.
    """
    started = []

    class Interrupted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)  # type: ignore[call-overload]
            started.append(self)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    # Who runs the tests in the background may have ignored it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), sink(1):
            pass
    finally:
        signal.signal(signal.SIGINT, before)

    assert [-signal.SIGKILL] == [process.returncode for process in started]


@pytest.mark.integration
def test_a_policy_that_is_replaced_is_not_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    The figures would be those of another.
    """

    def replaced(control: ControlSocket) -> dict[str, Any]:
        worker = {"worker": 0, "state": "ready"}
        fallback = {"by": "steered:by=random", "reason": "it is forbidden"}
        return {"workers": [worker], "fallbacks": [fallback]}

    monkeypatch.setattr(ControlSocket, "status", replaced)
    with (
        pytest.raises(BenchFailed, match="by=least cannot be measured here, where"),
        serving("steered:by=least", 2),
    ):
        pass
