"""
What every store promises, as tests: the author of a store mixes these into a test case.

    class ShelfTests(StoreContract, SynchronousTestCase):
        def make_store(self) -> IStore:
            return ShelfStore(...)

`UploadContract` is for stores that keep nothing, `StoreContract` for all others. If the
answers of a store take time, override `wait_for`; if its values have descriptors, set
`has_descriptors`.
"""

from kvd.store.contract.keeping import ValueContract
from kvd.store.contract.listing import ListingContract
from kvd.store.contract.uploading import UploadContract

__all__ = ["StoreContract", "UploadContract"]


class StoreContract(UploadContract, ValueContract, ListingContract):
    """
    The whole contract of a store that keeps values.
    """
