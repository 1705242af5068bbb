"""
The load: a program of its own, ``python -m kvd.lab.bench.load``.

Each client is a process with a fixed share of the requests, as the article's threads
were: a client that meets a busy worker falls behind, and no other client helps it. Or
each client sends for a fixed time, and one that meets a busy worker sends less. All
clients begin at once. The program prints a report as JSON.

It is a separate program, so that no process with threads is forked.
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import count
from typing import Any, Final

from kvd.lab.bench.client import PutClient, RequestFailed, TimedOut
from kvd.lab.bench.storm import Storm

GIVE_UP_AFTER: Final = 2
"""
The number of timeouts in a row after which a client stops.
"""

_PIECE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Load:
    """
    What is sent.
    """

    requests: int
    body_bytes: int
    clients: int
    keep_alive: bool
    """Whether a client keeps its connection, or makes one for each request."""
    seconds: float = 0.0
    """If above 0, each client sends for this time, and has no fixed share."""
    at_once: int = 1
    """How many connections a client opens at once and keeps, if it sends for a time."""

    def shares(self) -> list[int]:
        """
        The number of requests of each client, if it does not send for a time.
        """
        each, more = divmod(self.requests, self.clients)
        return [each + (client < more) for client in range(self.clients)]


@dataclass(frozen=True, slots=True)
class Report:
    """
    The results of a load.
    """

    began: float
    """When the clients began (`time.monotonic`)."""
    ended: float
    """When the last reply was complete."""
    latencies: list[float]
    """Seconds from the beginning of each successful request, including its connection
    if it made one, to the end of its reply; in no order."""
    failures: dict[str, int]
    """How many requests failed, by reason."""
    cpu_seconds: float
    """Of all clients."""
    late: int = 0
    """How many requests succeeded after the given time was over."""
    given_seconds: float = 0.0
    """How long the load was to be sent; 0: until all requests were sent."""
    begins: list[float] = field(default_factory=list)
    """Seconds from `began` to the first request of each client, in their order: clients
    that are started at once still need processors to begin."""

    @property
    def rate(self) -> float:
        """
        Successful requests per second. If a time was given, requests that ended later
        do not count, nor does the time after it: there are fewer and fewer clients
        then.
        """
        seconds = self.given_seconds or self.seconds
        return (len(self.latencies) - self.late) / seconds if seconds else 0.0

    @property
    def failed(self) -> int:
        """
        Requests without the right reply.
        """
        return sum(self.failures.values())

    @property
    def seconds(self) -> float:
        """
        From the first request to the last reply.
        """
        return self.ended - self.began


def key_of(client: int, request: int) -> str:
    """
    The key of one request.
    """
    return f"bench/{client}/{request}"


def run_load(port: int, load: Load) -> Report:
    """
    Send a load from this process's children. There must be no threads here.
    """
    body = _body(load.body_bytes)
    start_end, start = os.pipe()
    pipes = []
    children = []
    try:
        for number, share in enumerate(load.shares()):
            result, result_end = os.pipe()
            pipes.append(open(result, "rb"))  # noqa: SIM115  # closed below
            child = os.fork()
            if child == 0:
                os.close(start)
                client = PutClient(
                    port, body, load.body_bytes, keep_alive=load.keep_alive
                )
                send: Callable[[], dict[str, Any]]
                if load.at_once > 1:
                    send = partial(_send_storm, port, body, number, load)
                else:
                    send = partial(_send_share, client, number, share, load.seconds)
                _be_client(number, send, start_end, result_end)
            children.append(child)
            os.close(result_end)
        for pipe in pipes:
            pipe.readline()
        began = time.monotonic()
        # All clients wait for the end of this pipe.
        os.close(start)
        start = -1
        parts = [json.loads(pipe.read() or b"null") for pipe in pipes]
    except BaseException:
        for child in children:
            os.kill(child, signal.SIGKILL)
        raise
    finally:
        for pipe in pipes:
            pipe.close()
        for descriptor in {start_end, start, body} - {-1}:
            os.close(descriptor)
        for child in children:
            os.waitpid(child, 0)
    return _put_together(began, load, parts)


def _body(size: int) -> int:
    descriptor = os.memfd_create("kvd bench body", os.MFD_CLOEXEC)
    # Written, because a hole would be a single page of zeroes that stays in the
    # processor's cache.
    piece = os.urandom(min(size, _PIECE_BYTES))
    while size:
        size -= os.write(descriptor, piece[:size])
    return descriptor


def _be_client(
    number: int, send: Callable[[], dict[str, Any]], start_end: int, result_end: int
) -> None:
    """
    Act as a client, and end this process.
    """
    try:
        os.write(result_end, b"ready\n")
        os.read(start_end, 1)
        part = send()
        with open(result_end, "wb") as result:
            result.write(json.dumps(part).encode("ascii"))
        os._exit(0)
    except BaseException as error:
        sys.stderr.write(f"client {number}: {error!r}\n")
        os._exit(1)


def _send_share(
    client: PutClient, number: int, share: int, seconds: float = 0.0
) -> dict[str, Any]:
    before = _cpu_seconds()
    begins = time.monotonic()
    until = begins + seconds if seconds else math.inf
    latencies: list[float] = []
    failures: Counter[str] = Counter()
    timeouts = late = 0
    for request in count() if seconds else range(share):
        began = time.monotonic()
        if began >= until:
            break
        if timeouts == GIVE_UP_AFTER:
            left = 1 if seconds else share - request
            failures["not sent, after timeouts"] += left
            break
        try:
            client.put(key_of(number, request))
        except RequestFailed as error:
            failures[str(error)] += 1
            timeouts = timeouts + 1 if isinstance(error, TimedOut) else 0
        else:
            ended = time.monotonic()
            latencies.append(ended - began)
            late += ended > until
            timeouts = 0
    ended = time.monotonic()
    client.close()
    return {
        "begins": begins,
        "ended": ended,
        "latencies": latencies,
        "failures": failures,
        "late": late,
        "cpu_seconds": _cpu_seconds() - before,
    }


def _send_storm(port: int, body: int, number: int, load: Load) -> dict[str, Any]:
    before = _cpu_seconds()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    value = os.pread(body, load.body_bytes, 0)
    storm = Storm(port, value, lambda connection: key_of(number, connection))
    begins = time.monotonic()
    storm.run(load.at_once, begins + load.seconds)
    return {
        "begins": begins,
        "ended": time.monotonic(),
        "cpu_seconds": _cpu_seconds() - before,
    } | storm.results()


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _put_together(
    began: float, load: Load, parts: Sequence[dict[str, Any] | None]
) -> Report:
    failures: Counter[str] = Counter()
    there = []
    for part, share in zip(parts, load.shares(), strict=True):
        if part is None:
            failures["the client died"] += 1 if load.seconds else share
        else:
            failures.update(part["failures"])
            there.append(part)
    return Report(
        began=began,
        ended=max((part["ended"] for part in there), default=began),
        latencies=[seconds for part in there for seconds in part["latencies"]],
        failures=dict(failures),
        cpu_seconds=sum(part["cpu_seconds"] for part in there),
        late=sum(part["late"] for part in there),
        given_seconds=load.seconds,
        begins=[part["begins"] - began for part in there],
    )


def main(port: str, load: str) -> None:
    """
    Send a load that is described in JSON, and print the report.
    """
    report = run_load(int(port), Load(**json.loads(load)))
    json.dump(asdict(report), sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
