"""
What a test needs root for is said, and left out where somebody else runs it.
"""

from __future__ import annotations

import os
from unittest import SkipTest


def take_root(act: str) -> None:
    """
    Go on as root alone.

    Args:
        act: What takes it, as in "mounting a disk".

    Raises:
        SkipTest: For any other user: the test is left out, and its reason is shown.
    """
    if os.geteuid() != 0:
        raise SkipTest(f"{act} takes root")
