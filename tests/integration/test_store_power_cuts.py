"""
The file store where the power is cut, on ext4 and XFS.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.disk_image import KINDS
from tests.integration.store_power_cuts import CASES
from tests.privileges import take_root

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_power_cut(case: str, kind: str, tmp_path: Path) -> None:
    """
    What the case of this name says, in a process of its own.
    """
    take_root("mounting images of disks")
    module = "tests.integration.store_power_cuts"
    ended = subprocess.run(
        [
            *("unshare", "--mount", sys.executable, "-m", module),
            *(case, kind, str(tmp_path)),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert 0 == ended.returncode, ended.stderr
