"""
Tests for `kvd.accept_queue`, with the kernel's own word.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack

from kvd.accept_queue import AcceptQueue, accept_queue


def test_it_is_as_long_as_nobody_accepts() -> None:
    """
    And shorter by each that is accepted.
    """
    with ExitStack() as stack:
        listener = stack.enter_context(
            socket.create_server(("127.0.0.1", 0), backlog=7)
        )
        assert AcceptQueue(0, 7) == accept_queue(listener)

        for _ in range(3):
            stack.enter_context(socket.create_connection(listener.getsockname()))
        assert AcceptQueue(3, 7) == accept_queue(listener)

        listener.accept()[0].close()
        assert AcceptQueue(2, 7) == accept_queue(listener)


def test_of_a_unix_socket_nothing_is_known() -> None:
    """
    The kernel does not tell.
    """
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("")
        listener.listen()

        assert accept_queue(listener) is None
