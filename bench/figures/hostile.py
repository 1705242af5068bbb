"""
How long a normal client waits while other clients cause as much work as they can.

``OTHER_PYTHON=/path/to/bin/python`` names the interpreter of another installation of
kvd, which is then measured too, and ``ATTACKS="chunks gets"`` the kinds of attack.
"""

from __future__ import annotations

import os
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
from bench.figures.daemon import store_small
from bench.figures.waiting import show_waits, waits
from bench.servers import Nginx
from kvd.lab.measuring.daemon import daemon
from kvd.lab.measuring.processes import kill_group, started

ATTACKERS: Final = 20
WORKERS: Final = 2
WARM_UP_SECONDS: Final = 1.0
ATTACK_SECONDS: Final = 8.0
AFTER_SECONDS: Final = 4.0

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
            show_waits(title, waits(port, ATTACK_SECONDS))
        show_waits(f"{title}, after they left", waits(port, AFTER_SECONDS))


@contextmanager
def _attackers(kind: str, port: int) -> Iterator[None]:
    command = [sys.executable, "-m", "bench.figures.attackers"]
    command += [kind, str(port), str(ATTACKERS)]
    with started(command, kill_group, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
