"""
Clients that speak TLS to a connection under test.
"""

from __future__ import annotations

import re
import socket
import ssl
import tempfile
from functools import cache, partial
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from twisted.internet.protocol import Protocol

from kvd.net.tls import make_context
from kvd.net.tls_transport import TLSTransport
from kvd.net.transport import serve_connection
from tests.certificates import authority, credentials
from tests.stepped import Client, SteppedReactor, tcp_pair


class ClientSocket(ssl.SSLSocket):
    """
    The client's end, as a socket that does not block.
    """

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        try:
            return super().recv(buflen, flags)
        except ssl.SSLWantReadError:
            raise BlockingIOError from None
        except ssl.SSLZeroReturnError:
            # Both ends have said so.
            return b""

    def send(self, data: Any, flags: int = 0) -> int:
        try:
            return super().send(data, flags)
        except ssl.SSLWantWriteError:
            raise BlockingIOError from None
        except ssl.SSLError as error:
            # The server has ended.
            raise BrokenPipeError from error

    def sendall(self, data: Any, flags: int = 0) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self.send(rest) :]

    def shutdown(self, how: int) -> None:
        # Below TLS, so that it can still be read.
        socket.socket.shutdown(self, how)


@cache
def server_context() -> ssl.SSLContext:
    """
    What the connections under test share.
    """
    return make_context(credentials())


def client_context() -> ssl.SSLContext:
    """
    A client that knows the authority of `server_context`.
    """
    context = ssl.create_default_context(cadata=authority().cert_pem)
    context.sslsocket_class = ClientSocket
    return context


def serve(
    reactor: SteppedReactor,
    protocol: Protocol,
    near: socket.socket,
    context: ssl.SSLContext | None = None,
) -> None:
    """
    Serve a connection over TLS.
    """
    near.setblocking(False)
    if near.family != socket.AF_UNIX:
        # As on every connection of a port.
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    make_transport = partial(TLSTransport, context=context or server_context())
    serve_connection(near, "", protocol, reactor, make_transport=make_transport)
    reactor.settle()


def shake_hands(reactor: SteppedReactor, client: ssl.SSLSocket) -> None:
    """
    Complete a handshake.

    Raises:
        ssl.SSLError: It fails.
    """
    for _ in range(20):
        try:
            client.do_handshake()
        except ssl.SSLWantReadError:
            reactor.settle()
        else:
            reactor.settle()
            return
    raise AssertionError("the handshake does not end")


def connect(
    reactor: SteppedReactor,
    protocol: Protocol,
    over_tcp: bool = False,
    window: int | None = None,
) -> Client:
    """
    As `tests.stepped.connect`, over TLS.
    """
    near, far = tcp_pair(window) if over_tcp else socket.socketpair()
    serve(reactor, protocol, near)
    far.setblocking(False)
    client = client_context().wrap_socket(
        far, do_handshake_on_connect=False, server_hostname="localhost"
    )
    shake_hands(reactor, client)
    return Client(reactor, client)


HANDSHAKE, DATA = 22, 23
"""
Types of what is in a record (RFC 8446 section 5.1).
"""

KEY_UPDATE = bytes((24, 0, 0, 1, 0))
"""
The message (section 4.6.3) of a client that asks for none in return.
"""


class RawClient:
    """
    A client over TLS 1.3 that encrypts its records by itself, once the handshake is
    complete: so it may send what no library would.
    """

    def __init__(self, reactor: SteppedReactor, far: socket.socket) -> None:
        """
        Args:
            far: The client's end of a connection that is served over TLS.
        """
        context = client_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder, "keys")
            context.keylog_filename = str(log)
            self.socket = context.wrap_socket(
                far, do_handshake_on_connect=False, server_hostname="localhost"
            )
            shake_hands(reactor, self.socket)
            found = re.search(r"CLIENT_TRAFFIC_SECRET_0 \S+ (\S+)", log.read_text())
        cipher = self.socket.cipher()
        assert cipher is not None
        assert cipher[0] == "TLS_AES_256_GCM_SHA384"
        assert found is not None
        self._use(bytes.fromhex(found[1]))

    def _use(self, secret: bytes) -> None:
        self._secret, self._count = secret, 0
        self._key = AESGCM(_expand(secret, b"key", 32))
        self._nonce = int.from_bytes(_expand(secret, b"iv", 12), "big")

    def record(self, kind: int, data: bytes) -> bytes:
        """
        The next record; whatever it is, it must be sent.
        """
        length = len(data) + 1 + 16
        header = bytes((DATA, 3, 3)) + length.to_bytes(2, "big")
        nonce = (self._nonce ^ self._count).to_bytes(12, "big")
        self._count += 1
        return header + self._key.encrypt(nonce, data + bytes((kind,)), header)

    def key_update(self) -> bytes:
        """
        A record that says that the next one has other keys.
        """
        record = self.record(HANDSHAKE, KEY_UPDATE)
        self._use(_expand(self._secret, b"traffic upd", 48))
        return record


def _expand(secret: bytes, label: bytes, size: int) -> bytes:
    """
    ``HKDF-Expand-Label`` with an empty context (RFC 8446 section 7.1).
    """
    label = b"tls13 " + label
    info = size.to_bytes(2, "big") + bytes((len(label),)) + label + b"\0"
    return HKDFExpand(SHA384(), size, info).derive(secret)
