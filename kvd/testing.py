"""
Doubles and contract suites, also for authors of stores and policies elsewhere.
"""

from kvd.dispatch.contract import PolicyContract, view
from kvd.store.contract import StoreContract, UploadContract
from kvd.store.memory import MemoryStore

__all__ = ["MemoryStore", "PolicyContract", "StoreContract", "UploadContract", "view"]
