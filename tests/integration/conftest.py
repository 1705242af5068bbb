"""
What is started once for all processes that run integration tests.
"""

from __future__ import annotations

import pytest

from tests.integration.commands import command_server
from tests.integration.twistd import twistd_server


def pytest_collection_finish(session: pytest.Session) -> None:
    """
    Start what most of them fork daemons and commands from, before they are forked: each
    of them would start its own.
    """
    option = session.config.option
    if not getattr(option, "processes", 0) or option.collectonly:
        return
    if any(item.get_closest_marker("integration") for item in session.items):
        command_server()
        twistd_server()
