"""
How soon many workers serve, and how small they are.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Final

from bench.figures.daemon import kvd, memory_mib, say, workers
from bench.processes import cpu_seconds, tree, unused_port

ROUNDS: Final = 5


def measure_start(folder: Path) -> None:
    """
    From the command to the line that says that all 32 workers serve.
    """
    for policy in ("gated", "reuseport", "roundrobin"):
        taken, spent, pss = [], [], []
        for _ in range(ROUNDS):
            begun = time.monotonic()
            options = ("--procs=32", f"--policy={policy}")
            with kvd(folder, unused_port(), *options) as pid:
                taken.append(time.monotonic() - begun)
                spent.append(cpu_seconds(tree(pid)))
                pss += [memory_mib(worker, "Pss") for worker in workers(pid)]
        what = f"start: 32 workers, {policy}"
        say(what, statistics.median(taken), "s", 1.5)
        say(f"{what}, of all processes", statistics.median(spent), "s of CPU")
        say(f"{what}, proportional memory", statistics.mean(pss), "MiB each", 6)
