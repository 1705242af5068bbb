"""
The load of a simulation: when clients arrive, how many requests they send, and how long
each takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import Final

Draw = Callable[[Random], float]
"""
A time, divided by the mean.
"""

SERVICES: Final[Mapping[str, Draw]] = {
    "constant": lambda chance: 1.0,
    "exponential": lambda chance: chance.expovariate(1.0),
    # The logarithm has the standard deviation 1, so the mean is exp(1/2).
    "lognormal": lambda chance: chance.lognormvariate(-0.5, 1.0),
    # Of shape 2, whose mean is 2: the variance is infinite.
    "pareto": lambda chance: chance.paretovariate(2.0) / 2,
    # 95 % and 5 %, as 2 ms and 42 ms are: mean 4 ms.
    "uneven": lambda chance: 0.5 if chance.random() < 0.95 else 10.5,
}

ARRIVALS: Final = ("poisson", "uniform", "bursts")


@dataclass(frozen=True, slots=True)
class Load:
    """
    Clients, each of which sends its requests one after the other: the next one when it
    has the reply.
    """

    begins: Sequence[float]
    """When each client sends its first request; ascending, from 0."""
    first: Sequence[int]
    """The index of each client's first request in `services`, and the number of all
    requests."""
    services: Sequence[float]
    """Seconds that a worker needs for each request."""
    reuse: int = 0
    """The number of requests of a connection; 0: all of a client."""
    pauses: Sequence[float] | None = None
    """Seconds from a reply to the client's next request; None: none."""
    lag: float = 0.0
    """Seconds from a connection to its first request. Meanwhile its worker has the
    connection but nothing to do, or the connection is being handed over. A client that
    waited to be accepted has sent its request by then."""

    @property
    def connections(self) -> int:
        """
        The number of connections.
        """
        if not self.reuse:
            return len(self.begins)
        counts = (b - a for a, b in zip(self.first, self.first[1:], strict=False))
        return sum(-(-count // self.reuse) for count in counts)

    def bound(self, workers: int) -> float:
        """
        The shortest possible makespan. All workers together need a time for the
        requests that are still to arrive at any moment, and each client waits for its
        own requests one after the other.
        """
        work = [0.0, *accumulate(self.services)]
        longest = 0.0
        for client, begin in enumerate(self.begins):
            start, end = self.first[client], self.first[client + 1]
            own = work[end] - work[start]
            if self.pauses is not None:
                own += self.pauses[client] * (end - start - 1)
            longest = max(
                longest, begin + own, begin + (work[-1] - work[start]) / workers
            )
        return longest


def services(name: str, mean_seconds: float, count: int, seed: int) -> list[float]:
    """
    The service times of requests.

    Args:
        name: One of `SERVICES`.
    """
    draw = SERVICES[name]
    chance = Random(f"services {seed}")
    return [mean_seconds * draw(chance) for _ in range(count)]


def closed_load(
    times: Sequence[float], clients: int, reuse: int = 0, pause_seconds: float = 0.0
) -> Load:
    """
    Clients with fixed shares of the requests, which all begin at once.

    Args:
        times: The service times.
    """
    each, more = divmod(len(times), clients)
    shares = [each + (client < more) for client in range(clients)]
    return Load(
        [0.0] * clients,
        [0, *accumulate(shares)],
        times,
        reuse,
        [pause_seconds] * clients if pause_seconds else None,
    )


def open_load(
    times: Sequence[float], begins: Sequence[float], pause_seconds: float = 0.0
) -> Load:
    """
    Connections that arrive independently of replies, with the same number of requests
    each.
    """
    count = len(begins)
    reuse = len(times) // count
    return Load(
        begins,
        range(0, len(times) + 1, reuse),
        times,
        0,
        [pause_seconds] * count if pause_seconds else None,
    )


def arrivals(
    name: str, count: int, per_second: float, seed: int, burst: int = 1
) -> list[float]:
    """
    The arrival times of connections.

    Args:
        name: One of `ARRIVALS`; bursts arrive as a Poisson process.
        per_second: Connections per second, on average.
        burst: The number of connections in a burst.
    """
    chance = Random(f"arrivals {seed}")
    if name == "uniform":
        return [number / per_second for number in range(count)]
    size = burst if name == "bursts" else 1
    now = 0.0
    moments: list[float] = []
    for _ in range(-(-count // size)):
        moments += [now] * min(size, count - len(moments))
        now += chance.expovariate(per_second / size)
    return moments
