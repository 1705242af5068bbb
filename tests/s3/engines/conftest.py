"""
The engine of a module, and a daemon before it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.twistd import Twistd
from tests.s3.over_engine import served, started
from tests.s3.processes import RunningEngine


@pytest.fixture(scope="module")
def engine(request: pytest.FixtureRequest) -> Iterator[RunningEngine]:
    """
    Three nodes of what the module calls ``ENGINE``.
    """
    with (
        tempfile.TemporaryDirectory(prefix="kvd-engine-") as folder,
        started(request.module.ENGINE(Path(folder, "engine"))) as engine,
    ):
        yield engine


@pytest.fixture(scope="module")
def daemon(
    engine: RunningEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Twistd]:
    """
    kvd before all gateways.
    """
    with served(engine, tmp_path_factory.mktemp("daemon")) as daemon:
        yield daemon
