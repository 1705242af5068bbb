"""
The figures that kvd promises, measured on this machine.

    python -m bench.figures [memory] [start] [get]

``memory``: how much a worker grows while 64 uploads of 40 MB and 64 slow
downloads run at once. ``start``: how long 32 workers take from the command to
the last one's reply. ``get``: CPU time of a small GET under load, beside
nginx's in the same run (needs ``nginx`` and ``wrk``).

Everything runs on loopback and in a temporary folder, for a bounded time.
"""

from __future__ import annotations

import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from bench.processes import answers, cpu_seconds, tree, unused_port, wait_for

TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
VALUE_BYTES = 40_000_000
ROUNDS = 5
SECONDS = 3


@contextmanager
def kvd(folder: Path, port: int, *options: str) -> Iterator[int]:
    """
    A daemon; gives its process id once it serves.
    """
    command = [*TWISTD, "-n", "--pidfile=", "kvd", *options]
    command.append(f"--listen=tcp:{port}:interface=127.0.0.1")
    process = subprocess.Popen(  # noqa: S603
        command, cwd=folder, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if "kvd serves" in line:
                break
        yield process.pid
    finally:
        process.terminate()
        process.communicate()


@contextmanager
def nginx(folder: Path, port: int, workers: int) -> Iterator[int]:
    """
    An nginx that serves the files of a folder; gives its process id.
    """
    config = folder / "nginx.conf"
    config.write_text(
        f"""
        daemon off; worker_processes {workers}; pid {folder}/nginx.pid;
        error_log {folder}/nginx.log; user root;
        events {{ worker_connections 1024; }}
        http {{
            access_log off; keepalive_requests 1000000000; sendfile on;
            server {{ listen 127.0.0.1:{port} reuseport; root {folder}/values; }}
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


def leaves(pid: int) -> list[int]:
    """
    The processes of a tree that have no children: workers.
    """
    return [p for p in tree(pid) if len(tree(p)) == 1]


def resident_mib(pid: int, field: str = "Rss") -> float:
    """
    Memory of a process.
    """
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    matched = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
    assert matched
    return int(matched[1]) / 1024


def peak_mib(pid: int) -> float:
    """
    The most memory that a process had.
    """
    matched = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert matched
    return int(matched[1]) / 1024


def measure_memory(folder: Path) -> None:
    """
    64 uploads at once, and 64 readers that read a little now and then; one
    worker.
    """
    port = unused_port()
    with kvd(folder, port, "--procs=1", "--durability=process") as pid:
        (worker,) = leaves(pid)
        upload(port, "/value")
        idle = resident_mib(worker)
        # Forget the peak so far, so that the kernel keeps the new one (proc(5)).
        Path(f"/proc/{worker}/clear_refs").write_text("5")
        readers = [socket.create_connection(("127.0.0.1", port)) for _ in range(64)]
        for reader in readers:
            reader.sendall(b"GET /value HTTP/1.1\r\nHost: kvd\r\n\r\n")
        with ThreadPoolExecutor(64) as clients:
            uploads = [clients.submit(upload, port, f"/u/{n}") for n in range(64)]
            while not all(upload.done() for upload in uploads):
                for reader in readers:
                    reader.recv(1024)
                time.sleep(0.02)
            for done in uploads:
                done.result()
        peak = peak_mib(worker)
        for reader in readers:
            reader.close()
        print(
            f"memory: idle {idle:.1f} MiB, at most {peak:.1f} MiB while 64 uploads of"
            f" 40 MB and 64 slow downloads run: {peak - idle:+.1f} MiB"
        )


def upload(port: int, target: str) -> None:
    """
    PUT one value of 40 MB.
    """
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(
            f"PUT {target} HTTP/1.1\r\nHost: kvd\r\n"
            f"Content-Length: {VALUE_BYTES}\r\n\r\n".encode()
        )
        piece = bytes(1_000_000)
        for _ in range(VALUE_BYTES // len(piece)):
            sock.sendall(piece)
        reply = sock.recv(1000)
        assert reply.split()[1] in (b"201", b"204"), reply


def measure_start(folder: Path) -> None:
    """
    From the command to the line that says that all 32 workers serve.
    """
    for policy in ("shared", "reuseport"):
        taken = []
        for _ in range(ROUNDS):
            begun = time.monotonic()
            options = ("--procs=32", f"--policy={policy}")
            with kvd(folder, unused_port(), *options) as pid:
                taken.append(time.monotonic() - begun)
                pss = [resident_mib(worker, "Pss") for worker in leaves(pid)]
        print(
            f"start: 32 workers, {policy}: {statistics.median(taken):.2f} s (median of"
            f" {ROUNDS}, worst {max(taken):.2f} s), PSS {statistics.mean(pss):.1f} MiB"
            " each"
        )


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
        subprocess.run(  # noqa: S603
            ["curl", "-sf", "-T", "-", f"http://127.0.0.1:{ours}/small"],  # noqa: S607
            input=bytes(4096), check=True,
        )  # fmt: skip
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


FIGURES = {"memory": measure_memory, "start": measure_start, "get": measure_get}


def main(names: list[str]) -> None:
    """
    Measure what is named, or all.
    """
    for name in names or FIGURES:
        with tempfile.TemporaryDirectory() as folder:
            FIGURES[name](Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
