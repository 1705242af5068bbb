"""
kvd before a distributed engine, beside the same client straight at the engine's
gateway; and ``kvd sync`` to it.

The engine is the one that ``ENGINE`` names, of three nodes on this machine.
``SYNC_VALUES`` says how many values are copied (100,000).
"""

from __future__ import annotations

import hashlib
import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Final

from bench.figures.daemon import ask, connect, memory_mib, show, workers
from bench.figures.engines import (
    PREFIX,
    Client,
    SigningClient,
    environment_with,
    running_engine,
)
from kvd.lab.measuring.daemon import daemon
from kvd.lab.measuring.figures import median, ratios, rotated
from tests.s3.memory_engine import BUCKET
from tests.s3.processes import RunningEngine

NODES: Final = 3
ROUNDS: Final = 9
LARGE_BYTES: Final = 40_000_000
STALLED: Final = 64
SMALL_ROUNDS: Final = 31
SMALL_REQUESTS: Final = 20
STALLED_BYTES: Final = 400_000_000
SETTLE_SECONDS: Final = 5.0
SYNC_VALUES: Final = 100_000
INTERRUPTIONS: Final = 10

_UNSIGNED: Final = SimpleNamespace(s3={"payload_signing_enabled": False})


def _location(engine: RunningEngine, prefix: str) -> str:
    return f"s3://{BUCKET}/{prefix}?endpoint={','.join(engine.urls)}"


def measure_engine(folder: Path) -> None:
    """
    `measure_transfers` with the engine that ``ENGINE`` names.
    """
    with running_engine(folder) as engine:
        measure_transfers(engine)


def measure_transfers(engine: RunningEngine) -> None:
    """
    PUT and GET of 40 MB, in turns, and the memory of a worker whose clients stop.
    """
    with ExitStack() as running:
        store = f"--store={_location(engine, PREFIX)}"
        served = running.enter_context(
            daemon("--procs=1", store, env=environment_with(engine))
        )
        # kvd comes last: what both read is as it stores it.
        clients = {
            "gateway": SigningClient(engine, "large"),
            "kvd": Client(served.port, "/large"),
        }
        for client in clients.values():
            running.callback(client.close)
        body = os.urandom(LARGE_BYTES)
        for method, sent in (("PUT", body), ("GET", None)):
            seconds: dict[str, list[float]] = {name: [] for name in clients}
            for _ in range(ROUNDS):
                for name, client in clients.items():
                    seconds[name].append(client.send(method, sent).whole)
            for name, all_seconds in seconds.items():
                rate = LARGE_BYTES / median(all_seconds) / 1e6
                show(f"engine: {method} of 40 MB, {name}", rate, "MB/s")
            ratio = median(ratios(seconds["kvd"], seconds["gateway"]))
            what = f"engine: {method} through kvd"
            show(what, ratio, "times as long as at the gateway", 1.11)
        _measure_memory(served.port, workers(served.pid)[0])


def measure_small(folder: Path) -> None:
    """
    Some GETs of 4 KiB, in turns: at the gateway and through kvd; then of a near cache
    and of a folder.
    """
    with running_engine(folder) as engine, ExitStack() as running:
        store = f"--store=s3://{BUCKET}/{PREFIX}?endpoint={engine.urls[0]}"
        near = f"--near=file:{folder}/near?max-size=1GiB&fresh=1h"
        options = {
            "kvd": [store],
            "near": [store, near],
            "folder": [f"--store=file:{folder}/values"],
        }
        clients: dict[str, Client] = {"gateway": SigningClient(engine, "small")}
        for name, chosen in options.items():
            served = running.enter_context(
                daemon("--procs=1", *chosen, env=environment_with(engine))
            )
            clients[name] = Client(served.port, "/small")
        seconds: dict[str, list[float]] = {name: [] for name in clients}
        for client in clients.values():
            running.callback(client.close)
            client.send("PUT", bytes(4096))
            client.send("GET")
        # Not all four in one round: an engine goes on for a while after a request.
        for pair in (("gateway", "kvd"), ("near", "folder")):
            for number in range(SMALL_ROUNDS):
                for name in rotated(pair, number):
                    client = clients[name]
                    turn = [client.send("GET").whole for _ in range(SMALL_REQUESTS)]
                    seconds[name].append(median(turn))
    for name, all_seconds in seconds.items():
        show(f"small: GET of 4 KiB, {name}", median(all_seconds) * 1e3, "ms")
    added = [a - b for a, b in zip(seconds["kvd"], seconds["gateway"], strict=True)]
    show("small: added by kvd", median(added) * 1e3, "ms", 1.5)
    ratio = median(ratios(seconds["near"], seconds["folder"]))
    show("small: a hit of the near cache", ratio, "times as long as of a folder", 1.2)


