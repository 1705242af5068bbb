"""
Starting with a status site, and without one.
"""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from kvd.daemon.service import makeService
from tests.daemon.test_service import listening, options
from tests.ports import unused_port


def test_a_site_that_fails_to_start_closes_the_addresses() -> None:
    """
    And the start ends with a message.
    """
    port = unused_port()
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        pytest.raises(SystemExit, match="in use"),
    ):
        makeService(
            options(
                "--store=null:",
                f"--listen=tcp:{port}:interface=127.0.0.1",
                f"--status=tcp:{other.getsockname()[1]}",
            )
        )

    assert not listening(port)


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
