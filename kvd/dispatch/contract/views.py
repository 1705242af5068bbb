"""
Views for tests of policies.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

from kvd.model.view import View

WORKERS: Final = (1, 2, 3, 8, 32, 64)
"""
The numbers of workers to test with.
"""


def view(
    workers: int,
    *,
    ready: Sequence[int] | None = None,
    turn: int = 0,
    connections: Sequence[int] | None = None,
    requests: Sequence[int] | None = None,
    handing_over: Sequence[int] | None = None,
    seed: int = 0,
) -> View:
    """
    A view for tests: by default all workers are ready and idle.
    """
    nothing = (0,) * workers
    return View(
        ready=tuple(range(workers)) if ready is None else ready,
        turn=turn,
        connections=nothing if connections is None else connections,
        requests=nothing if requests is None else requests,
        handing_over=nothing if handing_over is None else handing_over,
        random=Random(seed),
    )


def views(
    workers: int, count: int = 50, *, handing_over: bool = True
) -> Sequence[View]:
    """
    Many views, always the same ones. Loads vary, and some workers are not ready.

    Args:
        workers: The number of workers.
        count: The number of views.
        handing_over: Whether connections are on their way.
    """
    chance = Random(workers)

    def loads() -> tuple[int, ...]:
        return tuple(chance.randrange(5) for _ in range(workers))

    return [
        view(
            workers,
            ready=sorted(chance.sample(range(workers), chance.randint(1, workers))),
            turn=chance.randrange(workers),
            connections=loads(),
            requests=loads(),
            handing_over=loads() if handing_over else None,
            seed=number,
        )
        for number in range(count)
    ]
