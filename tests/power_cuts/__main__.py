"""
Cut the power under load, and say what was lost.

    python -m tests.power_cuts [CUTS [SECONDS]]
"""

import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.power_cuts.cutting import report, run

CASES = [(kind, how) for how in ("process", "disk") for kind in ("ext4", "xfs")]


def main(cuts: int = 20, seconds: float = 40.0) -> None:
    """
    For each file system and durability.
    """
    seed = random.randrange(1 << 32)
    print(f"seed {seed}", flush=True)
    choose = random.Random(seed)
    for kind, durability in CASES:
        delays = sorted(choose.uniform(0.0, seconds) for _ in range(cuts))
        with tempfile.TemporaryDirectory(prefix="kvd-power-") as folder:
            done = run(kind, Path(folder), durability, delays, 500, seed)
            print(report(kind, durability, done), flush=True)
            subprocess.run(["umount", f"{folder}/outer"], check=False)


if __name__ == "__main__":
    if "KVD_OWN_MOUNTS" not in os.environ:
        os.environ["KVD_OWN_MOUNTS"] = "1"
        command = ["unshare", "--mount", sys.executable, "-m", "tests.power_cuts"]
        os.execvp(command[0], command + sys.argv[1:])
    main(*(int(text) for text in sys.argv[1:]))
