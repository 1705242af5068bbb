"""
What the package declares.
"""

from kvd.plugins import Policy

highest = Policy(
    "highest", "The highest number gets everything.", "someones.highest.policy"
)
odd = Policy("odd", "Wrong by turns.", "someones.odd.policy")
stuck = Policy("stuck", "Never decides.", "someones.odd.stuck")
broken = Policy("broken", "Cannot be imported.", "someones.broken.policy")
