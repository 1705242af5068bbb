"""
How long tests wait.
"""

from __future__ import annotations

from typing import Final

PATIENCE_SECONDS: Final = 120
"""
For what a working kvd does at once. A test passes even if its processes get a hundredth
of the machine. Less than the time in which pytest has a test end.
"""
