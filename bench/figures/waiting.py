"""
How long a normal client waits.
"""

from __future__ import annotations

import socket
import ssl
import time
from typing import Final

from bench.figures.daemon import ask
from kvd.lab.measuring.figures import percentile

PAUSE_SECONDS: Final = 0.01
VALUE_BYTES: Final = 4096
TIMEOUT_SECONDS: Final = 10.0
"""
A client that has no reply by then gives up.
"""


def waits(
    port: int, seconds: float, context: ssl.SSLContext | None = None
) -> list[float]:
    """
    The time of each GET of ``/small``; for half of them, including the connection.

    Args:
        port: Of the server.
        seconds: For how long to ask.
        context: Ask over TLS.
    """
    times = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        try:
            with _connected(port, context) as sock:
                for _ in range(2):
                    _get(sock)
                    times.append(time.monotonic() - began)
                    time.sleep(PAUSE_SECONDS)
                    began = time.monotonic()
        except TimeoutError:
            times.append(time.monotonic() - began)
    return times


def _connected(port: int, context: ssl.SSLContext | None) -> socket.socket:
    plain = socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS)
    if context is None:
        return plain
    try:
        return context.wrap_socket(plain)
    except BaseException:
        plain.close()
        raise


def _get(sock: socket.socket) -> None:
    ask(sock, "/small")
    reply = b""
    while len(reply.partition(b"\r\n\r\n")[2]) < VALUE_BYTES:
        piece = sock.recv(8192)
        if not piece:
            raise ConnectionError("the server closed the connection of a normal client")
        reply += piece


def show_waits(title: str, times: list[float]) -> float:
    """
    Print them, and give the 99th percentile, in seconds.
    """
    middle, most, longest = (percentile(times, share) for share in (0.5, 0.99, 1))
    print(
        f"{title}: a GET takes {middle * 1e3:.1f} ms at the median,"
        f" {most * 1e3:.1f} at p99, {longest * 1e3:.1f} at most ({len(times)} of them)",
        flush=True,
    )
    return most
