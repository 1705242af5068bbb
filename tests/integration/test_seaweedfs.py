"""
The store over a real engine: SeaweedFS, started once, and what it has in common with
the double of it (`tests.s3.memory_engine`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.twistd import Twistd
from tests.s3 import over_engine
from tests.s3.over_engine import served, started
from tests.s3.processes import RunningEngine
from tests.s3.seaweedfs import SeaweedFS

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def engine() -> Iterator[RunningEngine]:
    """
    One node.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        started(SeaweedFS(Path(folder))) as engine,
    ):
        yield engine


@pytest.fixture(scope="module")
def daemon(
    engine: RunningEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Twistd]:
    """
    kvd before it.
    """
    with served(engine, tmp_path_factory.mktemp("daemon")) as daemon:
        yield daemon


class SeaweedFSContractTests(over_engine.RealEngineContract):
    """
    SeaweedFS behaves as the double.
    """


class SeaweedFSStoreTests(over_engine.RealStoreContract):
    """
    `ObjectStore` in SeaweedFS is a store.
    """


class TestKvdOverSeaweedFS(over_engine.DaemonContract):
    """
    What a client sees of kvd over SeaweedFS.
    """
