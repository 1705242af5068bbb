"""
Why a measurement cannot be made.
"""

from __future__ import annotations


class BenchFailed(Exception):
    """
    A program that is needed is missing, or did not do its part.
    """
