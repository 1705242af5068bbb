"""
The file store on filesystems that are full, read-only or unfit.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator

import pytest

from tests.integration.mounting import run_case
from tests.integration.store_mounted import CASES, IMAGES
from tests.privileges import take_root

pytestmark = pytest.mark.integration


@pytest.fixture
def folder() -> Iterator[str]:
    """
    A folder that anybody can get to; those of pytest are for one user alone.
    """
    path = tempfile.mkdtemp(prefix="kvd-test-")
    os.chmod(path, 0o755)
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize("case", CASES)
def test_filesystem(case: str, folder: str) -> None:
    """
    What the case of this name says, in a process of its own.
    """
    if case in IMAGES:
        take_root("mounting images of disks")
    module = "tests.integration.store_mounted"
    status, errors = run_case(module, [case, folder], mounts=case != "not_permitted")

    # Not its standard error: without privileges it cannot write what was measured.
    assert 0 == status, errors
