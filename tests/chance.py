"""
Chance in tests: each run tries something else, and any run can be repeated.
"""

from __future__ import annotations

import os


def new_seed() -> int:
    """
    A seed for `random.Random`, printed with whatever fails; ``SEED`` in the environment
    chooses it, as ``make test SEED=1234`` does.
    """
    seed = int(os.environ.get("SEED") or int.from_bytes(os.urandom(4)))
    print(f"SEED={seed}", flush=True)
    return seed
