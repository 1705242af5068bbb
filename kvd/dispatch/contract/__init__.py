"""
What dispatch policies promise, as tests.

`PolicyContract` holds for every policy. The others are for what only some promise,
and each has in it those that it names as its bases. Other servers shipped the bugs
whose numbers stand at some of the tests.
"""

from kvd.dispatch.contract.every import PolicyContract
from kvd.dispatch.contract.gated import GatedContract
from kvd.dispatch.contract.load import DispatchedByLoadContract, LoadAwareContract
from kvd.dispatch.contract.rotating import RotatingContract
from kvd.dispatch.contract.views import view, views

__all__ = [
    "DispatchedByLoadContract",
    "GatedContract",
    "LoadAwareContract",
    "PolicyContract",
    "RotatingContract",
    "view",
    "views",
]
