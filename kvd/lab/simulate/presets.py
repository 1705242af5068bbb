"""
Well-known loads, by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from kvd.lab.simulate.balancing import BALANCERS, Fleet
from kvd.lab.simulate.load import Load, arrivals, closed_load, open_load, services
from kvd.lab.simulate.plan import Case, Plan

ARTICLE_REQUESTS: Final = 10_000
ARTICLE_WORKERS: Final = 32
ARTICLE_LAG_SECONDS: Final = 0.0001
FLEET_MACHINES: Final = 32
FLEET_WORKERS: Final = 32
"""
On each machine.
"""


def _article(clients: int, reuse: int) -> Callable[[int], Load]:
    def make(seed: int) -> Load:
        load = closed_load([0.01] * ARTICLE_REQUESTS, clients, reuse)
        return replace(load, lag=ARTICLE_LAG_SECONDS)

    return make


def _uneven(seed: int) -> Load:
    return closed_load(services("uneven", 0.004, 40_000, seed), 32, 1)


def _fleet(seed: int) -> Load:
    count, mean = 100_000, 0.004
    per_second = 0.8 * FLEET_MACHINES * FLEET_WORKERS / mean
    times = services("uneven", mean, count, seed)
    return open_load(times, arrivals("poisson", count, per_second, seed))


def _million(seed: int) -> Load:
    times = services("exponential", 0.004, 1_000_000, seed)
    return open_load(times, arrivals("poisson", 1_000_000, 0.8 * 32 / 0.004, seed))


ARTICLE_CONCLUSION: Final = """\
The article saw all of its 32 threads busy for 70 % of the test, then 4 or 5 of them
at all that was left; taking turns was 3.3 times as fast.

Explained: the lost rate. With keep-alive the hash alone makes a run more than 3
times as long as turns do; with a new connection for each request, 1.7 times.
Explained: the tail, with keep-alive. Clients that met at one worker share it to the
end, and for over a third of the run 5 workers or fewer do all that is left.
Explained only if many connections waited at once: that all were busy for most of
the test. 32 clients that wait for their replies hardly ever keep 32 workers busy
under a hash. Where all is asked at once, all are busy for three quarters of the
time, but then the tail is short, and little is lost.
Not explained: all three in one run. More than the hash was at work there.

One socket for all does no better with keep-alive where all connect at one moment: a
connection comes before its request, and until that is there its worker is as idle as
any.
"""

PRESETS: Final[Mapping[str, Plan]] = {
    "article": Plan(
        "10,000 equal requests from 32 clients to 32 workers.",
        [
            Case(
                "32 clients, keep-alive",
                ARTICLE_WORKERS,
                _article(ARTICLE_WORKERS, 0),
            ),
            Case(
                "32 clients, a new connection for each request",
                ARTICLE_WORKERS,
                _article(ARTICLE_WORKERS, 1),
            ),
            Case(
                "All 10,000 connections at once",
                ARTICLE_WORKERS,
                _article(ARTICLE_REQUESTS, 1),
            ),
        ],
        runs=10,
        conclusion=ARTICLE_CONCLUSION,
    ),
    "keep-alive": Plan(
        "64 connections that stay, to 8 workers.",
        [
            Case(
                "64 clients, keep-alive, exponential times",
                8,
                lambda seed: closed_load(
                    services("exponential", 0.004, 6400, seed), 64
                ),
            )
        ],
        runs=10,
    ),
    "uneven": Plan(
        "1 request in 20 takes 21 times as long; 8 workers.",
        [Case("32 clients, a new connection for each request", 8, _uneven)],
    ),
    "million": Plan(
        "a million connections to 32 workers.",
        [Case("Poisson arrivals, exponential times", 32, _million)],
    ),
    "fleet": Plan(
        "1,024 workers on 32 machines behind each balancer.",
        [
            Case(
                f"Poisson arrivals, uneven times{fleet.title}",
                FLEET_MACHINES * FLEET_WORKERS,
                _fleet,
                fleet,
            )
            for fleet in (Fleet(FLEET_MACHINES, name) for name in BALANCERS)
            # With one connection for each client, as ecmp.
            if fleet.balancer != "source"
        ],
    ),
}
