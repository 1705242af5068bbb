"""
Ceph, with three daemons for objects and two gateways.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kvd.s3.guards import Change
from tests.integration.twistd import Twistd
from tests.s3 import over_engine
from tests.s3.ceph import Ceph
from tests.s3.engines import suite
from tests.s3.engines.suite import running
from tests.s3.over_engine import served
from tests.s3.processes import RunningEngine

REPLACES = frozenset({Change.PUT})
"""
Ceph 16 does not look at ``If-Match`` on DELETE.
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[RunningEngine]:
    """
    Three nodes.
    """
    with running(Ceph) as engine:
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


class CephContractTests(over_engine.RealEngineContract):
    """
    Ceph behaves as the double.
    """

    replaces = REPLACES


class CephStoreTests(over_engine.RealStoreContract):
    """
    `ObjectStore` in Ceph is a store.
    """

    replaces = REPLACES


class TestKvdOverCeph(over_engine.DaemonContract, suite.WholeContract):
    """
    What a client sees of kvd over Ceph.
    """

    replaces = REPLACES
