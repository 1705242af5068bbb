"""
The transport of a connection over TLS.

It begins as a plain one of which nothing has been read. The first byte says whether the
client speaks TLS. Only when its first record is there is anything of OpenSSL's, and
until then nobody wakes for it: so a client that connects and sends nothing, or byte by
byte, costs no more than elsewhere (OpenSSL needs 70 KiB for a handshake). `handshake`
goes on with the handshake whenever the client has sent something, until it is complete;
from then on all bytes that are written and read are those of the records.

After this end has said that it sends no more, what still comes is thrown away, and
nobody decrypts it.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorFDSet
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.protocol import Protocol
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure

from kvd.errors import HandshakeFailed, TLSExpected
from kvd.net.secure_socket import HEADER, RECORD_BYTES, SecureSocket
from kvd.net.sockets import has_ended
from kvd.net.tls import end_of, handshake_failure, user_of
from kvd.net.transport import (
    BODY_BYTES,
    HEAD_BYTES,
    ServerTransport,
)

FILE_BYTES: Final = 8 * RECORD_BYTES
"""
How much of a file is read at once: whole records. (40 MB with reads of 16 KiB took a
fifth more of CPU time.)
"""

MAX_HELLO_BYTES: Final = 4096
"""
The most of the first record that is waited for before OpenSSL reads it; the kernel has
room for as much. With keys against quantum computers, clients send 1.8 kB.
"""

_HANDSHAKE: Final = 0x16
"""
The first byte of a connection that speaks TLS: the type of its record (RFC 8446 section
5.1).
"""


class TLSTransport(ServerTransport):
    """
    See the module's docstring. Beyond `ServerTransport`, there is `handshake`, which
    the protocol has to call, by `read_by`, until it returns True; nothing may be
    written before, unless it raises `TLSExpected`.
    """

    needs_handshake = True

    def __init__(
        self,
        connection: socket.socket,
        protocol: Protocol,
        peer: Any,
        reactor: IReactorFDSet,
        context: ssl.SSLContext,
    ) -> None:
        """
        Args:
            context: Of the address that the client has connected to.
        """
        super().__init__(connection, protocol, peer, reactor)
        self._context = context
        self._shaking: SecureSocket | None = None
        self._told_end = False

    def begin(self, first: Callable[[], Any] | None = None) -> None:
        """
        See `ServerTransport.begin`. An end is not read again, if it came in a record.
        """
        super().begin(first)
        if self.secure is not None and self.secure.ended and self.connected:
            reactor: Any = self.reactor
            reactor.callLater(0, self._end)

    def _end(self) -> None:
        if self.connected:
            self.stopReading()
            self.readConnectionLost(Failure(ConnectionDone()))

    @property
    def is_shaking(self) -> bool:  # type: ignore[override]
        """
        See `ServerTransport.is_shaking`.
        """
        return self._shaking is not None

    def handshake(self) -> bool:
        """
        Go on with the handshake, as far as what has come allows.

        Returns:
            Whether it is complete.

        Raises:
            TLSExpected: The client speaks plain HTTP. It can be answered in plain, and
                its request has not been read.
            HandshakeFailed: Client and kvd do not agree.
            OSError: The client is gone.
        """
        shaking = self._shaking
        if shaking is None:
            first = self._first_record()
            if first is None:
                return False
            shaking = self._shaking = SecureSocket(
                self.socket, self._context, self.client
            )
            shaking.begun = first
            self.socket = shaking  # type: ignore[assignment]  # has what is used of one
        try:
            if not shaking.shake_hands():
                return False
        except ssl.SSLWantWriteError:
            self.after_flush(self.read_again)
            return False
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            raise ConnectionResetError(*error.args) from error
        except ssl.SSLError as error:
            raise handshake_failure(error) from error
        # None where clients are not asked for one, which is sooner known from here.
        certificate = shaking.peer_certificate()
        if certificate is not None:
            self.peer_expires = end_of(certificate)
            self.peer_user = user_of(certificate)
        self.secure, self._shaking = shaking, None
        return True

    def _first_record(self) -> bytes | None:
        """
        Take it, or as much of it as a client may send first; None if that has not come:
        the reactor wakes when it has.
        """
        try:
            came = self.socket.recv(HEADER.size + MAX_HELLO_BYTES, socket.MSG_PEEK)
        except BlockingIOError:
            return None
        _check_first(came)
        needed = HEADER.size
        if len(came) >= needed:
            _, _, length = HEADER.unpack_from(came)
            needed += min(length, MAX_HELLO_BYTES)
        # Over a Unix socket it would wake for each byte.
        if len(came) < needed and self.socket.family != socket.AF_UNIX:
            if has_ended(self.socket):
                raise ConnectionResetError("the client has left")
            self.set_low_water_mark(needed)
            return None
        self.set_low_water_mark(1)
        return self.socket.recv(needed)

    def read(self) -> Any:
        """
        See `ServerTransport.read`.
        """
        secure = self.secure
        if secure is None or self._writeDisconnected:
            return super().read()
        try:
            # A head mostly comes alone.
            is_body = self.bufferSize > HEAD_BYTES
            data = secure.receive_records(BODY_BYTES) if is_body else secure.receive()
        except OSError:
            return CONNECTION_LOST
        return None if data is None else self._dataReceived(data)

    def most_unread(self) -> int:
        """
        See `ServerTransport.most_unread`.
        """
        begun = 0 if self.secure is None else len(self.secure.begun)
        return begun + super().most_unread()

    def _read_with(self, reader: Any) -> Any:
        result = super()._read_with(reader)
        secure = self.secure
        if (
            result is None
            and secure is not None
            and secure.ended
            and not self._told_end
            and self.connected
        ):
            # The reactor may never report it: it came together with other bytes.
            self._told_end = True
            return CONNECTION_DONE
        return result

    def send_file(self, descriptor: int, offset: int, count: int) -> int | None:
        """
        See `ServerTransport.send_file`. The bytes are read and encrypted. At most a
        record is queued, so a slow reader costs no more memory than that.
        """
        secure = self.secure
        if secure is None or self.queued or not self.connected:
            return 0
        sent = 0
        while sent < count and not self.queued:
            data = os.pread(descriptor, min(count - sent, FILE_BYTES), offset + sent)
            if not data:
                return sent or None
            try:
                taken = secure.transmit(data)
            except ConnectionError:
                self.peer_left = True
                return sent
            self.bytes_sent += taken
            if taken < len(data):
                # A part of it may be on its way, so it must be what follows.
                record = data[taken : taken + RECORD_BYTES]
                Connection.write(self, record)
                taken += len(record)
            sent += taken
        return sent


def _check_first(first: bytes) -> None:
    if not first:
        raise ConnectionResetError("the client has sent nothing")
    if first[0] == _HANDSHAKE:
        return
    if first[:1].isalpha():
        raise TLSExpected(
            "This address speaks TLS, and the request came in plain: use https:// in"
            " place of http://."
        )
    raise HandshakeFailed("what the client sends is neither TLS nor HTTP")
