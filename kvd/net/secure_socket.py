"""
The server's end of a connection over TLS, a record at a time.

OpenSSL takes records from memory and puts there what is to be sent (`ssl.MemoryBIO`).
With the descriptor, it would read on as long as records come that bring nothing for the
application: a client that sends key updates without a pause would hold its process for
ever, inside one call. So this reads exactly one record from the descriptor, when all of
it has come. Whatever follows stays in the kernel, where the reactor finds it.

All connections of a process share the two memories, because every call leaves both of
them empty. So an idle connection has no buffers.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Callable, Mapping
from errno import EWOULDBLOCK
from typing import Any, Final, NamedTuple

from twisted.logger import Logger

from kvd.net.sockets import name_of

RECORD_BYTES: Final = 16 * 1024
"""
The most bytes in a record (RFC 8446 section 5.1).
"""

HEADER: Final = struct.Struct("!BHH")
"""
Of a record: its type, version and length.
"""

MOST_ENCRYPTED_BYTES: Final = RECORD_BYTES + 2048
"""
The greatest length in a header (RFC 5246 section 6.2.3). OpenSSL refuses a greater one,
given the header alone.
"""

MOST_WITHOUT_DATA: Final = 32
"""
How many records a client may send within `WITHOUT_DATA_SECONDS` that bring no bytes of
the application: key updates, warnings, empty ones. BoringSSL ends connections after as
many key updates in a row; clients send one for some terabytes.
"""

WITHOUT_DATA_SECONDS: Final = 60.0

_STEP_RECORDS: Final = 16
"""
How many records of a handshake to take at once. A client mostly sends one to four.
"""

_CHANGE_CIPHER_SPEC: Final = 20
"""
The type of a record after which another one always comes (RFC 5246 section 7.1; RFC
8446 appendix D.4).
"""

_incoming: Final = ssl.MemoryBIO()
_outgoing: Final = ssl.MemoryBIO()
_feed: Final = _incoming.write
_take: Final = _outgoing.read


class RecordFunctions(NamedTuple):
    """
    How a record is decrypted and encrypted, without a call of Python's own.
    """

    feed: Callable[[bytes], int]
    """Takes a record as it has come, all of it."""
    read: Callable[..., Any]
    """Gives what is in it: as `ssl.SSLObject.read`."""
    write: Callable[[bytes | memoryview], int]
    """Takes what is to be in a record."""
    take: Callable[[], bytes]
    """Gives it as it is to be sent."""


class SecureSocket:
    """
    What a transport has in place of its socket from the first record on: `send` and
    `shutdown`, and what is beyond those of a `socket.socket`, are over TLS, all else is
    the socket's own. (A socket made anew from the descriptor took two system calls, and
    a twentieth of the time of a connection with one request.)
    """

    _log = Logger()

    def __init__(
        self, connection: socket.socket, context: ssl.SSLContext, peer: Any
    ) -> None:
        """
        Args:
            connection: Non-blocking; this object's from now on.
            context: What the connections to an address share.
            peer: What ``accept`` said of the client, for a log.
        """
        self._connection = connection
        self.recv = connection.recv
        self.fileno = connection.fileno
        self.close = connection.close
        self._tls = context.wrap_bio(_incoming, _outgoing, server_side=True)
        # The wrapper around it adds nothing but a call.
        direct: Any = getattr(self._tls, "_sslobj", None) or self._tls
        self.functions = RecordFunctions(_feed, direct.read, direct.write, _take)
        self._do_handshake: Callable[[], None] = direct.do_handshake
        self.ended = False
        """Whether the client sends no more."""
        self.begun = b""
        """What has come of the next record; mostly nothing."""
        self.unsent = b""
        """What is encrypted and the socket has not taken."""
        self._unsent_data = 0
        self._is_held = False
        """Whether `unsent` waits for the first reply."""
        self._has_said_end = False
        self._peer = peer
        self._without_data = 0
        self._counted_since = 0.0

    # -- as the socket --------------------------------------------------------

    @property
    def family(self) -> int:
        """
        See `socket.socket.family`.
        """
        return self._connection.family

    def getsockname(self) -> Any:
        """
        See `socket.socket.getsockname`.
        """
        return self._connection.getsockname()

    def getsockopt(self, *arguments: Any) -> Any:
        """
        See `socket.socket.getsockopt`.
        """
        return self._connection.getsockopt(*arguments)

    def setsockopt(self, *arguments: Any) -> None:
        """
        See `socket.socket.setsockopt`.
        """
        self._connection.setsockopt(*arguments)

    # -- receiving ------------------------------------------------------------

    def receive(self) -> bytes | None:
        """
        Take a record.

        Returns:
            Its bytes; empty at the end; None if no whole record has come.

        Raises:
            OSError: There will be no more: the connection is broken, or the client
                sends too many records without data.
        """
        read = self.functions.read
        while self._take_record() is not None:
            try:
                data: bytes = read(RECORD_BYTES)
            except OSError as error:
                self.without_data(error)
                continue
            if not data:
                self._settle()
                self.ended = True
            return data
        return b"" if self.ended else None

    def receive_records(self, most: int) -> bytes | None:
        """
        Take all records that have come; see `receive`.

        Args:
            most: Stop after this many bytes.
        """
        data = self.receive()
        if data is None or len(data) < RECORD_BYTES:
            return data
        pieces = [data]
        size = len(data)
        # A shorter one is mostly the last of what was sent at once.
        while size < most and len(data) == RECORD_BYTES:
            try:
                more = self.receive()
            except OSError:
                # The next call meets it again.
                break
            if not more:
                break
            data = more
            pieces.append(data)
            size += len(data)
        return b"".join(pieces)

    def without_data(self, error: BaseException) -> None:
        """
        A record has brought no data, but this.

        Raises:
            OSError: The connection ends: the error itself, unless OpenSSL wants the
                next record; or there were too many such records.
        """
        self._settle()
        if not isinstance(error, ssl.SSLWantReadError):
            raise error
        now = time.monotonic()
        if now - self._counted_since > WITHOUT_DATA_SECONDS:
            self._counted_since, self._without_data = now, 0
        self._without_data += 1
        if self._without_data > MOST_WITHOUT_DATA:
            peer = name_of(self._peer)
            self._log.info(
                "a connection ends: {peer} has sent more than {count} records over TLS"
                " without data, such as key updates, within {seconds:g} seconds",
                peer=peer,
                count=MOST_WITHOUT_DATA,
                seconds=WITHOUT_DATA_SECONDS,
                kind="records without data",
            )
            raise ConnectionAbortedError(f"{peer} sends records without data")

    def _take_record(self) -> int | None:
        """
        Give the next record to OpenSSL, if all of it has come.

        Returns:
            The type of it; None if it has not, and then `ended` says whether the client
            sends no more.
        """
        begun = self.begun
        try:
            while missing := _missing(begun):
                came = self.recv(missing)
                if not came:
                    self.ended = True
                    return None
                begun += came
        except BlockingIOError:
            return None
        finally:
            self.begun = begun
        self.begun = b""
        _feed(begun)
        return begun[0]

    def _settle(self, *, holds: bool = False) -> bool:
        """
        Leave the memories empty: send what OpenSSL has to say, such as an alert, as far
        as the socket takes it, and drop what it did not read of a record that it has
        refused.

        Args:
            holds: Send it with the first reply; nothing is unsent yet.

        Returns:
            Whether OpenSSL had something to say.
        """
        if _incoming.pending:
            _incoming.read()
        if not _outgoing.pending:
            return False
        if holds:
            self.unsent, self._is_held = _take(), True
            return True
        try:
            self._send(_take())
        except OSError:
            # The next send meets the error again.
            pass
        return True

    # -- the handshake --------------------------------------------------------

    def shake_hands(self) -> bool:
        """
        Go on with the handshake, as far as what has come allows, and no further than
        some records.

        Returns:
            Whether it is complete. What this end says last, such as a ticket for the
            session, waits for the first reply, whose request has mostly come already,
            or for `release`.

        Raises:
            ssl.SSLWantWriteError: The socket has to take something first.
            OSError: It has failed, or the client is gone.
        """
        if self.unsent and not self._send(b""):
            raise ssl.SSLWantWriteError
        for _ in range(_STEP_RECORDS):
            kind = self._take_record()
            if kind is None:
                break
            if kind == _CHANGE_CIPHER_SPEC:
                # A step of its own would find nothing to do.
                self._take_record()
            is_complete = has_asked = False
            try:
                self._do_handshake()
                is_complete = True
            except ssl.SSLWantReadError:
                pass
            finally:
                has_asked = self._settle(holds=is_complete)
            if is_complete:
                return True
            if self.unsent:
                raise ssl.SSLWantWriteError
            if has_asked:
                # The client reads that before it goes on.
                break
        if self.ended:
            raise ConnectionResetError("the client has left")
        return False

    def peer_certificate(self) -> Mapping[str, Any] | None:
        """
        See `ssl.SSLObject.getpeercert`.
        """
        return self._tls.getpeercert()

    # -- sending --------------------------------------------------------------

    def transmit(self, data: bytes | memoryview) -> int:
        """
        Send as many records as the socket takes.

        Returns:
            How many bytes were sent. The next `RECORD_BYTES` of them, or as many as
            there are, must be what is sent next: a part of them may be on its way.

        Raises:
            ConnectionError: The connection is broken.
        """
        sent = 0
        if self.unsent and not self._is_held:
            if not self._send(b""):
                return 0
            # These were encrypted before.
            sent, self._unsent_data = self._unsent_data, 0
        size = len(data)
        view = memoryview(data)
        try:
            while sent < size:
                piece = view[sent : sent + RECORD_BYTES]
                count = len(piece)
                self.functions.write(piece)
                if not self._send(_take()):
                    self._unsent_data = count
                    break
                sent += count
        except ssl.SSLError as error:
            self._settle()
            raise ConnectionResetError(*error.args) from error
        return sent

    def hold(self, rest: bytes, size: int) -> None:
        """
        The socket has not taken all of a record that was encrypted elsewhere.

        Args:
            rest: What it has not taken.
            size: How many bytes are in the record; they must be what is sent next.
        """
        self.unsent, self._unsent_data = rest, size

    def send(self, data: Any, flags: int = 0) -> int:
        """
        See `socket.socket.send`.
        """
        sent = self.transmit(data)
        if not sent and data:
            raise BlockingIOError(EWOULDBLOCK, "the socket takes no record now")
        return sent

    def _send(self, more: bytes) -> bool:
        """
        Send what is encrypted, this behind all that is unsent.

        Returns:
            Whether nothing is unsent.
        """
        data = self.unsent + more if self.unsent else more
        self.unsent, self._is_held = data, False
        try:
            count = self._connection.send(data)
        except BlockingIOError:
            return False
        self.unsent = data[count:]
        return count == len(data)

    def release(self) -> None:
        """
        Send what waits for the first reply, as far as the socket takes it.
        """
        if self._is_held:
            try:
                self._send(b"")
            except OSError:
                # The next send meets the error again.
                pass

    def shutdown(self, how: int) -> None:
        """
        See `socket.socket.shutdown`; first tells the client that nothing more comes
        (``close_notify``), unless it has not got all of a record. What is read
        afterwards is not decrypted.
        """
        self.release()
        if not self.unsent and not self._has_said_end:
            self._has_said_end = True
            try:
                self._tls.unwrap()
            except (OSError, ValueError):
                # The client has not told the same yet, or the handshake was not
                # complete.
                pass
            self._settle()
        self._connection.shutdown(how)


def _missing(begun: bytes) -> int:
    """
    How many bytes are missing of a record, or of its header first.
    """
    if len(begun) < HEADER.size:
        return HEADER.size - len(begun)
    _, _, length = HEADER.unpack_from(begun)
    if length > MOST_ENCRYPTED_BYTES:
        return 0
    return int(HEADER.size + length - len(begun))
