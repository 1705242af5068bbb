"""
How long a normal client waits while other clients cause as much work as they can.

``OTHER_PYTHON=/path/to/bin/python`` names the interpreter of another installation of
kvd, which is then measured too, and ``ATTACKS="chunks gets"`` the kinds of attack.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from bench.building import build
from bench.figures.attackers import ATTACKS
from bench.figures.daemon import ask, store_small
from bench.servers import Nginx
from kvd.lab.measuring.daemon import daemon
from kvd.lab.measuring.figures import percentile
from kvd.lab.measuring.processes import kill_group, started

ATTACKERS: Final = 20
WORKERS: Final = 2
WARM_UP_SECONDS: Final = 1.0
ATTACK_SECONDS: Final = 8.0
AFTER_SECONDS: Final = 4.0
PAUSE_SECONDS: Final = 0.01
VALUE_BYTES: Final = 4096
TIMEOUT_SECONDS: Final = 10.0
"""
A client that has no reply by then gives up.
"""

_Start = Callable[[Path], AbstractContextManager[int]]
"""
A server in a folder; gives its port.
"""


def measure_hostile(folder: Path) -> None:
    """
    GETs of 4 KiB during 20 attackers of each kind, and after they have left.
    """
    for kind in os.environ.get("ATTACKS", " ".join(ATTACKS)).split():
        for name, start in _servers().items():
            with tempfile.TemporaryDirectory(dir=folder) as own:
                _measure(f"hostile: {kind}: {name}", kind, Path(own), start)


def _servers() -> dict[str, _Start]:
    servers: dict[str, _Start] = {"kvd": partial(_kvd, sys.executable)}
    if "OTHER_PYTHON" in os.environ:
        servers["other"] = partial(_kvd, os.environ["OTHER_PYTHON"])
    servers["nginx"] = _nginx
    return servers


@contextmanager
def _kvd(python: str, folder: Path) -> Iterator[int]:
    with daemon(f"--procs={WORKERS}", cwd=str(folder), python=python) as served:
        yield served.port


@contextmanager
def _nginx(folder: Path) -> Iterator[int]:
    programs = build(Path("build", "bench", "programs").absolute())
    with Nginx(workers=WORKERS).start(programs, folder) as served:
        yield served.port


def _measure(title: str, kind: str, folder: Path, start: _Start) -> None:
    with start(folder) as port:
        store_small(port, "/small")
        with _attackers(kind, port):
            time.sleep(WARM_UP_SECONDS)
            _show(title, _waits(port, ATTACK_SECONDS))
        _show(f"{title}, after they left", _waits(port, AFTER_SECONDS))


@contextmanager
def _attackers(kind: str, port: int) -> Iterator[None]:
    command = [sys.executable, "-m", "bench.figures.attackers"]
    command += [kind, str(port), str(ATTACKERS)]
    with started(command, kill_group, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield


def _waits(port: int, seconds: float) -> list[float]:
    """
    The time of each GET; for half of them, including the connection.
    """
    waits = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        with socket.socket() as sock:
            sock.settimeout(TIMEOUT_SECONDS)
            try:
                sock.connect(("127.0.0.1", port))
                for _ in range(2):
                    _get(sock)
                    waits.append(time.monotonic() - began)
                    time.sleep(PAUSE_SECONDS)
                    began = time.monotonic()
            except TimeoutError:
                waits.append(time.monotonic() - began)
    return waits


def _get(sock: socket.socket) -> None:
    ask(sock, "/small")
    reply = b""
    while len(reply.partition(b"\r\n\r\n")[2]) < VALUE_BYTES:
        piece = sock.recv(8192)
        if not piece:
            raise ConnectionError("the server closed the connection of a normal client")
        reply += piece


def _show(title: str, waits: list[float]) -> None:
    middle, most, longest = (percentile(waits, share) * 1e3 for share in (0.5, 0.99, 1))
    print(
        f"{title}: a GET takes {middle:.1f} ms at the median, {most:.1f} at p99,"
        f" {longest:.1f} at most ({len(waits)} of them)",
        flush=True,
    )
