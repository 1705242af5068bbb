"""
What one request costs kvd: processor time, system calls, and whose code took the time.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from rich.console import Console

from bench.building import Programs, build, find
from bench.figures.daemon import workers
from bench.loads import Load, Running, Turn
from bench.medium import TMPFS
from kvd.lab.measuring.daemon import daemon
from kvd.lab.measuring.processes import cpu_seconds, started, stop, wait_for
from kvd.lab.measuring.table import WIDTH, show_table

_AGAIN: Final = Load("GET", 4096, connections=16, keys=256)
_ONCE: Final = Load("GET", 4096, connections=16, once_per_second=20_000)
_PUT_NEW: Final = replace(_ONCE, method="PUT")

REQUESTS: Final[Mapping[str, Load]] = {
    "GET, again": _AGAIN,
    "GET, each key once": _ONCE,
    "the same, a new connection each": replace(_ONCE, new_connections=True),
    "GET 50 KB, again": replace(_AGAIN, body_bytes=50_000),
    "404": replace(_ONCE, absent=True),
    "304": replace(_AGAIN, unchanged=True),
    "206, 4 KiB of 100 MB": replace(
        _AGAIN, body_bytes=100_000_000, keys=1, range_bytes=4096
    ),
    "206, 64 KiB of 100 MB": replace(
        _AGAIN, body_bytes=100_000_000, keys=1, range_bytes=65_536
    ),
    "PUT, again": replace(_AGAIN, method="PUT"),
    "PUT, new keys": _PUT_NEW,
    "PUT, new keys in 256 new folders": replace(_PUT_NEW, folders=256),
    "PUT, new keys, a new connection each": replace(_PUT_NEW, new_connections=True),
    "PUT, new keys, head and body apart": replace(_PUT_NEW, apart_us=200),
    "PUT, new keys, head and body apart, a new connection each": replace(
        _PUT_NEW, apart_us=200, new_connections=True
    ),
}
"""All of 4 KiB, if nothing else is said."""

_WARM_UP: Final = Turn("warm-up", 0.2)
_TIME: Final = Turn("time", 2)
_PROFILE: Final = Turn("profile", 2)
# strace makes requests slow: as many as there are keys for, or all of half a second.
_CALLS: Final = Turn("calls", 0.05)
_CALLS_AGAIN: Final = Turn("calls", 0.5)
_OWNERS: Final = (
    ("kernel", re.compile(r"\[(kernel|guest)|vmlinux|\.ko")),
    ("Python", re.compile(r"python3[.\d]*$|libpython")),
    ("kvd's C", re.compile(r"^_.*\.so$")),
)


@dataclass(frozen=True)
class Cost:
    """
    Of one request.
    """

    user_us: float
    system_us: float
    calls: Mapping[str, float]
    """How many system calls there were of each kind."""
    shares: Mapping[str, float]
    """Whose code the processor ran, of 1."""


def measure_requests(folder: Path) -> None:
    """
    One worker under each kind of request. ``KVD_PYTHON`` is the interpreter of another
    installation to measure, such as that of an older commit.
    """
    programs = build(Path("build", "bench", "programs").absolute())
    python = os.environ.get("KVD_PYTHON", sys.executable)
    costs = {
        name: _cost(programs, python, folder, load) for name, load in REQUESTS.items()
    }
    console = Console(highlight=False, width=WIDTH)
    owners = [*dict(_OWNERS), "other"]
    show_table(
        "One request: microseconds of CPU, system calls, whose code ran",
        ("", "user", "system", "calls", *owners),
        [
            (
                name,
                f"{cost.user_us:.1f}",
                f"{cost.system_us:.1f}",
                f"{sum(cost.calls.values()):.2f}",
                *(f"{cost.shares[owner] * 100:.0f} %" for owner in owners),
            )
            for name, cost in costs.items()
        ],
        console,
    )
    for name, cost in costs.items():
        calls = ", ".join(
            f"{call} {count:.2f}"
            for call, count in sorted(cost.calls.items(), key=lambda item: -item[1])
            if count >= 0.01
        )
        console.print(f"\n{name}: {calls}")


def _cost(programs: Programs, python: str, folder: Path, load: Load) -> Cost:
    with (
        tempfile.TemporaryDirectory(prefix="kvd-request-", dir=TMPFS) as values,
        ExitStack() as stack,
    ):
        server = stack.enter_context(_serving(python, Path(values)))
        calls = _CALLS if load.once_per_second else _CALLS_AGAIN
        load.store(programs, server, [_WARM_UP, _TIME, calls, _PROFILE])
        if load.cold:
            stack.close()
            server = stack.enter_context(_serving(python, Path(values)))
        (worker,) = server.pids

        def send(turn: Turn) -> int:
            report = load.run(programs, server, turn)
            assert not report.errors, report.first_error
            return report.requests

        send(_WARM_UP)
        ticks, before = _ticks(worker), cpu_seconds([worker])
        requests = send(_TIME)
        spent = cpu_seconds([worker]) - before
        user, system = (b - a for a, b in zip(ticks, _ticks(worker), strict=True))
        us = spent / requests / (user + system) * 1e6
        return Cost(
            user * us,
            system * us,
            _calls(worker, folder, lambda: send(calls)),
            _shares(worker, folder, lambda: send(_PROFILE)),
        )


@contextmanager
def _serving(python: str, folder: Path) -> Iterator[Running]:
    options = ("--procs=1", "--policy=reuseport", "--durability=process")
    store = f"--store=file:{folder}/values"
    with daemon(*options, store, cwd=str(folder), python=python) as served:
        yield Running(served.port, workers(served.pid), folder)


def _ticks(pid: int) -> tuple[int, int]:
    """
    Clock ticks of a process in user mode and in the kernel (proc_pid_stat(5)). They are
    coarse, so they only divide the time that the scheduler counts.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]), int(fields[12])


