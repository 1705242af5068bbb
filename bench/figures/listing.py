"""
Listings of a million keys, and the requests that wait for them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Final

from bench.figures.daemon import (
    ask,
    connect,
    forget_peak,
    memory_mib,
    peak_mib,
    show,
    store_small,
    workers,
)
from bench.figures.placing import MILLION, place_flat, place_nested
from kvd.lab.measuring.daemon import daemon
from kvd.lab.measuring.processes import cpu_seconds

ROUNDS: Final = 5
SECONDS: Final = 2.0
PAUSE_SECONDS: Final = 0.001


def measure_listing(folder: Path) -> None:
    """
    A million keys in one folder, and in a thousand; one worker, with files that the
    kernel has cached.
    """
    layouts: dict[str, Callable[[Path, int], None]] = {
        "one folder": place_flat,
        "1,000 folders": place_nested,
    }
    for number, (layout, place_values) in enumerate(layouts.items()):
        root = folder / str(number)
        place_values(root, MILLION)
        options = ("--procs=1", "--durability=process", f"--store=file:{root}")
        with daemon(*options) as served:
            port = served.port
            store_small(port, "/small")
            (worker,) = workers(served.pid)
            _measure_stream(layout, port, worker)
            _measure_page(layout, port, worker)
            _measure_others(layout, port)


def _measure_stream(layout: str, port: int, worker: int) -> None:
    firsts = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        next(_listed(port, "/"))
        firsts.append(time.perf_counter() - begun)
    first = statistics.median(firsts) * 1000
    show(f"listing: {layout}, first line of all", first, "ms", 50)
    idle = memory_mib(worker)
    forget_peak(worker)
    begun = time.perf_counter()
    lines = sum(part.count(b"\n") for part in _listed(port, "/"))
    seconds = time.perf_counter() - begun
    assert lines >= MILLION, lines
    show(f"listing: {layout}, all {MILLION:,}", seconds, "s")
    show(f"listing: {layout}, meanwhile", peak_mib(worker) - idle, "MiB more", 4)


def _measure_page(layout: str, port: int, worker: int) -> None:
    pages = []
    before = cpu_seconds([worker])
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        lines = sum(part.count(b'"key"') for part in _listed(port, "/?limit=1000"))
        pages.append(time.perf_counter() - begun)
        assert 1000 == lines, lines
    spent = (cpu_seconds([worker]) - before) / ROUNDS
    show(f"listing: {layout}, a page of 1,000", statistics.median(pages), "s", 1)
    show(f"listing: {layout}, a page of 1,000, of the worker", spent, "s of CPU")


def _measure_others(layout: str, port: int) -> None:
    """
    Small GETs of one connection without a listing and during each kind, in turns.
    """
    waits: dict[str, list[list[float]]] = {"": [], "/": [], "/?limit=1000": []}
    for _ in range(ROUNDS):
        for target, rounds in waits.items():
            rounds.append(_waits_during(port, target))
    for target, rounds in waits.items():
        beside = f"beside GET {target}" if target else "alone"
        middle, most = (
            statistics.median(statistics.quantiles(seen, n=100)[n] for seen in rounds)
            for n in (49, 98)
        )
        show(f"listing: {layout}, a small GET {beside}, p50", middle * 1000, "ms")
        show(f"listing: {layout}, a small GET {beside}, p99", most * 1000, "ms")


def _waits_during(port: int, target: str) -> list[float]:
    over = Event()
    with ThreadPoolExecutor(1) as other:
        asking = other.submit(_ask_small, port, over)
        end = time.perf_counter() + SECONDS
        while time.perf_counter() < end:
            if not target:
                time.sleep(0.05)
                continue
            for _ in _listed(port, target):
                if time.perf_counter() >= end:
                    break
        over.set()
        return asking.result()


def _ask_small(port: int, over: Event) -> list[float]:
    waits = []
    with connect(port) as sock:
        while not over.is_set():
            begun = time.perf_counter()
            ask(sock, "/small")
            while sock.recv(8192)[-1:] != b"\0":
                pass
            waits.append(time.perf_counter() - begun)
            time.sleep(PAUSE_SECONDS)
    return waits


def _listed(port: int, target: str) -> Iterator[bytes]:
    """
    The reply to the GET of a listing, piece by piece, from its first line on.
    """
    with connect(port) as sock:
        ask(sock, target, "Connection: close")
        part = b""
        while b'"key"' not in part:
            part += sock.recv(65536)
        yield part
        while part := sock.recv(1024 * 1024):
            yield part
