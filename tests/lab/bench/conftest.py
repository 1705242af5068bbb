"""
The programs in C, compiled once for all processes of a run.
"""

from __future__ import annotations

import pytest

from bench.building import Programs, build
from tests.integration.installing import once


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    """
    All that a benchmark starts beside kvd. What is not installed for it is named, and
    .ci/run installs it.
    """
    # It finds what is there already.
    return build(once(tmp_path_factory, "programs", build))
