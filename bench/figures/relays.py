"""
What a further process on the way of a large value costs: kvd before an engine, beside
relays that do less.

The engine is the one that ``ENGINE`` names; all requests go to its first gateway. There
are so many rounds as ``ROUNDS`` says. HAProxy and gcc are needed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from rich.console import Console

from bench.building import build_relay, find
from bench.figures.engines import (
    PREFIX,
    Client,
    SigningClient,
    environment_with,
    gateway_port,
    running_engine,
)
from kvd.lab.measuring.daemon import daemon
from kvd.lab.measuring.figures import median, ratios, rotated
from kvd.lab.measuring.processes import (
    answers,
    started,
    stop,
    tree,
    unused_port,
    wait_for,
)
from kvd.lab.measuring.table import WIDTH, milliseconds, show_table
from tests.s3.memory_engine import BUCKET
from tests.s3.processes import RunningEngine

ROUNDS: Final = 15
BODY_BYTES: Final = 40_000_000

GATEWAY: Final = "the gateway alone"
"""
What the others are compared with.
"""

_HAPROXY: Final = """\
global
    nbthread 1
    tune.pipesize 1048576
defaults
    mode {mode}
    option splice-auto
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen gateway
    bind 127.0.0.1:{port}
    server gateway 127.0.0.1:{target}
"""


@dataclass(frozen=True)
class _Way:
    """
    A way to the engine, and what it took in each round.
    """

    client: Client
    pids: Sequence[int]
    """The processes on it."""
    seconds: list[float] = field(default_factory=list)
    heads: list[float] = field(default_factory=list)
    cpu: dict[str, list[float]] = field(default_factory=dict)
    """Seconds of processor time, by program."""


def measure_relays(folder: Path) -> None:
    """
    PUT and GET of 40 MB straight to the gateway, through kvd, HAProxy and a program
    that only splices, in turns.
    """
    rounds = int(os.environ.get("ROUNDS", ROUNDS))
    body = os.urandom(BODY_BYTES)
    console = Console(highlight=False, width=WIDTH)
    with running_engine(folder) as engine:
        before = set(tree(os.getpid()))
        for method, sent in (("PUT", body), ("GET", None)):
            with ExitStack() as running:
                ways = _ways(engine, folder, running)
                for way in ways.values():
                    # Its connections, and what the engine makes once.
                    way.client.send("PUT", body)
                    way.client.send(method, sent)
                # What all read is as kvd stores it.
                ways["kvd"].client.send("PUT", body)
                for number in range(rounds):
                    for way in rotated([*ways.values()], number):
                        _send(way, method, sent, before)
            _show(method, ways, console)


def _ways(
    engine: RunningEngine, folder: Path, running: ExitStack
) -> Mapping[str, _Way]:
    ways = {GATEWAY: _Way(SigningClient(engine, "large"), [])}
    store = f"--store=s3://{BUCKET}/{PREFIX}?endpoint={engine.urls[0]}"
    served = running.enter_context(
        daemon("--procs=1", store, env=environment_with(engine))
    )
    ways["kvd"] = _Way(Client(served.port, "/large"), tree(served.pid))
    target = gateway_port(engine)
    relays = {
        "HAProxy, HTTP": _haproxy(folder, "http", target),
        "HAProxy, TCP": _haproxy(folder, "tcp", target),
        "C, splice only": _relay(target),
    }
    for name, relay in relays.items():
        port, pid = running.enter_context(relay)
        ways[name] = _Way(SigningClient(engine, "large", port), [pid])
    for way in ways.values():
        running.enter_context(closing(way.client))
    return ways


@contextmanager
def _haproxy(folder: Path, mode: str, target: int) -> Iterator[tuple[int, int]]:
    port = unused_port()
    settings = folder / f"{mode}.cfg"
    settings.write_text(_HAPROXY.format(mode=mode, port=port, target=target))
    command = [str(find("haproxy", "haproxy")), "-db", "-f", str(settings)]
    with _serving(command, port) as pid:
        yield port, pid


@contextmanager
def _relay(target: int) -> Iterator[tuple[int, int]]:
    program = build_relay(Path("build", "bench", "programs").absolute())
    port = unused_port()
    command = [str(program), f"--port={port}", f"--target={target}"]
    with _serving(command, port) as pid:
        yield port, pid


@contextmanager
def _serving(command: Sequence[str], port: int) -> Iterator[int]:
    with started(command, stop) as process:
        assert wait_for(lambda: answers(port)), f"{command[0]} does not serve"
        yield process.pid


def _send(way: _Way, method: str, body: bytes | None, engine: set[int]) -> None:
    before = _cpu(way, engine)
    took = way.client.send(method, body)
    for name, seconds in _cpu(way, engine).items():
        way.cpu.setdefault(name, []).append(seconds - before.get(name, 0))
    way.seconds.append(took.whole)
    way.heads.append(took.head)


def _cpu(way: _Way, engine: set[int]) -> Mapping[str, float]:
    """
    Processor time so far: of the client, of what is on the way, and of each program of
    the engine.
    """
    sums = {"client": time.process_time(), "on the way": 0.0}
    for pid in way.pids:
        sums["on the way"] += _clock(pid)
    for pid in engine - {os.getpid()}:
        # Engines have processes that end.
        with suppress(OSError):
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            sums[name] = sums.get(name, 0) + _clock(pid)
    return sums


def _clock(pid: int) -> float:
    """
    The processor time of a process, with threads that have ended.
    """
    # As clock_getcpuclockid(3) of Linux names the clock.
    return time.clock_gettime(~pid << 3 | 2)


def _show(method: str, ways: Mapping[str, _Way], console: Console) -> None:
    direct = ways[GATEWAY]
    load = "{:.1f}, {:.1f}".format(*os.getloadavg()[:2])
    show_table(
        f"{method} of {BODY_BYTES / 1e6:g} MB, medians of {len(direct.seconds)} rounds"
        f" (load {load})",
        ("", *ways),
        [
            ("ms until the head of the reply", *_each(ways, lambda way: way.heads)),
            ("ms until its end", *_each(ways, lambda way: way.seconds)),
            (
                "the same, relative to the gateway's",
                *(
                    f"{median(ratios(way.seconds, direct.seconds)):.2f}"
                    for way in ways.values()
                ),
            ),
            *(
                (
                    f"ms of processor time: {program}",
                    *_each(ways, partial(_cpu_of, program)),
                )
                for program in direct.cpu
            ),
            (
                "ms of processor time: all",
                *_each(ways, _all_cpu),
            ),
        ],
        console,
    )


def _cpu_of(program: str, way: _Way) -> Sequence[float]:
    return way.cpu[program]


def _all_cpu(way: _Way) -> Sequence[float]:
    return [sum(each) for each in zip(*way.cpu.values(), strict=True)]


def _each(
    ways: Mapping[str, _Way], figures: Callable[[_Way], Sequence[float]]
) -> Sequence[str]:
    """
    The medians of some seconds of each way, as milliseconds.
    """
    return [milliseconds(median(figures(way))) for way in ways.values()]
