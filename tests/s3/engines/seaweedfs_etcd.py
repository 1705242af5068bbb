"""
Three nodes of SeaweedFS that have their metadata in etcd, of which each has a member.
"""

from __future__ import annotations

from functools import partial

from tests.s3 import over_engine
from tests.s3.engines import suite
from tests.s3.seaweedfs import SeaweedFS

ENGINE = partial(SeaweedFS, nodes=3, in_common=True)


class SeaweedFSContractTests(over_engine.RealEngineContract):
    """
    It behaves as the double.
    """


class SeaweedFSStoreTests(over_engine.RealStoreContract):
    """
    `ObjectStore` in it is a store.
    """


class TestKvdOverSeaweedFS(over_engine.DaemonContract, suite.WholeContract):
    """
    What a client sees of kvd over it.
    """
