"""
``python -m tests.power_cuts [CUTS [SECONDS [KEYS]]] [NAME...]``: power cuts under load,
in figures, for each file system and durability, or for those that are named.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.chance import new_seed
from tests.integration.disk_image import KINDS
from tests.power_cuts.cutting import is_wrong, report, run

DURABILITIES: Final = "process", "disk"


def main(names: set[str], cuts: int = 20, seconds: int = 40, keys: int = 500) -> int:
    """
    Print a line for each; fail if anything was lost that may not be.
    """
    if unknown := names.difference(KINDS, DURABILITIES):
        sys.exit(f"{', '.join(unknown)}: neither a file system nor a durability")
    seed = new_seed()
    wrong = 0
    for durability in _named(DURABILITIES, names):
        for kind in _named(KINDS, names):
            choose = random.Random(seed)
            delays = sorted(choose.uniform(0.0, seconds) for _ in range(cuts))
            with tempfile.TemporaryDirectory(prefix="kvd-power-") as folder:
                done = run(kind, Path(folder), durability, delays, keys, seed)
            print(report(kind, durability, done), flush=True)
            wrong += is_wrong(durability, done)
    return min(wrong, 1)


def _named(known: Sequence[str], names: set[str]) -> Sequence[str]:
    return [each for each in known if each in names] or known


if __name__ == "__main__":
    if os.environ.get("KVD_OWN_MOUNTS") != "yes":
        # What is mounted is nobody else's, and goes with this process.
        os.environ["KVD_OWN_MOUNTS"] = "yes"
        own = ["unshare", "--mount", sys.executable, "-m", "tests.power_cuts"]
        os.execvp(own[0], [*own, *sys.argv[1:]])
    words = sys.argv[1:]
    numbers = [int(word) for word in words if word.isdigit()]
    sys.exit(main({word for word in words if not word.isdigit()}, *numbers))
