"""
The programs in C, compiled once.
"""

from __future__ import annotations

import pytest

from bench.building import Programs, build


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    """
    All that a benchmark starts beside kvd. What is not installed for it is named, and
    .ci/run installs it.
    """
    return build(tmp_path_factory.mktemp("programs"))
