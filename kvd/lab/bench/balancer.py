"""
HAProxy before several daemons.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from kvd.lab.measuring.daemon import short_folder
from kvd.lab.measuring.errors import BenchFailed
from kvd.lab.measuring.processes import started, stop, tail, unused_port, wait_for

ALGORITHMS: Final[Mapping[str, str]] = {
    "ecmp": "random(1)",
    "roundrobin": "roundrobin",
    "leastconn": "leastconn",
    "random2": "random(2)",
}
"""
HAProxy's, by the balancers of `kvd.lab.simulate.balancing`; its ``source`` would give
all connections of this machine to one daemon.
"""

_START_SECONDS: Final = 10
# One thread: it counts exactly, as a balancer of the simulation does. Its random choice
# is a point on a ring, of which a server has more parts the larger its weight: with a
# weight of 1, one of two servers got far more connections than the other.
_SETTINGS: Final = """\
global
    nbthread 1
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen kvd
    bind 127.0.0.1:{port}
    balance {algorithm}
    default-server weight 200
"""


def settings(balancer: str, port: int, ports: Sequence[int]) -> str:
    """
    HAProxy's settings, on ``port`` before daemons on ``ports`` of this machine.
    """
    servers = [
        f"    server machine-{number} 127.0.0.1:{each}\n"
        for number, each in enumerate(ports)
    ]
    head = _SETTINGS.format(port=port, algorithm=ALGORITHMS[balancer])
    return head + "".join(servers)


@contextmanager
def balancing(balancer: str, ports: Sequence[int]) -> Iterator[int]:
    """
    HAProxy, from the moment at which it accepts; gives its port.

    Raises:
        BenchFailed: It is not installed, cannot balance in this way, or ended early.
    """
    if balancer not in ALGORITHMS:
        raise BenchFailed(
            f"{balancer} cannot be measured here; {', '.join(ALGORITHMS)} can"
        )
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if program is None:
        raise BenchFailed(
            "haproxy is not installed; on Debian: apt-get install haproxy"
        )
    port = unused_port()
    with short_folder() as folder:
        path, log = os.path.join(folder, "haproxy.cfg"), os.path.join(folder, "log")
        Path(path).write_text(settings(balancer, port, ports))
        command = [program, "-db", "-f", path]
        with (
            open(log, "wb") as output,
            started(command, stop, folder, stdout=output, stderr=output) as process,
        ):
            wait_for(
                lambda: _accepts(port) or process.poll() is not None, _START_SECONDS
            )
            if process.poll() is not None:
                raise BenchFailed("haproxy ended early", tail(log))
            yield port


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True
