"""
Tests for `kvd.daemon.opening`; what ends the start is in ``test_service.py``.
"""

from __future__ import annotations

from twisted.logger import capturedLogs

from kvd.daemon.opening import open_control
from kvd.net.listening import ListenerGroup
from kvd.settings import Settings, UNIXAddress


def test_an_abstract_socket_has_no_control_socket_beside_it() -> None:
    """
    kvd serves without, and does not make one in its working folder.
    """
    group = ListenerGroup(UNIXAddress("@kvd"), ())
    with capturedLogs() as events:
        assert open_control(Settings(), [group]) is None

    assert "unix:@kvd has no folder" in events[0]["error"]
