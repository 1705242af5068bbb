"""
Brings connections to workers under any policy, and switches policies without losing a
connection.

One design serves all policies. The listening sockets of an address are created once and
kept until the daemon ends. A policy decides which of them a connection goes to, by the
kernel's hash or by a program, and which process accepts it there: a worker that polls
the socket, or the supervisor, which hands the connection over. Switching the policy
changes only which process polls which socket. No socket is closed, and each one is
always polled by some process, since connections may still arrive at one that the new
policy does not use.

A policy that gives each worker its own sockets gets more of them when there are more
workers, if this process may create them; a Unix address always has one socket.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence, Set
from math import inf
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from kvd.dispatch.arrangement import ChosenPolicy, arrange
from kvd.dispatch.deciding import Decider
from kvd.dispatch.dispatcher import Dispatcher
from kvd.dispatch.listener_assignment import ListenerAssignment
from kvd.dispatch.reuseport_programs import Fallback, ReuseportPrograms
from kvd.dispatch.selection import load_policy
from kvd.dispatch.shadow import Shadow
from kvd.dispatch.stalling import UNAWAITED_LOOK_SECONDS, Stalls
from kvd.errors import BadSetting
from kvd.interfaces import IGatedPolicy
from kvd.ipc.channel import Channel
from kvd.ipc.messages import Message, Unplaced
from kvd.ipc.scoreboard import Scoreboard
from kvd.net.listening import ListenerGroup

_ROUNDING_SECONDS: Final = 0.001
"""
What is due after a difference of two times could else come too early by the last digit.
"""


def choose_policy(name: str, workers: int) -> ChosenPolicy:
    """
    Find a policy by its name.

    Raises:
        UnknownPlugin: There is no such policy.
        BrokenPlugin: It cannot be used.
        BadSetting: Its options are wrong.
    """
    policy = load_policy(name)
    return ChosenPolicy(name, policy, arrange(name, policy, workers))


def choose_shadow(name: str, chosen: ChosenPolicy) -> ChosenPolicy:
    """
    Find a policy that is to be the shadow.

    Args:
        name: The policy's name.
        chosen: The policy in force.

    Raises:
        OperatorError: As `choose_policy`; or the supervisor dispatches no connections
            under the policy in force.
    """
    shadow = choose_policy(name, len(chosen.arrangement.members))
    if chosen.arrangement.kernel_chooses:
        raise BadSetting(
            f"the shadow {name!r} would see nothing: under the policy"
            f" {chosen.name!r} the supervisor dispatches no connections; choose one"
            " under which it does, such as roundrobin, or record them (--record) and"
            " simulate"
        )
    return shadow


class PolicyDistribution:
    """
    Assigns listeners and dispatches connections as the policy in force requires.

    Provides `kvd.workers.distribution.Distribution`.
    """

    _log = Logger()

    def __init__(
        self,
        chosen: ChosenPolicy,
        groups: Sequence[ListenerGroup],
        programs: ReuseportPrograms,
        scoreboard: Scoreboard,
        max_connections: int,
        reactor: Any,
        shadow: ChosenPolicy | None = None,
        hang_seconds: float = inf,
    ) -> None:
        """
        Args:
            chosen: The first policy.
            groups: The listening sockets; closed when this finishes.
            programs: The programs on these sockets; closed when the last worker has
                ended.
            scoreboard: Shows how busy the workers are; the ready ones are marked there.
            max_connections: How many connections one worker may have open.
            reactor: Watches the sockets and provides the time.
            shadow: The shadow policy.
            hang_seconds: How long a worker may make no turn.
        """
        self.shadow = shadow
        self.hang_seconds = hang_seconds
        self.hung: Callable[[int, float], None] = lambda worker, seconds: None
        """Called with the number of a worker that has not responded for longer, and for
        how long: it is to be replaced. `left` is called for it."""
        self._scoreboard = scoreboard
        self._groups = groups
        self._assignment = ListenerAssignment(None, groups, reactor)
        self._dispatcher = Dispatcher(
            None, groups, scoreboard, max_connections, reactor
        )
        self._finished = False
        self._ready: set[int] = set()
        self._programs = programs
        self._reactor = reactor
        self._looking: Any = None
        self._max_connections = max_connections
        self._stalls = Stalls(scoreboard)
        self._hang_call: Any = None
        self.switch(chosen)
        self._look_for_stalls_later()

    def switch(self, chosen: ChosenPolicy) -> None:
        """
        Put another policy in force.
        """
        self.chosen = chosen
        self.shadow_by(self.shadow)
        arrangement = chosen.arrangement
        for group in self._groups:
            self._grow(group, arrangement.group_size)
        self._programs.switch(chosen, self._prompt())
        self._look_later()
        # New processes start to accept before the old ones stop: connections would
        # wait at a socket that no process polls.
        if arrangement.kernel_chooses:
            gate = chosen.name if IGatedPolicy.providedBy(chosen.policy) else ""
            self._assignment.arrange(arrangement.members, gate)
            self._dispatcher.dispatch_by(None)
        else:
            self._dispatcher.dispatch_by(Decider(chosen.name, chosen.policy))
            self._assignment.arrange(None)

    def limit(self, max_connections: int) -> None:
        """
        Set how many connections a worker may have open.
        """
        self._max_connections = self._dispatcher.max_connections = max_connections

    def shadow_by(self, shadow: ChosenPolicy | None) -> None:
        """
        Set the shadow policy, or none. While the kernel chooses, a shadow sees nothing;
        it starts when a policy under which the supervisor dispatches is in force.
        """
        self.shadow = shadow
        self._dispatcher.shadow = None
        if shadow is not None and not self.chosen.arrangement.kernel_chooses:
            self._dispatcher.shadow = Shadow(shadow.name, shadow.policy)

    def shadow_counts(self, workers: Sequence[int]) -> dict[str, Any] | None:
        """
        What the shadow would have done since this policy is in force.

        Args:
            workers: The present workers.

        Returns:
            Plain data, without counts while the kernel chooses; None: no shadow.
        """
        if self.shadow is None:
            return None
        reported = {
            "policy": self.shadow.name,
            "model": self.shadow.arrangement.kernel_chooses,
        }
        looking = self._dispatcher.shadow
        return reported if looking is None else reported | looking.counts(workers)

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

    def _look(self) -> None:
        self._looking = None
        self._programs.look()
        self._look_later()

    def _look_later(self) -> None:
        seconds = self._programs.look_seconds
        if self._looking is None and seconds is not None and not self._finished:
            self._looking = self._reactor.callLater(seconds, self._look)

    # -- stalled workers ------------------------------------------------------

    def _look_for_stalls_later(self) -> None:
        wait = UNAWAITED_LOOK_SECONDS
        if self.chosen.arrangement.kernel_chooses:
            wait = self._stalls.due_seconds
        now = self._reactor.seconds()
        self._stall_call = self._reactor.callLater(
            wait, self._look_for_stalls, now, wait
        )
        self._hang_call = None
        left = self._stalls.until_hung(self.hang_seconds) + _ROUNDING_SECONDS
        if left < wait:
            self._hang_call = self._reactor.callLater(left, self._report_hung, now)

    def _look_for_stalls(self, looked: float, wait: float) -> None:
        """
        Args:
            looked: The time of the last look.
            wait: When this look was due, in seconds after it.
        """
        seconds = self._reactor.seconds() - looked
        try:
            self._find_stalls(seconds, wait)
        finally:
            if not self._finished:
                self._look_for_stalls_later()

    def _find_stalls(self, seconds: float, wait: float) -> None:
        self._assignment.wake_for_waiting()
        ask = self._assignment.ask
        if self._stalls.look(seconds, wait, self._ready, self._awaited, ask):
            for worker in self._ready:
                self._scoreboard.mark(worker, worker not in self._stalls.stalled)
            self._programs.admit(self._prompt())
            self._assignment.stalled(self._stalls.stalled)
        self._report_hung(self._reactor.seconds())

    def _report_hung(self, looked: float) -> None:
        """
        Args:
            looked: The time of the last look.
        """
        since = self._reactor.seconds() - looked
        for worker, silent in self._stalls.hung(self.hang_seconds, since):
            self.hung(worker, silent)

    @property
    def stalled(self) -> Set[int]:
        """
        The workers that make no turn, so that others take their connections.
        """
        return self._stalls.stalled

    def _awaited(self, workers: Collection[int]) -> Collection[int]:
        connections, _ = self._scoreboard.tasks()
        # A worker at its limit leaves connections in the queue without being stalled.
        # Those that the supervisor dispatches do not wait for long
        # (`kvd.dispatch.dispatcher`).
        able = [w for w in workers if connections[w] < self._max_connections]
        return self._assignment.awaited(able)

    def _prompt(self) -> Set[int]:
        """
        The workers that get new connections: those that are not stalled, or all ready
        workers if all are stalled.
        """
        return self._ready - self._stalls.stalled or self._ready

    @property
    def fallbacks(self) -> Sequence[Fallback]:
        """
        The fallbacks in use, at addresses where the policy's own program is not
        available.
        """
        return self._programs.fallbacks

    def joined(self, worker: int, channel: Channel) -> None:
        """
        See `Distribution`.
        """
        self._dispatcher.joined(worker, channel)
        self._assignment.joined(worker, channel)
        self._ready.add(worker)
        self._scoreboard.mark(worker, True)
        self._programs.admit(self._prompt())

    def leaving(self, worker: int) -> None:
        """
        See `Distribution`.
        """
        self._lose(worker)
        self._assignment.leaving(worker)
        self._dispatcher.leaving(worker)

    def left(self, worker: int) -> None:
        """
        See `Distribution`.
        """
        self._lose(worker)
        self._assignment.left(worker)
        self._dispatcher.left(worker)

    def _lose(self, worker: int) -> None:
        self._scoreboard.mark(worker, False)
        if worker in self._ready and not self._finished:
            self._ready.discard(worker)
            self._stalls.forget(worker)
            self._assignment.stalled(self._stalls.stalled)
            self._programs.admit(self._prompt())

    def received(self, worker: int, message: Message) -> None:
        """
        See `Distribution`.
        """
        if isinstance(message, Unplaced):
            self._assignment.received(worker, message)
        else:
            self._dispatcher.received(worker, message)

    def handing_over(self, worker: int) -> int:
        """
        See `Distribution`.
        """
        return self._dispatcher.handing_over(worker)

    def finish(self) -> Deferred[None]:
        """
        See `Distribution`.
        """
        self._finished = True
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        for call in (self._stall_call, self._hang_call):
            if call is not None and call.active():
                call.cancel()
        self._assignment.finish()
        return self._dispatcher.finish()

    def close(self) -> None:
        """
        See `Distribution`.
        """
        self._assignment.close()
        self._dispatcher.close()
        self._programs.close()
