"""
Test doubles and contract suites, for kvd's tests and for authors of stores and
policies.
"""

from kvd.dispatch.contract import (
    DispatchedByLoadContract,
    GatedContract,
    LoadAwareContract,
    PolicyContract,
    RotatingContract,
    view,
    views,
)
from kvd.store.contract import StoreContract, UploadContract
from kvd.store.memory import MemoryStore

__all__ = [
    "DispatchedByLoadContract",
    "GatedContract",
    "LoadAwareContract",
    "MemoryStore",
    "PolicyContract",
    "RotatingContract",
    "StoreContract",
    "UploadContract",
    "view",
    "views",
]
