"""
The file store on filesystems that are full, read-only or unfit.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest

from tests.integration.store_mounted import CASES, IMAGES
from tests.patience import PATIENCE_SECONDS
from tests.privileges import take_root

pytestmark = pytest.mark.integration

# Mounts need privilege: root's, or that of a user namespace of one's own.
NAMESPACE = ["unshare", "--mount"] + ([] if os.geteuid() == 0 else ["--map-root-user"])


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
    namespace = [] if case == "not_permitted" else NAMESPACE
    ended = subprocess.run(
        [*namespace, sys.executable, "-m", module, case, folder],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )

    # Not its standard error: without privileges it cannot write what was measured.
    assert 0 == ended.returncode, ended.stderr