def _calls(pid: int, folder: Path, send: Callable[[], int]) -> Mapping[str, float]:
    """
    System calls of each kind for a request, by ``strace -c``.
    """
    output = folder / "strace"
    strace = str(find("strace", "strace"))
    command = [strace, "-c", "-f", "-p", str(pid), "-o", str(output)]
    with started(command, stop):
        wait_for(lambda: _is_traced(pid))
        requests = send()
    # "% time", seconds, microseconds for a call, calls, errors if there were, name.
    lines = re.findall(
        r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+) .*?(\w+)$", output.read_text(), re.MULTILINE
    )
    return {name: int(count) / requests for count, name in lines if name != "total"}


def _is_traced(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    return "TracerPid:\t0\n" not in status


def _shares(pid: int, folder: Path, send: Callable[[], int]) -> Mapping[str, float]:
    """
    Whose code the processor ran, by ``perf record``. It samples a clock, since virtual
    machines often have no hardware counters.
    """
    perf, data = str(find("perf", "linux-perf")), str(folder / "perf")
    command = [perf, "record", "-e", "cpu-clock", "-F", "4000", "-p", str(pid)]
    with started([*command, "-o", data], stop) as process:
        wait_for(lambda: _records(process.pid))
        send()
    shares: dict[str, float] = dict.fromkeys([*dict(_OWNERS), "other"], 0)
    for overhead, name in _report([perf, "report", "-i", data, "--sort", "dso"]):
        shares[_owner(name)] += overhead / 100
    return shares


def _records(pid: int) -> bool:
    descriptors = Path(f"/proc/{pid}/fd")
    for each in descriptors.iterdir():
        # It may be closed by now.
        with suppress(FileNotFoundError):
            if "perf_event" in str(each.readlink()):
                return True
    return False


def _report(command: Sequence[str]) -> Iterator[tuple[float, str]]:
    done = subprocess.run(  # noqa: S603
        [*command, "--stdio"], capture_output=True, text=True, check=True
    )
    for overhead, name in re.findall(r"^ +([\d.]+)% +(\S+)", done.stdout, re.MULTILINE):
        yield float(overhead), name


def _owner(name: str) -> str:
    found = (owner for owner, pattern in _OWNERS if pattern.search(name))
    return next(found, "other")
