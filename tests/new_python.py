"""
A Python of its own for what is imported, or not.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parent.parent


def run_python(code: str, *paths: Path) -> str:
    """
    What a new Python prints that finds kvd, and what else is on the paths.
    """
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [*paths, _ROOT]))},
        cwd="/",
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
