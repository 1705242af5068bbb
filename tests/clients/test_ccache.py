"""
ccache against the true daemon, with a smaller object than ``make test-clients`` has.
"""

from pathlib import Path

import pytest

from tests.clients.ccache import built, daemon

pytestmark = pytest.mark.integration


def test_ccache_takes_what_it_stored(tmp_path: Path) -> None:
    """
    In the layout that it has without a setting.
    """
    with daemon(tmp_path) as twistd:
        built(tmp_path, f"127.0.0.1:{twistd.port}", "subdirs", 1_000_000)
        twistd.stop()
