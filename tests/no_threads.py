"""
A process that can start no more threads.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from unittest import mock


def no_more_threads() -> AbstractContextManager[object]:
    """
    No thread can be started meanwhile.
    """
    refused = RuntimeError("can't start new thread")
    return mock.patch("threading.Thread.start", side_effect=refused)
