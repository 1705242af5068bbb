"""
What dispatch policies promise, as tests.

`PolicyContract` is for every policy. The others are for policies that promise more, and
include the contracts that are their base classes. The numbers in some docstrings are
those of bugs in other servers.
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
