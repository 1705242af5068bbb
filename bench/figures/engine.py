"""
kvd before a distributed engine, beside the same client straight at the engine's
gateway; and ``kvd sync`` to it.

Three nodes of SeaweedFS on this machine (``tests.s3.seaweedfs``). ``SYNC_VALUES`` says
how many values are copied (100,000).
"""

from __future__ import annotations

import hashlib
import http.client
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Final

from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from bench.figures.daemon import ask, connect, memory_mib, show, workers
from kvd.lab.measuring.daemon import daemon
from kvd.lab.measuring.figures import median, ratios
from kvd.s3.signing import DEFAULT_REGION, signed
from tests.s3.memory_engine import BUCKET
from tests.s3.processes import RunningEngine
from tests.s3.seaweedfs import SeaweedFS

NODES: Final = 3
ROUNDS: Final = 9
LARGE_BYTES: Final = 40_000_000
STALLED: Final = 64
STALLED_BYTES: Final = 400_000_000
SETTLE_SECONDS: Final = 5.0
SYNC_VALUES: Final = 100_000
INTERRUPTIONS: Final = 10

_UNSIGNED: Final = SimpleNamespace(s3={"payload_signing_enabled": False})


@contextmanager
def _engine(folder: Path) -> Iterator[SeaweedFS]:
    engine = SeaweedFS(folder / "engine", NODES)
    try:
        engine.start()
        yield engine
    finally:
        engine.stop()


def _location(engine: RunningEngine, prefix: str) -> str:
    return f"s3://{BUCKET}/{prefix}?endpoint={','.join(engine.urls)}"


def _environment(engine: RunningEngine) -> Mapping[str, str]:
    return {**os.environ, **engine.environment}


class _Client:
    """
    Sends large requests over one connection.
    """

    def __init__(
        self, port: int, target: str, credentials: Credentials | None = None
    ) -> None:
        """
        Args:
            port: Where to.
            target: The path of the value.
            credentials: Sign each request; None: none is signed.
        """
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self._url = f"http://127.0.0.1:{port}{target}"
        self._target = target
        self._credentials = credentials
        self._buffer = bytearray(1 << 20)

    def close(self) -> None:
        """
        Close the connection.
        """
        self._connection.close()

    def send(self, method: str, body: bytes | None = None) -> float:
        """
        Send a request, and read its reply; gives seconds.
        """
        fields: dict[str, str] = {}
        if self._credentials is not None:
            request = AWSRequest(method, self._url, data=body)
            request.context["client_config"] = _UNSIGNED
            signed(request, self._credentials, DEFAULT_REGION)
            fields = {name: str(text) for name, text in request.headers.items()}
        began = time.monotonic()
        self._connection.request(method, self._target, body, fields)
        reply = self._connection.getresponse()
        assert reply.status < 300, reply.read()
        while reply.readinto(self._buffer):
            pass
        return time.monotonic() - began


def measure_engine(folder: Path) -> None:
    """
    `measure_transfers` with SeaweedFS.
    """
    with _engine(folder) as engine:
        measure_transfers(engine)


def measure_transfers(engine: RunningEngine) -> None:
    """
    PUT and GET of 40 MB, in turns, and the memory of a worker whose clients stop.
    """
    with ExitStack() as running:
        store = f"--store={_location(engine, 'kvd')}"
        served = running.enter_context(
            daemon("--procs=1", store, env=_environment(engine))
        )
        port = int(engine.urls[0].rpartition(":")[2])
        credentials = Credentials(*engine.environment.values())
        clients = {
            "kvd": _Client(served.port, "/large"),
            "gateway": _Client(port, f"/{BUCKET}/large", credentials),
        }
        for client in clients.values():
            running.callback(client.close)
        body = os.urandom(LARGE_BYTES)
        for method, sent in (("PUT", body), ("GET", None)):
            seconds: dict[str, list[float]] = {name: [] for name in clients}
            for _ in range(ROUNDS):
                for name, client in clients.items():
                    seconds[name].append(client.send(method, sent))
            for name, all_seconds in seconds.items():
                rate = LARGE_BYTES / median(all_seconds) / 1e6
                show(f"engine: {method} of 40 MB, {name}", rate, "MB/s")
            ratio = median(ratios(seconds["kvd"], seconds["gateway"]))
            what = f"engine: {method} through kvd"
            show(what, ratio, "times as long as at the gateway", 1.11)
        _measure_memory(served.port, workers(served.pid)[0])


def _measure_memory(port: int, worker: int) -> None:
    """
    What 64 readers and 64 writers of 400 MB that have stopped take.
    """
    chunk = bytes(1 << 20)
    with connect(port) as sock:
        head = (
            f"PUT /huge HTTP/1.1\r\nHost: l\r\nContent-Length: {STALLED_BYTES}\r\n\r\n"
        )
        sock.sendall(head.encode())
        for at in range(0, STALLED_BYTES, len(chunk)):
            sock.sendall(chunk[: STALLED_BYTES - at])
        assert b" 20" in sock.recv(1000)
    before = memory_mib(worker, "Pss")
    with ExitStack() as stack:
        for _ in range(STALLED):
            ask(stack.enter_context(connect(port)), "/huge")
        time.sleep(SETTLE_SECONDS)
        grown = memory_mib(worker, "Pss") - before
        show(f"engine: {STALLED} stalled GETs of 400 MB", grown, "MiB above idle", 16)
    time.sleep(SETTLE_SECONDS)
    before = memory_mib(worker, "Pss")
    with ExitStack() as stack:
        for number in range(STALLED):
            sock = stack.enter_context(connect(port))
            sock.sendall(head.replace("/huge", f"/huge{number}").encode() + chunk)
        time.sleep(SETTLE_SECONDS)
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
    with _engine(folder) as engine, errors.open("wb") as complaints:
        location = _location(engine, "sync")
        environment = _environment(engine)
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
