"""
The programs in C, compiled once.
"""

from __future__ import annotations

import shutil

import pytest

from bench.building import Programs, build


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    """
    All that a benchmark starts beside kvd.
    """
    if shutil.which("gcc") is None or not shutil.which(
        "nginx", path="/usr/sbin:/usr/bin"
    ):
        pytest.skip("gcc and nginx are not both installed")
    return build(tmp_path_factory.mktemp("programs"))
