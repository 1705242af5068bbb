"""
Chance in tests: each run tries something else, and any run can be repeated.
"""

from __future__ import annotations

import os
from functools import cache


def new_seed() -> int:
    """
    A seed for `random.Random`, printed once for each test, with what it prints if it
    fails, or once for a program; ``SEED`` in the environment chooses it, as ``make test
    SEED=1234`` does.
    """
    return _seed_of(os.environ.get("PYTEST_CURRENT_TEST"))


@cache
def _seed_of(test: str | None) -> int:
    seed = int(os.environ.get("SEED") or int.from_bytes(os.urandom(4)))
    print(f"SEED={seed}", flush=True)
    return seed
