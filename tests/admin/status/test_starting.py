"""
Starting with a status site, and without one.
"""

from __future__ import annotations

import subprocess
import sys


def test_without_a_site_its_modules_are_not_imported() -> None:
    """
    Neither by the supervisor nor by the fork server, whose memory all workers share.
    """
    program = (
        "import sys, kvd.daemon.service, kvd.options, kvd.workers.child,"
        " kvd.admin.control.site;"
        " print([name for name in sys.modules"
        " if name.startswith(('prometheus_client', 'kvd.admin.status'))])"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert "[]\n" == printed.stdout
