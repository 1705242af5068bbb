"""
``steered``: each worker has a listening socket, and a BPF program in the kernel chooses
one.

By default the choice is random for each connection, rather than by a hash of ports.
``steered:by=cpu`` chooses the worker whose number is that of the processor which
received the first packet. ``steered:weights=3/1`` gives three of four connections to
worker 0. The program knows which workers are ready, so the share of a lost worker is
spread over all others.

These need no privilege (`kvd.net.reuseport`). Two more need one, because their programs
keep state (`kvd.net.bpf`): ``steered:by=turns`` lets workers take turns, and
``steered:by=least`` chooses the least busy worker. If they are not available, the
choice is random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from zope.interface import implementer

from kvd.dispatch.policies.leastbusy import policy as leastbusy
from kvd.dispatch.programs.least_busy import Least
from kvd.dispatch.programs.round_robin import Turns
from kvd.errors import BadSetting
from kvd.interfaces import (
    IConfigurablePolicy,
    IDispatchPolicy,
    IExtendedPolicy,
    ILoadedProgram,
    IProgramPolicy,
)
from kvd.model.programs import ClassicProgram
from kvd.model.view import View, whose_turn
from kvd.net.reuseport import by_chance, by_cpu, by_weight

WAYS: Final = ("random", "cpu", "weights", "turns", "least")


@implementer(IProgramPolicy, IConfigurablePolicy)
class Steered:
    """
    A program of classic BPF chooses.
    """

    kernel_chooses = True

    def __init__(self, by: str = "random", weights: Sequence[int] = ()) -> None:
        """
        Args:
            by: One of `WAYS`.
            weights: Of the workers from 0 on; further workers have the weight 1.
        """
        self._by = by
        self._weights = tuple(weights)

    def with_options(self, options: Mapping[str, str]) -> IDispatchPolicy:
        unknown = options.keys() - {"by", "weights"}
        if unknown:
            raise BadSetting(
                f"the policy 'steered' has no option {min(unknown)!r}; it has by and"
                " weights"
            )
        weights = _weights(options["weights"]) if "weights" in options else ()
        by = options.get("by", "weights" if weights else "random")
        if by not in WAYS:
            raise BadSetting(f"steered:by={by} is none of {', '.join(WAYS)}")
        if (by == "weights") != bool(weights):
            raise BadSetting(
                "weights are given as steered:weights=3/1/1, one for each worker, and"
                " without another value of by"
            )
        return _EXTENDED[by] if by in _EXTENDED else Steered(by, weights)

    def group_size(self, workers: int) -> int:
        return workers

    def members_of(self, worker: int, workers: int) -> Sequence[int]:
        return (worker,)

    def program(self, members: Sequence[int]) -> ClassicProgram:
        if self._by == "cpu":
            return by_cpu(members)
        if self._by == "weights":
            weights = [
                self._weight(member) if member in members else 0
                for member in range(max(members) + 1)
            ]
            if any(weights):
                return by_weight(weights)
            # All workers with a weight are gone: choose any of the others.
        return by_chance(members)

    def choose(self, view: View) -> int:
        # A model. Which processor receives a packet is random here too.
        if not self._weights:
            return view.random.choice(view.ready)
        weights = [self._weight(worker) for worker in view.ready]
        if not any(weights):
            return view.random.choice(view.ready)
        return view.random.choices(view.ready, weights)[0]

    def _weight(self, worker: int) -> int:
        return self._weights[worker] if worker < len(self._weights) else 1


@implementer(IExtendedPolicy)
class SteeredByTurns(Steered):
    """
    Workers take turns; the kernel counts.
    """

    fallback = "steered:by=random"

    def load(self, groups: int, scoreboard: int) -> ILoadedProgram:
        return Turns(groups)

    def choose(self, view: View) -> int:
        # A model; exact for connections that come one after the other.
        return whose_turn(view)


@implementer(IExtendedPolicy)
class SteeredByLeast(Steered):
    """
    The worker with the fewest requests is chosen; if workers tie, the one with the
    fewest connections.
    """

    fallback = "steered:by=random"

    def load(self, groups: int, scoreboard: int) -> ILoadedProgram:
        return Least(scoreboard)

    def choose(self, view: View) -> int:
        # A model; exact for connections that come one after the other.
        return leastbusy.choose(view)


def _weights(text: str) -> Sequence[int]:
    parts = text.split("/")
    if not all(part.isascii() and part.isdigit() and len(part) < 7 for part in parts):
        raise BadSetting(
            f"steered:weights={text} is not a list of weights: give whole numbers up to"
            " 999999 with slashes between them, such as 3/1/1"
        )
    weights = [int(part) for part in parts]
    if not any(weights):
        raise BadSetting(
            f"steered:weights={text} gives connections to no worker: at least one"
            " weight has to be above 0, as in 3/1/1"
        )
    return weights


policy = Steered()

_EXTENDED: Final = {"turns": SteeredByTurns(), "least": SteeredByLeast()}
