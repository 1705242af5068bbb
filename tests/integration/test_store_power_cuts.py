"""
The file store where the power is cut, on ext4 and XFS.
"""

from pathlib import Path

import pytest

from tests.integration.disk_image import KINDS
from tests.integration.mounting import run_case
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
    status, errors = run_case(module, [case, kind, str(tmp_path)])

    assert 0 == status, errors
