"""
The start of many workers, and their memory.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Final

from bench.figures.daemon import memory_mib, show, workers
from kvd.lab.measuring.daemon import daemon
from kvd.lab.measuring.processes import cpu_seconds, tree

ROUNDS: Final = 5


def measure_start(folder: Path) -> None:
    """
    From the command until all 32 workers serve.
    """
    for policy in ("gated", "reuseport", "roundrobin"):
        taken, spent, pss = [], [], []
        for _ in range(ROUNDS):
            begun = time.monotonic()
            options = ("--procs=32", f"--policy={policy}")
            with daemon(*options, cwd=str(folder)) as served:
                taken.append(time.monotonic() - begun)
                spent.append(cpu_seconds(tree(served.pid)))
                pss += [memory_mib(worker, "Pss") for worker in workers(served.pid)]
        what = f"start: 32 workers, {policy}"
        show(what, statistics.median(taken), "s", 1.5)
        show(f"{what}, of all processes", statistics.median(spent), "s of CPU")
        show(f"{what}, proportional memory", statistics.mean(pss), "MiB each", 6)
