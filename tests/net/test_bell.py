"""
Tests for `kvd.net.bell`.
"""

import errno
import os
from unittest import mock

import pytest

from kvd.net.bell import Bell, make_bell
from tests.descriptors import Descriptors


def test_bell_that_cannot_be_watched_is_not_left_open() -> None:
    """
    Where the kernel watches no more descriptors (epoll_ctl(2)).
    """
    bell = make_bell()
    opened = Descriptors("anon_inode:[eventfd]")
    reactor = mock.Mock()
    reactor.watch.side_effect = OSError(errno.ENOSPC, "no more")
    with pytest.raises(OSError, match="no more"):
        Bell(os.dup(bell), lambda: None, reactor)

    assert 0 == opened.more
    os.close(bell)
