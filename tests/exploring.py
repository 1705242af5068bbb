"""
How Hypothesis looks for examples, here and in builds.
"""

from __future__ import annotations

import os
from typing import Final

from hypothesis import settings

TIMES: Final = float(os.environ.get("KVD_EXAMPLES_TIMES", "1"))


def exploring(examples: int = 100) -> settings:
    """
    Settings for a test: other examples each time, also where Hypothesis finds itself in
    a build and would repeat one list of them. What fails is printed so that it can be
    repeated, and no machine is too slow.

    Args:
        examples: How many; ``make soak`` tries many times as many, and a part of
            them ``make sanitize``, where each takes as long as many.
    """
    return settings(
        derandomize=False,
        deadline=None,
        print_blob=True,
        max_examples=round(examples * TIMES),
    )