def _measure_memory(port: int, worker: int) -> None:
    """
    What 64 readers and 64 writers of 400 MB that have stopped take.
    """
    chunk = bytes(1 << 20)
    head = (
        "PUT /huge HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Length: {STALLED_BYTES}\r\n\r\n"
    )
    with connect(port) as sock:
        sock.sendall(head.encode())
        for at in range(0, STALLED_BYTES, len(chunk)):
            sock.sendall(chunk[: STALLED_BYTES - at])
        reply = sock.recv(1000)
        assert reply.split()[1] in (b"201", b"204"), reply
    before = memory_mib(worker, "Pss")
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(port)) for _ in range(STALLED)]
        for sock in clients:
            ask(sock, "/huge")
        time.sleep(SETTLE_SECONDS)
        for sock in clients:
            assert b"HTTP/1.1 200" == sock.recv(12, socket.MSG_PEEK)
        grown = memory_mib(worker, "Pss") - before
        show(f"engine: {STALLED} stalled GETs of 400 MB", grown, "MiB above idle", 16)
    time.sleep(SETTLE_SECONDS)
    before = memory_mib(worker, "Pss")
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(port)) for _ in range(STALLED)]
        for number, sock in enumerate(clients):
            sock.sendall(head.replace("/huge", f"/huge{number}").encode() + chunk)
        time.sleep(SETTLE_SECONDS)
        replied, _, _ = select.select(clients, [], [], 0)
        assert not replied, "a request that is not complete has no reply"
        grown = memory_mib(worker, "Pss") - before
        show(f"engine: {STALLED} stalled PUTs of 400 MB", grown, "MiB above idle", 16)


def measure_sync(folder: Path) -> None:
    """
    ``kvd sync`` from a folder to the engine, interrupted ten times, and back to another
    folder; the digests of both folders.
    """
    count = int(os.environ.get("SYNC_VALUES", SYNC_VALUES))
    seed = random.randrange(1 << 32)
    print(f"{seed=}")
    chance = random.Random(seed)
    source = folder / "source"
    for number in range(count):
        path = source / f"{number % 100}" / f"{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(chance.choice((0, 100, 4096))))
    errors = folder / "errors"
    with running_engine(folder) as engine, errors.open("wb") as complaints:
        location = _location(engine, "sync")
        environment = environment_with(engine)
        began, killed = time.monotonic(), 0
        while True:
            run = _sync(f"file:{source}", location, environment, complaints)
            if killed == INTERRUPTIONS:
                break
            try:
                # Longer each time, so that it gets beyond what is there already.
                run.wait(chance.uniform(2, 4) * (killed + 1))
                break
            except subprocess.TimeoutExpired:
                run.send_signal(chance.choice((signal.SIGKILL, signal.SIGTERM)))
                run.wait()
                killed += 1
        assert 0 == run.wait(), "the last run ends with status 0"
        show(f"sync: {count:,} values to the engine", time.monotonic() - began, "s")
        show("sync: interruptions", killed, "runs")
        back = _sync(location, f"file:{folder}/back", environment, complaints)
        assert 0 == back.wait(), "the way back ends with status 0"
    assert _digests(source) == _digests(folder / "back"), "digests differ"
    assert "" == errors.read_text(), errors.read_text()
    print("sync: equal digests on both sides, and no complaints")


def _sync(
    source: str,
    destination: str,
    environment: Mapping[str, str],
    complaints: IO[bytes],
) -> subprocess.Popen[bytes]:
    program = str(Path(sys.executable).with_name("kvd"))
    options = ["--durability=process", "--quiet", "--jobs=16"]
    return subprocess.Popen(  # noqa: S603
        [program, "sync", source, destination, *options],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=complaints,
    )


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and ".kvd" not in path.parts
    }
