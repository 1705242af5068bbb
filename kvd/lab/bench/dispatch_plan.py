"""
The loads under which policies are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

FEW: Final = 4
"""
The divisor for few clients: 2 for each worker by default, rather than 8.
"""

STORM: Final = 16
"""
The factor for very many connections: 1,024 by default, from a few clients.
"""

LOADS: Final = {
    "equal": "equal times",
    "keep-alive": "equal times, keep-alive",
    "keep-alive-few": "equal times, keep-alive, few clients",
    "uneven": "uneven times, few clients",
    "uneven-many": "uneven times, many clients",
    "storm": "tiny requests, very many connections at once",
}


@dataclass(frozen=True, slots=True)
class Case:
    """
    One kind of load.
    """

    name: str
    """One of `LOADS`."""
    times: tuple[tuple[int, float], ...]
    """How many of the requests take how many seconds."""
    clients: int
    keep_alive: bool
    at_once: int = 1
    """How many connections each client opens at once."""

    @property
    def store(self) -> str:
        """
        The store that takes these times, as a setting.
        """
        if not any(seconds for _, seconds in self.times):
            return "null:"
        return "sleep:" + ",".join(
            f"{many}x{seconds:.6f}" for many, seconds in self.times
        )

    @property
    def title(self) -> str:
        """
        In words.
        """
        total = sum(many for many, _ in self.times)
        times = " and ".join(
            f"{seconds * 1e3:g} ms"
            + (f" ({many / total * 100:g} %)" if many < total else "")
            for many, seconds in self.times
        )
        connections = "kept" if self.keep_alive else "new for each request"
        if self.at_once > 1:
            return (
                f"tiny requests over {self.clients * self.at_once:,} connections, all"
                f" opened at once and {connections}"
            )
        return (
            f"requests of {times} from {self.clients} clients, connections"
            f" {connections}"
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """
    What is measured.
    """

    policies: Sequence[str]
    loads: Sequence[str]
    workers: int
    clients: int
    mean_seconds: float
    """How long a request keeps its worker busy."""
    seconds: float
    """Of each run."""
    rounds: int
    hand_over: bool
    """Whether to measure the cost of a hand-over too."""

    @property
    def bound(self) -> float:
        """
        The requests per second that the workers cannot exceed.
        """
        return self.workers / self.mean_seconds

    def cases(self) -> Sequence[Case]:
        """
        The loads, in their order.
        """
        mean, many, few = self.mean_seconds, self.clients, self.clients // FEW or 1
        equal = ((1, mean),)
        # The same mean, distributed as `kvd simulate --service uneven` does.
        uneven = ((19, mean / 2), (1, mean * 10.5))
        known = (
            Case("equal", equal, many, False),
            Case("keep-alive", equal, many, True),
            Case("keep-alive-few", equal, few, True),
            Case("uneven", uneven, few, False),
            Case("uneven-many", uneven, many, False),
            Case("storm", ((1, 0.0),), few, True, max(2, many * STORM // few)),
        )
        return [case for case in known if case.name in self.loads]
