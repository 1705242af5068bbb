"""
A channel: one end of a control socket, watched by a reactor.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.abstract import FileDescriptor
from twisted.logger import Logger

from kvd.ipc.messages import (
    BadMessage,
    Message,
    receive,
    rights_of,
    send,
    understand,
)

MAX_QUEUED: Final = 4096
"""
How many messages may wait. A process that lets more wait counts as gone.
"""

# The socket is full, too many descriptors are in flight (unix(7)), or memory is short.
_NOT_NOW: Final = frozenset(
    (errno.EAGAIN, errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM)
)

# The other side is gone. Reading reports that later.
_GONE: Final = frozenset((errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN))

# The message is invalid: its descriptors, or its length.
_INVALID: Final = frozenset((errno.EBADF, errno.EINVAL, errno.EMSGSIZE))


class Channel(FileDescriptor):
    """
    Sends and receives messages. Messages that the socket does not accept at once are
    queued, in order.
    """

    _log = Logger()

    def __init__(
        self,
        sock: socket.socket,
        received: Callable[[Message, list[int]], None],
        lost: Callable[[], None],
        reactor: Any,
    ) -> None:
        """
        Args:
            sock: One end of a ``SOCK_SEQPACKET`` pair; owned by this.
            received: Called with each message and the descriptors that came with it;
                owns the descriptors.
            lost: Called once, when the other side is gone; not after `close`.
            reactor: Watches the socket.
        """
        super().__init__(reactor)
        sock.setblocking(False)
        self._sock = sock
        self._received = received
        self._lost = lost
        self.queue: deque[tuple[Message, list[int]]] = deque()
        """The messages that wait; for others to look at."""
        self._open = True
        self.startReading()

    def fileno(self) -> int:
        return self._sock.fileno()

    def logPrefix(self) -> str:
        return "kvd"

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """
        Send a message with copies of descriptors. The message is dropped if the other
        side is gone, which `lost` reports.
        """
        if not self._open:
            return
        if self.offer(message, descriptors):
            return
        copies: list[int] = []
        try:
            for number in descriptors:
                copies.append(os.dup(number))
        except OSError as error:
            self._close_all(copies)
            self._give_up(f"{error.strerror}")
            return
        self.queue.append((message, copies))
        if len(self.queue) > MAX_QUEUED:
            self._give_up(f"{MAX_QUEUED} wait")
        else:
            self.startWriting()

    def _give_up(self, why: str | None) -> None:
        self._log.error(
            "a control socket takes no messages, and is given up: {why}", why=why
        )
        self._forget_queue()
        # Reading then reports the loss in a later event: a caller of `send` does not
        # expect to lose the channel during the call.
        self._sock.shutdown(socket.SHUT_RDWR)

    def offer(self, message: Message, descriptors: Sequence[int] = ()) -> bool:
        """
        Send a message if that is possible now.

        Returns:
            Whether it was sent, or never can be: the other side is gone or the socket
            has failed, which `lost` reports, or the message is invalid, which is
            logged.
        """
        if not self._open:
            return True
        return not self.queue and self._try_send(message, descriptors)

    def offer_packed(self, data: bytes, descriptors: Sequence[int]) -> bool:
        """
        As `offer`, with a message as `kvd.ipc.messages` encodes it, and at least one
        descriptor.
        """
        if not self._open:
            return True
        if self.queue:
            return False
        try:
            self._sock.sendmsg((data,), rights_of(descriptors))
        except OSError as error:
            return self._failed(error)
        return True

    def _try_send(self, message: Message, descriptors: Sequence[int]) -> bool:
        try:
            send(self._sock, message, descriptors)
        except OSError as error:
            return self._failed(error)
        except BadMessage:
            self._log.failure("a control message cannot be sent")
        return True

    def _failed(self, error: OSError) -> bool:
        """
        Called while an error of sending is handled.

        Returns:
            Whether the message never can be sent.
        """
        if error.errno in _NOT_NOW:
            return False
        if error.errno in _INVALID:
            self._log.failure("a control message cannot be sent")
        elif error.errno not in _GONE:
            # This message is lost, and the other side may wait for it.
            self._give_up(error.strerror)
        return True

    def doWrite(self) -> None:
        while self.queue and self._try_send(*self.queue[0]):
            # Unless the channel was given up.
            if self.queue:
                self._close_all(self.queue.popleft()[1])
        if not self.queue:
            self.stopWriting()

    def doRead(self) -> None:
        while self._open:
            try:
                came = receive(self._sock)
            except BlockingIOError:
                return
            except BadMessage:
                self._log.failure("a control message was not understood")
                came = None
            self._deal_with(came)

    def came(self, data: bytes, descriptors: list[int], flags: int) -> None:
        """
        Deal with a message that somebody else has read from the socket; see
        `kvd.ipc.messages.understand`.
        """
        try:
            came = understand(data, descriptors, flags)
        except BadMessage:
            self._log.failure("a control message was not understood")
            came = None
        try:
            self._deal_with(came)
        except Exception:
            # As the reactor does where `doRead` fails.
            self._log.failure("a control message cannot be handled")
            self._end()

    def _deal_with(self, came: tuple[Message, list[int]] | None) -> None:
        if came is None:
            self._end()
        else:
            self._received(*came)

    def connectionLost(self, reason: Any) -> None:
        self._end()

    def _end(self) -> None:
        if self._open:
            self.close()
            self._lost()

    def close(self) -> None:
        """
        Close this end. The other side notices.
        """
        if not self._open:
            return
        self._open = False
        self.stopReading()
        self.stopWriting()
        self._sock.close()
        self._forget_queue()

    def _forget_queue(self) -> None:
        for _, descriptors in self.queue:
            self._close_all(descriptors)
        self.queue.clear()

    @staticmethod
    def _close_all(descriptors: Sequence[int]) -> None:
        for descriptor in descriptors:
            os.close(descriptor)
