"""
Three nodes of SeaweedFS. What one node passes in every build is in
`tests.integration.test_seaweedfs`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.twistd import Twistd
from tests.s3.engines import suite
from tests.s3.engines.suite import running
from tests.s3.over_engine import served
from tests.s3.processes import RunningEngine
from tests.s3.seaweedfs import SeaweedFS


@pytest.fixture(scope="module")
def engine() -> Iterator[RunningEngine]:
    """
    Three nodes.
    """
    with running(lambda folder: SeaweedFS(folder, 3)) as engine:
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


class TestKvdOverSeaweedFS(suite.WholeContract):
    """
    What a client sees of kvd over SeaweedFS.
    """

    gateways_agree = False
