"""
What every engine is tried with by ``make test-engines``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.figures.engine import measure_transfers
from kvd.s3.guards import Change
from tests.integration.twistd import Twistd
from tests.s3 import contract
from tests.s3.engines.load import assert_node_is_not_missed
from tests.s3.over_engine import location
from tests.s3.processes import RunningEngine

SELFTEST_SECONDS = 120.0


class WholeContract(contract.Conditions):
    """
    What takes longer than a build may.
    """

    gateways_agree = True
    """Whether a gateway knows at once what another one has done."""
    keeps_order = True
    """Whether the later of two changes stays, if a node is killed before them."""

    def test_selftest(self, engine: RunningEngine) -> None:
        """
        ``kvd selftest`` says the same of the engine as these tests: what is not kept
        is refused, and nothing else.
        """
        most = None if self.gateways_agree else 1
        tried = subprocess.run(
            [
                Path(sys.executable).with_name("kvd"),
                "selftest",
                f"--store={location(engine, 'selftest', most)}",
            ],
            env={**os.environ, **engine.environment},
            capture_output=True,
            text=True,
            timeout=SELFTEST_SECONDS,
        )
        print(tried.stdout, tried.stderr)
        said = {
            name: rest.split()[0].removesuffix(",")
            for name, _, rest in (
                line.partition(": ") for line in tried.stdout.splitlines()
            )
        }
        expected = {"values come back": "fine", "listing in order": "fine"}
        for condition, change, kept in (
            ("If-None-Match", Change.PUT, self.creates),
            ("If-Match", Change.PUT, self.replaces),
            ("If-Match", Change.REMOVE, self.replaces),
        ):
            word = "kept" if change in kept else "refused"
            expected[f"{condition} on {change.value}"] = word
            if change is Change.PUT:
                expected[f"{condition} on PUT of unknown length"] = word
        assert expected == said
        assert (0, "") == (tried.returncode, tried.stderr)

    @pytest.mark.timeout(600)
    def test_node_that_is_killed_under_load(
        self, engine: RunningEngine, daemon: Twistd
    ) -> None:
        """
        See there.
        """
        assert_node_is_not_missed(
            engine,
            daemon.port,
            replaces=self.is_consistent,
            keeps_order=self.keeps_order,
        )

    @pytest.mark.timeout(600)
    def test_figures(self, engine: RunningEngine) -> None:
        """
        Large values through kvd, and straight to the gateway: printed, for a figure is
        no verdict.
        """
        measure_transfers(engine)
