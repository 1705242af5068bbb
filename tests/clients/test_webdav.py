"""
litmus against the true daemon. ``make test-clients`` runs rclone and cadaver too.
"""

from pathlib import Path

import pytest

from tests.clients.webdav import daemon, litmus

pytestmark = pytest.mark.integration


def test_litmus_passes(tmp_path: Path) -> None:
    """
    With two workers that take its connections in turn.
    """
    with daemon(tmp_path) as twistd:
        litmus(tmp_path, f"127.0.0.1:{twistd.port}")
