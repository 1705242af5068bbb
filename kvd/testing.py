"""
Doubles and contract suites, also for authors of stores elsewhere.
"""

from kvd.store.contract import StoreContract, UploadContract
from kvd.store.memory import MemoryStore

__all__ = ["MemoryStore", "StoreContract", "UploadContract"]
