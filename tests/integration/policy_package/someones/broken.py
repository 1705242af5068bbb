"""
``broken``: needs something that is not installed.
"""

from no_such_module import policy

__all__ = ["policy"]
