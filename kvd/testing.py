"""
Doubles and contract suites, also for authors of stores and policies elsewhere.
"""

from kvd.dispatch.contract import (
    DealtByLoadContract,
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
    "DealtByLoadContract",
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
