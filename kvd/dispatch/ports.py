"""
The ports from which the supervisor accepts connections for workers.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.logger import Logger

from kvd.dispatch.primitives import Accepted, accept
from kvd.ipc.messages import MAX_DESCRIPTORS
from kvd.net.factory import ServerFactory
from kvd.net.listening import ListenerGroup
from kvd.net.port import Port

ADOPT_SECONDS: Final = 1.0
"""
Before another try to adopt a socket, if the supervisor itself is out of descriptors.
"""


class _HoldingFactory(ServerFactory):
    """
    Keeps what the supervisor accepts from a socket, for workers.
    """

    batch_size = MAX_DESCRIPTORS

    def __init__(
        self,
        held: deque[Accepted],
        dispatch: Callable[[], None],
        group: int,
        listeners: dict[int, int],
    ) -> None:
        self._held = held
        self._dispatch = dispatch
        self._group = group
        self._listeners = listeners

    def accept(
        self, listener: socket.socket, count: int, stays: int
    ) -> tuple[int, int, int, Any]:
        """
        See `ServerFactory.accept`.
        """
        descriptor = listener.fileno()
        try:
            accepted = accept(descriptor, self._group, count)
        except BlockingIOError:
            raise
        except OSError:
            # Until the next success the port is asked first: else it would not learn
            # of it, and so would not log the next error.
            self._listeners.pop(descriptor, None)
            raise
        self._listeners[descriptor] = self._group
        self._held += accepted
        return len(accepted), 0, -1, None

    def batch_accepted(self) -> None:
        """
        See `ServerFactory.batch_accepted`.
        """
        self._dispatch()


class Ports:
    """
    Adopts the sockets of all addresses (`IReactorSocket.adoptStreamPort`).
    """

    _log = Logger()

    def __init__(
        self,
        groups: Sequence[ListenerGroup],
        held: deque[Accepted],
        dispatch: Callable[[], None],
        reactor: Any,
    ) -> None:
        """
        Args:
            groups: The listening sockets.
            held: Gets what is accepted.
            dispatch: Called after each batch.
            reactor: Adopts the sockets (`kvd.net.reactor`).
        """
        self.groups = groups
        self._held = held
        self._dispatch = dispatch
        self._reactor = reactor
        self._ports: dict[tuple[int, int], Port] = {}
        self._again: Any = None
        self.accepting = False
        self.listeners: dict[int, int] = {}
        """The address of each port, by the port's own descriptor."""

    def adopt(self) -> None:
        """
        Adopt the sockets that are not adopted yet.
        """
        self._adopt_no_more()
        try:
            for number, group in enumerate(self.groups):
                for member, sock in enumerate(group.members):
                    if (number, member) not in self._ports:
                        self._ports[number, member] = self._adopt(sock, number)
        except OSError as error:
            self._log.error(
                "connections at some sockets wait for now: {error}",
                error=error.strerror,
            )
            self._again = self._reactor.callLater(ADOPT_SECONDS, self._adopt_again)

    def _adopt_again(self) -> None:
        self._again = None
        self.adopt()

    def _adopt(self, sock: socket.socket, group: int) -> Port:
        port: Port = self._reactor.adoptStreamPort(
            sock.fileno(),
            sock.family,
            _HoldingFactory(self._held, self._dispatch, group, self.listeners),
        )
        self.listeners[port.fileno()] = group
        if not self.accepting:
            port.pauseProducing()
        return port

    def _adopt_no_more(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None

    def accept(self, accepting: bool) -> None:
        """
        Accept from now on, or no more.
        """
        self.accepting = accepting
        for port in self._ports.values():
            if accepting:
                port.resumeProducing()
            else:
                port.pauseProducing()

    def empty(self) -> None:
        """
        Accept all that waits, but not at sockets that another process keeps.
        """
        for (number, member), port in self._ports.items():
            if member >= self.groups[number].given:
                port.empty()

    def close(self) -> None:
        """
        Close the ports and the sockets.
        """
        self._adopt_no_more()
        self.listeners.clear()
        for port in self._ports.values():
            port.stopListening()
        for group in self.groups:
            group.close()
