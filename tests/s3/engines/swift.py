"""
OpenStack Swift, with three nodes and two gateways.
"""

from __future__ import annotations

from kvd.s3.guards import Change
from tests.s3 import over_engine
from tests.s3.engines import suite
from tests.s3.swift import Swift

ENGINE = Swift

NONE = frozenset[Change]()
"""
Of several writers, Swift lets more than one create an object, and knows no ``If-Match``
on PUT. A removal with ``If-Match`` can take the value with it that comes meanwhile.
"""


class SwiftContractTests(over_engine.RealEngineContract):
    """
    Swift behaves as the double.
    """

    creates = replaces = NONE
    tells_time = True


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
