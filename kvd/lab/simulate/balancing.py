"""
The second level: what stands before several machines, and gives each new connection to
one of them.

A balancer sees connections, not requests: it counts those that it has given to each
machine and that are still open. If there are several, each has its own counts and its
own turn, and does not see what the others do; the network spreads clients over them by
a hash of the connection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Final, TypeAlias


@dataclass(slots=True)
class Balancer:
    """
    What one balancer knows.
    """

    opened: list[int]
    """Its open connections to each machine."""
    chance: Random
    salt: float
    """Of its hash; all balancers have the same."""
    turn: int = 0
    """The machine behind the one that was picked last."""


Pick: TypeAlias = Callable[[Balancer, int], int]
"""
Picks a machine for a connection of a client.
"""


def _by_hash(balancer: Balancer, client: int) -> int:
    return balancer.chance.randrange(len(balancer.opened))


def _by_source(balancer: Balancer, client: int) -> int:
    return Random(f"{balancer.salt} {client}").randrange(len(balancer.opened))


def _by_turns(balancer: Balancer, client: int) -> int:
    return balancer.turn


def _by_connections(balancer: Balancer, client: int) -> int:
    opened = balancer.opened
    least = min(opened)
    try:
        return opened.index(least, balancer.turn)
    except ValueError:
        return opened.index(least)


def _better_of_two(balancer: Balancer, client: int) -> int:
    opened, chance = balancer.opened, balancer.chance
    first, second = chance.randrange(len(opened)), chance.randrange(len(opened))
    return second if opened[second] < opened[first] else first


BALANCERS: Final[Mapping[str, Pick]] = {
    "ecmp": _by_hash,
    "source": _by_source,
    "roundrobin": _by_turns,
    "leastconn": _by_connections,
    "random2": _better_of_two,
}
"""
By the names that HAProxy, IPVS and routers give them.
"""


@dataclass(frozen=True, slots=True)
class Fleet:
    """
    Machines with the same number of workers each.
    """

    machines: int = 1
    balancer: str = "ecmp"
    """One of `BALANCERS`."""
    balancers: int = 1
    """How many of them there are."""

    @property
    def title(self) -> str:
        """
        What is before the workers, for the end of a title; empty for one machine.
        """
        if self.machines == 1:
            return ""
        count = "" if self.balancers == 1 else f"{self.balancers} x "
        return f"; on {self.machines} machines behind {count}{self.balancer}"


ALONE: Final = Fleet()
"""
One machine, with nothing before it.
"""


class Balancing:
    """
    The balancers of a simulation.
    """

    def __init__(self, fleet: Fleet, chance: Random) -> None:
        self._pick = BALANCERS[fleet.balancer]
        self._chance = chance
        salt = chance.random()
        self._balancers = [
            Balancer([0] * fleet.machines, chance, salt) for _ in range(fleet.balancers)
        ]
        self._balancer_of: dict[int, Balancer] = {}

    def choose(self, client: int) -> int:
        """
        The machine of a client's new connection.
        """
        balancers = self._balancers
        balancer = balancers[0]
        if len(balancers) > 1:
            balancer = self._chance.choice(balancers)
        self._balancer_of[client] = balancer
        machine = self._pick(balancer, client)
        balancer.turn = (machine + 1) % len(balancer.opened)
        balancer.opened[machine] += 1
        return machine

    def closed(self, client: int, machine: int) -> None:
        """
        The connection of a client to a machine has ended.
        """
        self._balancer_of.pop(client).opened[machine] -= 1
