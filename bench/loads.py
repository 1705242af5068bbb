"""
The load of a server and its report; ``baselines/load.c`` sends it.

A load is sent in turns. What they need is stored before the first one, so that a load
that uses each key once finds keys in every turn that nobody asked for before.
"""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

from bench.building import Programs
from kvd.lab.measuring.errors import BenchFailed

THREADS: Final = 2
"""Of a load; a connection belongs to one of them."""
FILLING_CONNECTIONS: Final = 8
"""That store values of which each is used once."""


@dataclass(frozen=True)
class Running:
    """
    A server that answers.
    """

    port: int
    pids: Sequence[int]
    """All its processes, whose CPU time is its own."""
    folder: Path
    """Its values and other files, and those of its clients, are in it."""
    secure: bool = False
    """Whether it speaks TLS."""


@dataclass(frozen=True)
class Turn:
    """
    A part of a measurement in which one server is under load.
    """

    name: str
    """No two turns of a server have the same."""
    seconds: float


class Traffic(Protocol):
    """
    What the clients of a server do in its turns.
    """

    @property
    def cold(self) -> bool:
        """
        Whether the server is started anew once the values are stored, so that it
        has none of them in its own memory.
        """

    def store(self, programs: Programs, server: Running, turns: Sequence[Turn]) -> None:
        """
        Store what all turns need.

        Raises:
            BenchFailed: The server did not take it.
        """

    def run(self, programs: Programs, server: Running, turn: Turn) -> Report:
        """
        Load a server for a turn.

        Raises:
            BenchFailed: It could not be loaded at all.
        """


@dataclass(frozen=True)
class Load:
    """
    A kind of request that clients send again and again.
    """

    method: str
    body_bytes: int
    """Of each value."""
    connections: int
    keys: int = 1
    """That are used again and again, unless each is used once."""
    once_per_second: int = 0
    """Each key is used once: GET finds values that the server has not read since it
    started, PUT makes new ones. A turn then is so many requests for each second that
    it should take, however long they take."""
    absent: bool = False
    """GET finds no value: the reply is 404."""
    unchanged: bool = False
    """GET has the value's entity tag in If-None-Match: the reply is 304."""
    range_bytes: int = 0
    """GET asks for so many bytes, each time at another place of the value."""
    folders: int = 0
    """Keys are spread over so many folders: ``ab/…``."""
    new_connections: bool = False
    """A connection for each request, rather than one for each client."""
    resumes: bool = False
    """Over TLS, each of these resumes the session of the one before."""
    piece_bytes: int = 1024 * 1024
    """What a client gives to one ``send``. Small pieces cost a server more wake-ups,
    and the load more calls."""
    apart_us: int = 0
    """PUT sends its head, and so many microseconds later its body, as many programs
    do. 0: both at once."""
    prefix: str = "bench"
    """Keys of different prefixes differ."""

    @property
    def cold(self) -> bool:
        """
        So it is where each value is to be read for the first time.
        """
        return self.once_per_second > 0 and self.method == "GET" and not self.absent

    def store(self, programs: Programs, server: Running, turns: Sequence[Turn]) -> None:
        """
        Put the values, with ``load.c`` too.
        """
        if self.once_per_second and not self.cold:
            return
        # Without turns, all share the keys; one client writes each of them.
        fills = [self.of(turn) for turn in turns] if self.cold else [self]
        for fill in fills:
            filled = send(
                programs,
                server.port,
                replace(
                    fill,
                    method="PUT",
                    connections=FILLING_CONNECTIONS if self.cold else 1,
                    new_connections=False,
                    resumes=False,
                    unchanged=False,
                    range_bytes=0,
                    apart_us=0,
                ),
                requests=fill.keys,
                secure=server.secure,
            )
            if filled.errors:
                raise BenchFailed(f"values cannot be stored: {filled.first_error}")
        if self.unchanged:
            _write_tags(self, server)

    def run(self, programs: Programs, server: Running, turn: Turn) -> Report:
        """
        Send requests for so long, or as many as there are keys.
        """
        load = self.of(turn)
        port, secure = server.port, server.secure
        if self.once_per_second:
            return send(programs, port, load, requests=load.keys, secure=secure)
        tags = _tags_file(server) if self.unchanged else None
        return send(
            programs, port, load, seconds=turn.seconds, tags=tags, secure=secure
        )

    def of(self, turn: Turn) -> Load:
        """
        The same with the keys of a turn.
        """
        if not self.once_per_second:
            return self
        return replace(
            self,
            keys=max(1, round(self.once_per_second * turn.seconds)),
            prefix=f"{self.prefix}-{turn.name}",
        )

    def path(self, key: int) -> str:
        """
        The path of a key, as ``load.c`` writes it.
        """
        folder = f"{key % self.folders:02x}/" if self.folders else ""
        return f"/{self.prefix}/{folder}k{key}"


