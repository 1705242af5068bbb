"""
``python -m bench.figures [NAME]...``, or ``make figures``.
"""

from __future__ import annotations

import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.figures.engine import measure_engine, measure_small, measure_sync
from bench.figures.evicting import measure_evicting
from bench.figures.get import measure_get
from bench.figures.hostile import measure_hostile
from bench.figures.idle import measure_idle
from bench.figures.listing import measure_listing
from bench.figures.memory import measure_memory
from bench.figures.relays import measure_relays
from bench.figures.request import measure_requests
from bench.figures.slow import measure_slow
from bench.figures.start import measure_start
from bench.figures.stored import measure_stored

FIGURES: dict[str, Callable[[Path], None]] = {
    "memory": measure_memory,
    "idle": measure_idle,
    "stored": measure_stored,
    "listing": measure_listing,
    "start": measure_start,
    "get": measure_get,
    "request": measure_requests,
    "hostile": measure_hostile,
    "slow": measure_slow,
    "evicting": measure_evicting,
    "engine": measure_engine,
    "small": measure_small,
    "relays": measure_relays,
    "sync": measure_sync,
}


def main(names: list[str]) -> None:
    """
    Measure what is named, or all.
    """
    # Thousands of connections have their other ends here.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if unknown := [name for name in names if name not in FIGURES]:
        known = ", ".join(FIGURES)
        raise SystemExit(f"no figure is named {unknown[0]!r}; there are: {known}")
    for name in names or FIGURES:
        with tempfile.TemporaryDirectory(prefix="kvd-figures-") as folder:
            FIGURES[name](Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
