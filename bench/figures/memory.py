"""
The growth of a worker while large values move.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench.figures.daemon import (
    ask,
    connect,
    forget_peak,
    memory_mib,
    peak_mib,
    show,
    workers,
)
from kvd.lab.measuring.daemon import daemon

VALUE_BYTES: Final = 40_000_000


def measure_memory(folder: Path) -> None:
    """
    One worker; its memory after a first upload counts as idle.
    """
    for splice in ("on", "off"):
        for uploads, readers, limit in ((256, 0, 24), (64, 64, 16)):
            growth = _growth(folder, splice, uploads, readers)
            what = f"memory: {uploads} uploads of 40 MB, {readers} slow downloads"
            show(f"{what}, splice {splice}", growth, "MiB more", limit)


def _growth(folder: Path, splice: str, uploads: int, readers: int) -> float:
    options = ("--procs=1", "--durability=process", f"--splice={splice}")
    with daemon(*options, cwd=str(folder)) as served, ExitStack() as opened:
        port = served.port
        (worker,) = workers(served.pid)
        _upload(port, "/value")
        idle = memory_mib(worker)
        forget_peak(worker)
        slow = [opened.enter_context(connect(port)) for _ in range(readers)]
        for reader in slow:
            ask(reader, "/value")
        with ThreadPoolExecutor(uploads) as clients:
            begun = [
                # Few keys, many uploads: so many files do not stay on the disk.
                clients.submit(_upload, port, f"/u/{number % 16}")
                for number in range(uploads)
            ]
            while not _all_done(begun):
                for reader in slow:
                    reader.recv(1024)
                time.sleep(0.02)
        return peak_mib(worker) - idle


def _all_done(uploads: Sequence[Future[None]]) -> bool:
    for upload in uploads:
        if upload.done():
            upload.result()
    return all(upload.done() for upload in uploads)


def _upload(port: int, target: str) -> None:
    with connect(port) as sock:
        sock.sendall(
            f"PUT {target} HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Length: {VALUE_BYTES}\r\n\r\n".encode()
        )
        piece = bytes(1_000_000)
        for _ in range(VALUE_BYTES // len(piece)):
            sock.sendall(piece)
        reply = sock.recv(1000)
        assert reply.split()[1] in (b"201", b"204"), reply
