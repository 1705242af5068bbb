"""
A small GET of kvd and of nginx.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

from bench.building import build
from bench.figures.daemon import store_small
from bench.servers import Nginx
from kvd.lab.measuring.daemon import daemon
from kvd.lab.measuring.figures import median, ratios
from kvd.lab.measuring.processes import cpu_seconds, tree

ROUNDS: Final = 5
SECONDS: Final = 3


def load(port: int, target: str) -> float:
    """
    Send GETs over 32 connections for some seconds; gives requests/s.
    """
    command = [
        "wrk",
        "-t1",
        "-c32",
        f"-d{SECONDS}s",
        f"http://127.0.0.1:{port}{target}",
    ]
    said = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    assert "Non-2xx" not in said.stdout, said.stdout
    matched = re.search(r"(\d+) requests in ([\d.]+)(s|m)", said.stdout)
    assert matched, said.stdout
    return int(matched[1]) / float(matched[2])


def measure_get(folder: Path) -> None:
    """
    GET of 4 KiB over 32 keep-alive connections, one worker each, in turns.
    """
    (folder / "values").mkdir()
    programs = build(Path("build", "bench", "programs").absolute())
    store = f"--store=file:{folder}/values"
    with (
        daemon("--procs=1", store) as kvd,
        Nginx(workers=1).start(programs, folder) as nginx,
    ):
        store_small(kvd.port, "/small")
        servers = {"kvd": (kvd.port, tree(kvd.pid)), "nginx": (nginx.port, nginx.pids)}
        figures: dict[str, list[tuple[float, float]]] = {name: [] for name in servers}
        for _ in range(ROUNDS):
            for name, (port, pids) in servers.items():
                before = cpu_seconds(pids)
                rate = load(port, "/small")
                spent = cpu_seconds(pids) - before
                figures[name].append((rate, spent / (rate * SECONDS) * 1e6))
    costs = {name: [cost for _, cost in rounds] for name, rounds in figures.items()}
    for name, rounds in figures.items():
        rate = median([rate for rate, _ in rounds])
        cost = median(costs[name])
        print(f"get: {name}: {rate:.0f} requests/s, {cost:.1f} us of CPU each")
    ratio = median(ratios(costs["kvd"], costs["nginx"]))
    print(f"get: kvd / nginx, CPU per request: {ratio:.2f}")
