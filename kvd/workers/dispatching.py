"""
How connections come to workers, by whichever policy, and by another a moment later.

One construction carries all policies. The listening sockets of an address are made
once and held for life. A policy says which of them a connection gets into, by the
kernel's hash or by a program; and who takes it from there: workers that poll the
socket, or the supervisor, which hands it over. All that changes with the policy is
who looks at which socket: none is closed, and none is ever left to nobody, since
connections may still come into one that is no longer meant. So a switch loses no
connection.

A policy that has sockets of its own for workers gets more of them when there are more
workers, if this process may make them; a Unix socket is always alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from kvd.dispatch.arranging import Arrangement, arrange
from kvd.dispatch.choosing import load_policy
from kvd.dispatch.deciding import Decider
from kvd.dispatch.shadowing import Shadow
from kvd.dispatch.steering import Program, by_chance
from kvd.errors import BadSetting
from kvd.interfaces import IDispatchPolicy, IGatedPolicy, ISteeringPolicy
from kvd.listening import ListenerGroup
from kvd.scoreboard import Scoreboard
from kvd.workers.channel import Channel
from kvd.workers.dealing import Dealing
from kvd.workers.messages import Message, Unplaced
from kvd.workers.polling import Polling


@dataclass(frozen=True, slots=True)
class ChosenPolicy:
    """
    A policy, and how it is arranged for a number of workers.
    """

    name: str
    """As the operator wrote it."""
    policy: IDispatchPolicy
    arrangement: Arrangement


def choose_policy(name: str, workers: int) -> ChosenPolicy:
    """
    Find a policy by its name.

    Raises:
        UnknownPlugin: There is none.
        BrokenPlugin: It cannot be used.
        BadSetting: Its options are none.
    """
    policy = load_policy(name)
    return ChosenPolicy(name, policy, arrange(name, policy, workers))


def choose_shadow(name: str, chosen: ChosenPolicy) -> ChosenPolicy:
    """
    Find a policy that is to look on.

    Args:
        name: Its name.
        chosen: The policy in force.

    Raises:
        OperatorError: As `choose_policy`; or the policy in force shows nothing.
    """
    shadow = choose_policy(name, len(chosen.arrangement.members))
    if chosen.arrangement.kernel_chooses:
        raise BadSetting(
            f"the shadow {name!r} would see nothing: under the policy"
            f" {chosen.name!r} the supervisor deals no connections; choose one under"
            " which it does, such as roundrobin, or record them (--record) and simulate"
        )
    return shadow


class Dispatching:
    """
    Polling and dealing, as the present policy wants it.

    Provides `kvd.workers.pool.Distribution`.
    """

    _log = Logger()

    def __init__(
        self,
        chosen: ChosenPolicy,
        groups: Sequence[ListenerGroup],
        scoreboard: Scoreboard,
        max_connections: int,
        reactor: Any,
        shadow: ChosenPolicy | None = None,
    ) -> None:
        """
        Args:
            chosen: The first policy.
            groups: The sockets; closed when this finishes.
            scoreboard: How busy the workers are; gets to know who is there.
            max_connections: How many one worker may have open.
            reactor: Watches the sockets and tells the time.
            shadow: The policy that looks on.
        """
        self.shadow = shadow
        self._scoreboard = scoreboard
        self._groups = groups
        self._polling = Polling(None, groups, reactor)
        self._dealing = Dealing(None, groups, scoreboard, max_connections, reactor)
        self._finished = False
        self._ready: set[int] = set()
        self._programs: dict[int, Program | None] = {}
        self._told_unsteered = False
        self.switch(chosen)

    def switch(self, chosen: ChosenPolicy) -> None:
        """
        Let another policy decide from now on.
        """
        self.chosen = chosen
        self.shadow_by(self.shadow)
        arrangement = chosen.arrangement
        for group in self._groups:
            self._grow(group, arrangement.group_size)
        self._steer()
        # Whoever begins, begins before the others end: a socket that nobody looked
        # at would keep its connections waiting.
        if arrangement.kernel_chooses:
            gate = chosen.name if IGatedPolicy.providedBy(chosen.policy) else ""
            self._polling.arrange(arrangement.members, gate)
            self._dealing.deal_by(None)
        else:
            self._dealing.deal_by(Decider(chosen.name, chosen.policy))
            self._polling.arrange(None)

    def limit(self, max_connections: int) -> None:
        """
        Let a worker have so many connections open from now on.
        """
        self._dealing.max_connections = max_connections

    def shadow_by(self, shadow: ChosenPolicy | None) -> None:
        """
        Let a policy look on from now on, or none. Where the kernel chooses, there is
        nothing to see: it waits until there is.
        """
        self.shadow = shadow
        self._dealing.shadow = None
        if shadow is not None and not self.chosen.arrangement.kernel_chooses:
            self._dealing.shadow = Shadow(shadow.name, shadow.policy)

    def shadow_counts(self, workers: Sequence[int]) -> dict[str, Any] | None:
        """
        What the shadow would have done since this policy is in force.

        Args:
            workers: Who is there.

        Returns:
            Plain data, without counts where there is nothing to see; None: nobody
            looks on.
        """
        if self.shadow is None:
            return None
        told = {
            "policy": self.shadow.name,
            "model": self.shadow.arrangement.kernel_chooses,
        }
        looking = self._dealing.shadow
        return told if looking is None else told | looking.counts(workers)

    def _grow(self, group: ListenerGroup, size: int) -> None:
        try:
            group.grow(size)
        except OSError as error:
            self._log.warn(
                "there are {there} sockets of {address}, and no more can be made"
                " ({reason}); workers share them",
                there=len(group.members),
                address=str(group.address),
                reason=error.strerror,
            )

    def _steer(self) -> None:
        """
        Let connections into the sockets that are meant, and whose workers are ready.
        """
        for number, group in enumerate(self._groups):
            program = self._program(len(group.members))
            if self._programs.get(number, b"") == program:
                continue
            try:
                group.steer(program)
            except OSError as error:
                self._tell_unsteered(error)
            self._programs[number] = program

    def _program(self, there: int) -> Program | None:
        """
        Args:
            there: How many sockets the group has.
        """
        policy, arrangement = self.chosen.policy, self.chosen.arrangement
        own = arrangement.members
        meant = {
            member % there
            for worker in self._ready
            for member in own[worker % len(own)]
        }
        members = sorted(meant) or range(min(there, arrangement.group_size))
        if ISteeringPolicy.providedBy(policy):
            try:
                program: Program = policy.program(members)
                return program
            except Exception:
                self._log.failure(
                    "policy {name} has no program for its sockets; chance chooses",
                    name=self.chosen.name,
                )
        elif len(members) == there:
            return None
        return by_chance(members)

    def _tell_unsteered(self, error: OSError) -> None:
        if not self._told_unsteered:
            self._told_unsteered = True
            self._log.warn(
                "the kernel takes no program that would choose among the sockets of"
                " policy {policy} ({reason}): it hashes instead, and connections that"
                " come into sockets that are not meant are served by whoever looks"
                " after them",
                policy=self.chosen.name,
                reason=error.strerror,
            )

    def joined(self, worker: int, channel: Channel) -> None:
        """
        See `Distribution`.
        """
        self._dealing.joined(worker, channel)
        self._polling.joined(worker, channel)
        self._ready.add(worker)
        self._scoreboard.mark(worker, True)
        self._steer()

    def leaving(self, worker: int) -> None:
        """
        See `Distribution`.
        """
        self._lose(worker)
        self._polling.leaving(worker)
        self._dealing.leaving(worker)

    def left(self, worker: int) -> None:
        """
        See `Distribution`.
        """
        self._lose(worker)
        self._polling.left(worker)
        self._dealing.left(worker)

    def _lose(self, worker: int) -> None:
        self._scoreboard.mark(worker, False)
        if worker in self._ready and not self._finished:
            self._ready.discard(worker)
            self._steer()

    def heard(self, worker: int, message: Message) -> None:
        """
        See `Distribution`.
        """
        if isinstance(message, Unplaced):
            self._polling.heard(worker, message)
        else:
            self._dealing.heard(worker, message)

    def handing_over(self, worker: int) -> int:
        """
        See `Distribution`.
        """
        return self._dealing.handing_over(worker)

    def finish(self) -> Deferred[None]:
        """
        See `Distribution`.
        """
        self._finished = True
        self._polling.finish()
        return self._dealing.finish()

    def close(self) -> None:
        """
        See `Distribution`.
        """
        self._polling.close()
        self._dealing.close()
