"""
Where it was measured, and when.
"""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Machine:
    """
    What a reader of figures asks first.
    """

    when: str
    processors: int
    load_average: float
    """Of the minute before: what else the machine was doing."""
    kernel: str
    python: str

    def line(self) -> str:
        """
        In words.
        """
        return (
            f"{self.when}: {self.processors} processors, load {self.load_average:.1f}"
            f" in the minute before, Linux {self.kernel}, Python {self.python}"
        )


def this_machine() -> Machine:
    """
    As it is now.
    """
    return Machine(
        when=time.strftime("%Y-%m-%d %H:%M"),
        processors=len(os.sched_getaffinity(0)),
        load_average=os.getloadavg()[0],
        kernel=platform.release(),
        python=platform.python_version(),
    )
