"""
Doubles and contract suites, also for authors of stores and policies elsewhere.
"""

from kvd.dispatch.contract import PolicyContract, RotatingContract, view
from kvd.store.contract import StoreContract, UploadContract
from kvd.store.memory import MemoryStore

__all__ = [
    "MemoryStore",
    "PolicyContract",
    "RotatingContract",
    "StoreContract",
    "UploadContract",
    "view",
]
