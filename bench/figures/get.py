"""
A small GET beside nginx's.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.figures.daemon import kvd, store_small
from bench.processes import answers, cpu_seconds, tree, unused_port, wait_for

ROUNDS: Final = 5
SECONDS: Final = 3


@contextmanager
def nginx(folder: Path, port: int, workers: int) -> Iterator[int]:
    """
    An nginx that serves the files of a folder, and takes values; gives its process id.
    """
    config = folder / "nginx.conf"
    config.write_text(
        f"""
        daemon off; worker_processes {workers}; pid {folder}/nginx.pid;
        error_log {folder}/nginx.log; user root;
        events {{ worker_connections 1024; }}
        http {{
            access_log off; keepalive_requests 1000000000; sendfile on;
            client_max_body_size 0; client_body_temp_path {folder}/incoming;
            server {{
                listen 127.0.0.1:{port} reuseport; root {folder}/values;
                dav_methods PUT;
            }}
        }}
        """
    )
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    process = subprocess.Popen([program, "-c", str(config)])  # noqa: S603
    try:
        wait_for(lambda: answers(port))
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def load(port: int, target: str) -> float:
    """
    GETs over 32 connections for some seconds; requests/s.
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
    ours, theirs = unused_port(), unused_port()
    (folder / "values").mkdir(exist_ok=True)
    with (
        kvd(folder, ours, "--procs=1") as kvd_pid,
        nginx(folder, theirs, 1) as peer_pid,
    ):
        store_small(ours, "/small")
        figures: dict[str, list[tuple[float, float]]] = {"kvd": [], "nginx": []}
        for _ in range(ROUNDS):
            for name, port, pid in (
                ("kvd", ours, kvd_pid),
                ("nginx", theirs, peer_pid),
            ):
                pids = tree(pid)
                before = cpu_seconds(pids)
                rate = load(port, "/small")
                spent = cpu_seconds(pids) - before
                figures[name].append((rate, spent / (rate * SECONDS) * 1e6))
        for name, rows in figures.items():
            rate = statistics.median(row[0] for row in rows)
            cost = statistics.median(row[1] for row in rows)
            print(f"get: {name}: {rate:.0f} requests/s, {cost:.1f} us of CPU each")
        ratio = statistics.median(
            a[1] / b[1] for a, b in zip(figures["kvd"], figures["nginx"], strict=True)
        )
        print(f"get: kvd / nginx, CPU per request: {ratio:.2f}")
