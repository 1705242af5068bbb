"""
Ports that a test may listen on.
"""

from __future__ import annotations

import atexit
import random
import socket
from contextlib import ExitStack

_PORTS = range(10_000, 30_000)
"""
Below those that the kernel gives to clients (``ip_local_port_range``, from 32768): a
listener cannot have a port that a connection has.
"""

_claims = ExitStack()
"""
Held until this process ends.
"""
atexit.register(_claims.close)


def unused_port() -> int:
    """
    A port of this machine that is free, and that no other test gets, neither in this
    process nor in another: asking the kernel for one and closing it again would give
    two tests that run side by side the same.
    """
    for port in random.sample(_PORTS, len(_PORTS)):
        # An abstract name belongs to one socket of the machine (unix(7)).
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0kvd-test-port-{port}")
        except OSError:
            claim.close()
            continue
        _claims.enter_context(claim)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("no port that a test may use is free")