@dataclass(frozen=True)
class Report:
    """
    The results of a load.
    """

    requests: int
    seconds: float
    bytes: int
    """Of the bodies that were moved."""
    errors: int
    first_error: str | None
    connects: int
    p50_seconds: float
    p99_seconds: float
    max_seconds: float
    cpu_seconds: float
    """Of the load itself."""


def send(
    programs: Programs,
    port: int,
    load: Load,
    *,
    seconds: float | None = None,
    requests: int | None = None,
    tags: Path | None = None,
    secure: bool = False,
) -> Report:
    """
    Send a load for so long, or so many requests, and wait for its end.

    Args:
        tags: The file of entity tags of a load of unchanged values.
        secure: Send it over TLS.

    Raises:
        BenchFailed: It could not be sent at all. Requests that fail are counted.
    """
    command = _command(programs, port, load, seconds, requests, tags, secure)
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise BenchFailed(f"the load ended with {done.returncode}: {done.stderr}")
    values: dict[str, Any] = json.loads(done.stdout)
    return Report(**values)


@contextmanager
def sending(
    programs: Programs, port: int, load: Load, seconds: float
) -> Iterator[list[Report]]:
    """
    Send a load until the ``with`` is left, for so many seconds at most.

    Gives a list into which its report is put then.
    """
    command = _command(programs, port, load, seconds, None, None, secure=False)
    reports: list[Report] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            yield reports
        finally:
            process.terminate()
            output, _ = process.communicate()
    reports.append(Report(**json.loads(output)))


def _command(
    programs: Programs,
    port: int,
    load: Load,
    seconds: float | None,
    requests: int | None,
    tags: Path | None,
    secure: bool,
) -> list[str]:
    command = [
        str(programs.load_over_tls if secure else programs.load),
        f"--port={port}", f"--method={load.method}",
        f"--size={load.body_bytes}", f"--keys={load.keys}",
        f"--piece={load.piece_bytes}", f"--prefix={load.prefix}",
        f"--folders={load.folders}", f"--connections={load.connections}",
        f"--threads={min(THREADS, load.connections)}",
    ]  # fmt: skip
    flags = {
        "--new": load.new_connections,
        "--once": load.once_per_second,
        "--absent": load.absent,
        f"--apart={load.apart_us}": load.apart_us,
        f"--range={load.range_bytes}": load.range_bytes,
        f"--tags={tags}": tags,
        "--tls": secure,
        "--resume": secure and load.resumes,
    }
    command += [flag for flag, given in flags.items() if given]
    if requests is not None:
        command.append(f"--requests={requests}")
    else:
        command.append(f"--seconds={seconds}")
    return command


def _tags_file(server: Running) -> Path:
    return server.folder / "tags"


def _write_tags(load: Load, server: Running) -> None:
    """
    Ask for the entity tag of each key, for ``load.c`` to read.
    """
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    tags = []
    with closing(connection):
        for key in range(load.keys):
            connection.request("HEAD", load.path(key))
            reply = connection.getresponse()
            reply.read()
            tag = reply.getheader("ETag")
            if reply.status != 200 or not tag:
                raise BenchFailed(f"{load.path(key)} has no entity tag")
            tags.append(tag)
    _tags_file(server).write_text("".join(f"{tag}\n" for tag in tags))
