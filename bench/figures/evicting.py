"""
What a limit costs that evicts, and how exact it is.

``VALUES=100000`` is how many values there are, a million if nothing is said.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.building import Programs, build
from bench.figures.daemon import show
from bench.figures.placing import MILLION, place_nested
from bench.loads import Load, Report, send
from kvd.lab.measuring.daemon import Daemon, daemon
from kvd.lab.measuring.errors import BenchFailed
from kvd.lab.measuring.figures import median, ratios
from kvd.lab.measuring.processes import cpu_seconds, tree, wait_for
from kvd.store.evicting import headroom
from kvd.store.usage import BLOCK_BYTES, taken_by

ROUNDS: Final = 5
PUTS: Final = 20_000
"""Of a turn."""
GETS_FOR_EACH: Final = 9
WRITERS: Final = 64
EXACT_PUTS: Final = 40_000
EXACT_BYTES: Final = 64 << 20
COUNTED_SECONDS: Final = 600
_EVICTOR: Final = b"kvd.workers.evictor"


def measure_evicting(folder: Path) -> None:
    """
    PUTs of new keys, and GETs beside them, where each PUT displaces a value, and where
    none does; the start of such a daemon; and what the values take while 64 clients
    write.
    """
    programs = build(Path("build", "bench", "programs").absolute())
    count = int(os.environ.get("VALUES", MILLION))
    _measure_file_system(programs, folder)
    _measure_exactness(programs, folder / "exact")
    for name in ("free", "full"):
        place_nested(folder / name, count)
    limits = ("--full=evict", f"--max-size={count * BLOCK_BYTES}")
    _measure_start(folder, limits, count)
    with _serving(folder / "free") as free, _serving(folder / "full", *limits) as full:
        for gets in (0, GETS_FOR_EACH):
            _measure_throughput(programs, free, full, gets, count)


# -- what the file system needs ----------------------------------------------------


def _measure_file_system(programs: Programs, folder: Path) -> None:
    root = folder / "files"
    root.mkdir()
    done = subprocess.run(  # noqa: S603
        [str(programs.remove), str(root), str(PUTS)],
        check=True,
        capture_output=True,
        text=True,
    )
    spent = json.loads(done.stdout)
    show("evicting: a C program creates a file", spent["create_us"], "us of CPU")
    show("evicting: it removes a file", spent["remove_us"], "us of CPU")
    share = spent["create_us"] / (spent["create_us"] + spent["remove_us"])
    show("evicting: it creates, if it removes as many", share, "times as fast")


# -- exactness ---------------------------------------------------------------------


def _measure_exactness(programs: Programs, root: Path) -> None:
    """
    Without a pause between them, as many as are written are removed several times.
    """
    limit = EXACT_BYTES
    options = ("--full=evict", f"--max-size={limit}")
    root.mkdir()
    with _serving(root, *options) as served, ThreadPoolExecutor() as threads:
        load = Load("PUT", 4096, WRITERS, EXACT_PUTS, once_per_second=1, folders=256)
        sent = threads.submit(
            send, programs, served.daemon.port, load, requests=load.keys
        )
        taken = []
        while not sent.done():
            taken.append(served.usage()["taken"])
            time.sleep(0.05)
        _check(sent.result())
        first = next(
            i for i, each in enumerate(taken) if each > limit - headroom(limit)
        )
        full = taken[first:]
        time.sleep(1)
        counted, really = served.usage()["taken"], _taken_below(root)
    what = f"evicting: {WRITERS} writers take"
    show(f"{what} at most", 100 * max(full) / limit, "% of the limit", 100)
    least = 100 * (1 - min(full) / limit)
    show(f"{what} less, once it was reached, at most by", least, "% of the limit", 2)
    show("evicting: the files take", 100 * really / limit, "% of the limit", 100)
    wrong = abs(counted - really)
    show("evicting: what is counted and not there, or not counted", wrong, "bytes", 0)


def _taken_below(root: Path) -> int:
    return sum(
        taken_by(file.stat().st_size)
        for file in root.rglob("*")
        if file.is_file() and ".kvd" not in file.parts
    )


# -- start -------------------------------------------------------------------------


def _measure_start(folder: Path, limits: Sequence[str], count: int) -> None:
    taken: dict[str, list[float]] = {"free": [], "full": []}
    spent: dict[str, list[float]] = {"free": [], "full": []}
    for _ in range(ROUNDS):
        for name, options in (("free", ()), ("full", limits)):
            begun = time.monotonic()
            store = f"--store=file:{folder / name}"
            with daemon("--procs=32", store, *options) as served:
                taken[name].append(time.monotonic() - begun)
                spent[name].append(cpu_seconds(tree(served.pid)))
    for name, what in (("free", "without a limit"), ("full", "with one")):
        title = f"evicting: 32 workers serve {count:,} values, {what}"
        show(title, median(taken[name]), "s", 1.5)
        show(f"{title}, of all processes", median(spent[name]), "s of CPU")


# -- throughput --------------------------------------------------------------------


@dataclass
class _Served:
    """
    A daemon under load.
    """

    daemon: Daemon
    rates: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    evictor_costs: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        pids = tree(self.daemon.pid)
        self.evictor = [pid for pid in pids if _is_evictor(pid)]
        self.others = [pid for pid in pids if pid not in self.evictor]

    def usage(self) -> dict[str, int]:
        """
        What is counted for the whole store.
        """
        usage: dict[str, int] = self.daemon.control.status()["usage"][0]
        return usage


def _is_evictor(pid: int) -> bool:
    return _EVICTOR in Path(f"/proc/{pid}/cmdline").read_bytes()


@contextmanager
def _serving(root: Path, *limits: str) -> Iterator[_Served]:
    options = ("--procs=2", "--durability=process", f"--store=file:{root}", *limits)
    with daemon(*options) as served:

        def is_ready() -> bool:
            return all(quota["counted"] for quota in served.control.status()["usage"])

        if limits and not wait_for(is_ready, COUNTED_SECONDS):
            raise BenchFailed("the values were not counted in time")
        yield _Served(served)


def _measure_throughput(
    programs: Programs, free: _Served, full: _Served, gets: int, count: int
) -> None:
    for turn in range(-1, ROUNDS):
        for served in (free, full) if turn % 2 else (full, free):
            _load(programs, served, gets, turn)
    for served in (free, full):
        # Nobody had a limit to keep before the first turn, and there were no keys.
        del served.rates[:1], served.costs[:1], served.evictor_costs[:1]
    what = f"evicting: {count:,} values, " + (
        f"{gets} GETs to a PUT" if gets else "PUTs alone"
    )
    show(f"{what}, without a limit", median(free.rates), "requests/s")
    ratio = median(ratios(full.rates, free.rates))
    show(f"{what}, each displacing a value", ratio, "times as many")
    show(f"{what}, without a limit", median(free.costs) * 1e6, "us of CPU each")
    show(f"{what}, displacing", median(full.costs) * 1e6, "us of CPU each")
    show(f"{what}, the evictor", median(full.evictor_costs) * 1e6, "us of CPU each")
    for served in (free, full):
        served.rates, served.costs, served.evictor_costs = [], [], []


def _load(programs: Programs, served: _Served, gets: int, turn: int) -> None:
    puts = PUTS // (1 + gets)
    put = _keys(gets, turn, puts)
    port = served.daemon.port
    evictor, others = cpu_seconds(served.evictor), cpu_seconds(served.others)
    began = time.monotonic()
    with ExitStack() as stack:
        threads = stack.enter_context(ThreadPoolExecutor())
        sent = [threads.submit(send, programs, port, put, requests=puts)]
        if gets and turn >= 0:
            get = Load(
                "GET", 4096, 14, puts, folders=256, prefix=_keys(gets, turn - 1).prefix
            )
            sent.append(threads.submit(send, programs, port, get, requests=gets * puts))
        reports = [each.result() for each in sent]
    seconds = time.monotonic() - began
    for report in reports:
        _check(report)
    requests = sum(report.requests for report in reports)
    served.rates.append(requests / seconds)
    served.costs.append((cpu_seconds(served.others) - others) / requests)
    served.evictor_costs.append((cpu_seconds(served.evictor) - evictor) / requests)


def _keys(gets: int, turn: int, puts: int = 1) -> Load:
    """
    The PUTs of a turn.
    """
    return Load(
        "PUT",
        4096,
        connections=2 if gets else 16,
        keys=puts,
        once_per_second=1,
        folders=256,
        prefix=f"turn-{gets}-{turn + 1}",
    )


def _check(report: Report) -> None:
    if report.errors:
        raise BenchFailed(f"a request failed: {report.first_error}")
