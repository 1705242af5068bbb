"""
The memory of an idle connection.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench.figures.daemon import ask, connect, memory_mib, show, store_small
from kvd.lab.measuring.daemon import daemon
from kvd.lab.measuring.processes import tree

CONNECTIONS: Final = 10_000


def measure_idle(folder: Path) -> None:
    """
    10,000 keep-alive connections over two workers, each after one small GET; the
    memory of all processes together, before and after.
    """
    for policy in ("gated", "reuseport", "roundrobin"):
        options = (
            "--procs=2",
            f"--policy={policy}",
            f"--max-connections={CONNECTIONS}",
        )
        with daemon(*options, cwd=str(folder)) as served, ExitStack() as opened:
            store_small(served.port, "/small")
            for _ in range(100):
                with ExitStack() as once:
                    _connect_and_ask(served.port, once)
            before = sum(map(memory_mib, tree(served.pid)))
            for _ in range(CONNECTIONS):
                _connect_and_ask(served.port, opened)
            time.sleep(2)  # By then the timeouts of all connections are scheduled.
            grown = sum(map(memory_mib, tree(served.pid))) - before
            each = grown * 1024 / CONNECTIONS
        show(f"idle: {CONNECTIONS:,} connections, {policy}", each, "KiB each", 4)


def _connect_and_ask(port: int, opened: ExitStack) -> None:
    sock = opened.enter_context(connect(port))
    ask(sock, "/small")
    missing = 4096
    head, _, body = sock.recv(8192).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    missing -= len(body)
    while missing:
        missing -= len(sock.recv(missing))
