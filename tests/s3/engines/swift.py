"""
OpenStack Swift, with three nodes and two gateways.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kvd.s3.guards import Change
from tests.integration.twistd import Twistd
from tests.s3 import over_engine
from tests.s3.engines import suite
from tests.s3.engines.suite import running
from tests.s3.over_engine import served
from tests.s3.processes import RunningEngine
from tests.s3.swift import Swift

NONE = frozenset[Change]()
"""
Of several writers, Swift lets more than one create an object, and knows no ``If-Match``
on PUT. A removal with ``If-Match`` can take the value with it that comes meanwhile.
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[RunningEngine]:
    """
    Three nodes.
    """
    with running(Swift) as engine:
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


class SwiftContractTests(over_engine.RealEngineContract):
    """
    Swift behaves as the double.
    """

    creates = replaces = NONE


class SwiftStoreTests(over_engine.RealStoreContract):
    """
    `ObjectStore` in Swift is a store.
    """

    creates = replaces = NONE


class TestKvdOverSwift(over_engine.DaemonContract, suite.WholeContract):
    """
    What a client sees of kvd over Swift.
    """

    creates = replaces = NONE
    is_consistent = False
