"""
Wakes the processes that accept from one socket.

If several processes wait for connections at a socket, the kernel wakes all of them for
each one; all but one find nothing, and their caches are cold by the next one. With
``EPOLLEXCLUSIVE`` (epoll_ctl(2)) it wakes one that waits. But then a connection that
this process does not accept would be left to a chance: until another one comes, nobody
else wakes. So whoever leaves a connection rings the bell, which wakes all.

A bell is an eventfd(2) that nobody reads. All processes watch it edge-triggered, so
each ring is one event for each of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from select import EPOLLET, EPOLLIN
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer


def make_bell() -> int:
    """
    The descriptor of a new bell, which the caller closes.
    """
    return os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)


def ring(bell: int) -> None:
    """
    Wake all processes that watch a bell.
    """
    # It could block after 2**64 rings.
    os.eventfd_write(bell, 1)


@implementer(IReadDescriptor)
class Bell:
    """
    A bell as one process has it.
    """

    def __init__(self, descriptor: int, rung: Callable[[], None], reactor: Any) -> None:
        """
        Args:
            descriptor: Owned by this, also if it cannot be watched.
            rung: Called when a process has rung, this one included.
            reactor: A `kvd.net.reactor.WorkerReactor`.
        """
        self._descriptor = descriptor
        self._rung = rung
        self._reactor = reactor
        try:
            reactor.watch(self, EPOLLIN | EPOLLET)
        except BaseException:
            os.close(descriptor)
            raise

    def ring(self) -> None:
        """
        Wake all processes.
        """
        ring(self._descriptor)

    def fileno(self) -> int:
        """
        See `IReadDescriptor`.
        """
        return self._descriptor

    def logPrefix(self) -> str:
        """
        See `ILoggingContext`.
        """
        return "bell"

    def doRead(self) -> None:
        """
        See `IReadDescriptor`.
        """
        self._rung()

    def close(self) -> None:
        """
        Watch it no longer.
        """
        if self._descriptor != -1:
            self._reactor.removeReader(self)
            os.close(self._descriptor)
            self._descriptor = -1

    def connectionLost(self, reason: object) -> None:
        """
        See `IReadDescriptor`: the reactor gives it up.
        """
        self.close()
