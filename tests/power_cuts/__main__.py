"""
``python -m tests.power_cuts [CUTS [SECONDS [KEYS]]]``: power cuts under load, for each
file system and durability, in figures.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.integration.disk_image import KINDS
from tests.power_cuts.cutting import is_wrong, report, run


def main(cuts: int = 20, seconds: int = 40, keys: int = 500) -> int:
    """
    Print a line for each; fail if anything was lost that may not be.
    """
    seed = random.randrange(1 << 32)
    print(f"seed {seed}", flush=True)
    wrong = 0
    for durability in ("process", "disk"):
        for kind in KINDS:
            choose = random.Random(seed)
            delays = sorted(choose.uniform(0.0, seconds) for _ in range(cuts))
            with tempfile.TemporaryDirectory(prefix="kvd-power-") as folder:
                done = run(kind, Path(folder), durability, delays, keys, seed)
                subprocess.run(["umount", f"{folder}/outer"], check=True)
            print(report(kind, durability, done), flush=True)
            wrong += is_wrong(durability, done)
    return min(wrong, 1)


if __name__ == "__main__":
    if os.environ.get("KVD_OWN_MOUNTS") != "yes":
        # What is mounted is nobody else's, and goes with this process.
        os.environ["KVD_OWN_MOUNTS"] = "yes"
        own = ["unshare", "--mount", sys.executable, "-m", "tests.power_cuts"]
        os.execvp(own[0], [*own, *sys.argv[1:]])
    sys.exit(main(*(int(text) for text in sys.argv[1:])))
