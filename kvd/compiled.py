"""
The parts of kvd that are compiled, where they are.

kvd is whole without them: each does what Python code beside it does too, faster.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


def compiled(name: str) -> ModuleType | None:
    """
    A compiled module of this package; None if kvd was installed where nothing could
    compile it.
    """
    try:
        return import_module(f"kvd.{name}")
    except ImportError:
        return None
