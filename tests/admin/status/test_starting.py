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


def test_a_site_that_cannot_be_closes_the_addresses() -> None:
    """
    And ends the start with a sentence.
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


def test_who_needs_no_site_does_not_pay_for_it() -> None:
    """
    Neither the supervisor nor the fork server, whose memory all workers have.
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
