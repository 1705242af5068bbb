"""
Ceph, with three daemons for objects and two gateways.
"""

from __future__ import annotations

from kvd.s3.guards import Change
from tests.s3 import over_engine
from tests.s3.ceph import Ceph
from tests.s3.engines import suite

ENGINE = Ceph

REPLACES = frozenset({Change.PUT})
"""
Ceph 16 does not look at ``If-Match`` on DELETE.
"""


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
