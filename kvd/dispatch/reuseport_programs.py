"""
Reuseport programs: BPF programs that choose which of the sockets of an address gets a
connection.

If a policy has a program, it is attached to each address, and updated whenever a worker
becomes ready or is lost. If a program is not available, the fallback is the next of

=================================  ====================================================
the policy's extended program      needs a privilege, or a kernel that asks for none,
                                   and usually a socket for each worker
its program of classic BPF         needs none, but the kernel may still refuse it
the kernel's hash                  is always there
=================================  ====================================================

Extended programs are loaded as early as possible (`ReuseportPrograms.prepare`), since a
daemon may give up its privileges before it serves.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final

from twisted.logger import Logger

from kvd.dispatch.arrangement import ChosenPolicy
from kvd.interfaces import IExtendedPolicy, ILoadedProgram, IProgramPolicy
from kvd.model.programs import ClassicProgram, LoadedProgram
from kvd.net.listening import ListenerGroup
from kvd.net.reuseport import by_chance

HASH: Final = "the kernel's hash"


@dataclass(frozen=True, slots=True)
class Fallback:
    """
    What chooses the socket at an address if the policy's own program is not available.
    """

    address: str
    by: str
    """A policy, as an operator would write it, or `HASH`."""
    reason: str


class ReuseportPrograms:
    """
    Attaches the programs of the policy in force to all addresses.
    """

    _log = Logger()

    def __init__(self, groups: Sequence[ListenerGroup], scoreboard: int) -> None:
        """
        Args:
            groups: The sockets of all addresses.
            scoreboard: The descriptor of its memory, which stays the caller's.
        """
        self._groups = groups
        self._scoreboard = scoreboard
        self._chosen: ChosenPolicy | None = None
        # The sockets of each worker, by group.
        self._own: dict[int, Sequence[Sequence[int]]] = {}
        self._loaded: dict[str, ILoadedProgram] = {}
        self._not_loaded: dict[str, str] = {}
        # By group: the program that was attached last, and why the kernel refused it.
        self._attached: dict[
            int, tuple[ClassicProgram | LoadedProgram | None, str | None]
        ] = {}
        self._without_extended: dict[int, str] = {}
        self._fallbacks: dict[int, Fallback] = {}
        self._reported: set[tuple[str, str]] = set()
        self._reported_unsteered = False

    def prepare(self, chosen: ChosenPolicy) -> None:
        """
        Load the extended program of a policy, if it has one.
        """
        name, policy = chosen.name, chosen.policy
        if not IExtendedPolicy.providedBy(policy) or name in self._loaded:
            return
        self._not_loaded.pop(name, None)
        try:
            program = policy.load(len(self._groups), self._scoreboard)
        except OSError as error:
            allowed = "; CAP_BPF allows it" if error.errno == errno.EPERM else ""
            self._not_loaded[name] = (
                f"the kernel does not take its program ({_words(error)}{allowed})"
            )
        except Exception:
            self._log.failure("policy {name} cannot load its program", name=name)
            self._not_loaded[name] = "it fails"
        else:
            self._loaded[name] = program

    def switch(self, chosen: ChosenPolicy, ready: Set[int]) -> None:
        """
        Change the policy, or the number of workers.

        Args:
            chosen: The policy that decides from now on.
            ready: The workers that are ready.
        """
        if self._chosen is None or chosen.name != self._chosen.name:
            self._reported.clear()
        self._chosen = chosen
        # Another process may have attached its own since (`kvd.daemon.upgrade`).
        self._attached.clear()
        self._without_extended.clear()
        self._fallbacks.clear()
        self._own = {
            number: _own(chosen.arrangement.members, len(group.members))
            for number, group in enumerate(self._groups)
            # With one socket there is no choice.
            if len(group.members) > 1
        }
        self.prepare(chosen)
        self.admit(ready)

    def leave(self) -> None:
        """
        Attach nothing more: from now on another process does.
        """
        self._own = {}

    def admit(self, ready: Set[int]) -> None:
        """
        Assign connections to these workers from now on.
        """
        for number, own in self._own.items():
            # Before any worker is ready: all that will be.
            workers = ready or range(len(own))
            self._admit(number, {worker: own[worker % len(own)] for worker in workers})

    def _admit(self, number: int, sockets: Mapping[int, Sequence[int]]) -> None:
        assert self._chosen is not None
        policy = self._chosen.policy
        reason, fallback = None, ""
        if IExtendedPolicy.providedBy(policy):
            reason, fallback = self._extend(number, sockets), policy.fallback
            if reason is None:
                return
        refused = self._attach(number, self._classic(number, sockets))
        if refused is not None:
            reason = reason or f"the kernel attaches no program ({refused})"
            self._use_fallback(number, HASH, reason)
        elif reason is not None:
            self._use_fallback(number, fallback, reason)

    def _extend(self, number: int, sockets: Mapping[int, Sequence[int]]) -> str | None:
        """
        Attach the policy's extended program.

        Returns:
            None, or why that is not possible.
        """
        assert self._chosen is not None
        if number in self._without_extended:
            return self._without_extended[number]
        there = len(self._groups[number].members)
        wanted = self._chosen.arrangement.group_size
        program = self._loaded.get(self._chosen.name)
        if program is None:
            reason: str | None = self._not_loaded[self._chosen.name]
        elif program.needs_own_sockets and there < wanted:
            reason = f"there are {there} sockets for {wanted} workers"
        else:
            program.admit(number, {worker: own[0] for worker, own in sockets.items()})
            refused = self._attach(number, program.program(number))
            reason = refused and f"the kernel attaches no such program ({refused})"
        if reason is not None:
            self._without_extended[number] = reason
        return reason

    def _classic(
        self, number: int, sockets: Mapping[int, Sequence[int]]
    ) -> ClassicProgram | None:
        """
        The program of classic BPF that chooses; None for the kernel's hash.
        """
        assert self._chosen is not None
        policy = self._chosen.policy
        members = sorted({member for own in sockets.values() for member in own})
        there = len(self._groups[number].members)
        if not members:
            # The supervisor accepts from all of them.
            members = list(range(min(there, self._chosen.arrangement.group_size)))
        if IProgramPolicy.providedBy(policy):
            try:
                program: ClassicProgram = policy.program(members)
                return program
            except Exception:
                self._log.failure(
                    "policy {name} has no program for its sockets; the choice is"
                    " random",
                    name=self._chosen.name,
                )
        elif len(members) == there:
            return None
        return by_chance(members)

    def _attach(
        self, number: int, program: ClassicProgram | LoadedProgram | None
    ) -> str | None:
        """
        Returns:
            None, or why it is not possible.
        """
        if number in self._attached and self._attached[number][0] == program:
            return self._attached[number][1]
        try:
            self._groups[number].attach_program(program)
            reason = None
        except OSError as error:
            reason = _words(error)
        self._attached[number] = program, reason
        return reason

    def _use_fallback(self, number: int, by: str, reason: str) -> None:
        assert self._chosen is not None
        if self._chosen.arrangement.kernel_chooses:
            # Otherwise the supervisor accepts from all sockets.
            address = str(self._groups[number].address)
            self._fallbacks[number] = Fallback(address, by, reason)
        if IProgramPolicy.providedBy(self._chosen.policy):
            self._report_fallback(by, reason)
        elif not self._reported_unsteered:
            self._reported_unsteered = True
            self._log.warn(
                "{reason}; policy {policy} needs one to use only some of the sockets:"
                " the kernel's hash uses all of them, and other workers serve the rest",
                reason=reason,
                policy=self._chosen.name,
            )

    def _report_fallback(self, by: str, reason: str) -> None:
        # Once for all addresses, and not again when workers are replaced.
        if (by, reason) not in self._reported:
            self._reported.add((by, reason))
            assert self._chosen is not None
            self._log.warn(
                "policy {policy} is not available, since {reason}; {fallback} is used"
                " instead",
                policy=self._chosen.name,
                reason=reason,
                fallback=by,
            )

    @property
    def fallbacks(self) -> Sequence[Fallback]:
        """
        The addresses at which the policy's own program is not in force.
        """
        return list(self._fallbacks.values())

    @property
    def look_seconds(self) -> float | None:
        """
        The interval at which the program in force needs `look`; None: never.
        """
        program = self._in_force()
        return None if program is None else program.look_seconds

    def look(self) -> None:
        """
        Let the program in force compare its counts with the kernel's queues.
        """
        program = self._in_force()
        if program is not None:
            program.look(self._waiting)

    def _in_force(self) -> ILoadedProgram | None:
        """
        The extended program that is attached to a group, if there is one.
        """
        assert self._chosen is not None
        program = self._loaded.get(self._chosen.name)
        return program if program is not None and self._extended() else None

    def _waiting(self) -> Sequence[Sequence[int]]:
        return [group.waiting() for group in self._extended()]

    def _extended(self) -> Sequence[ListenerGroup]:
        return [
            group
            for number, group in enumerate(self._groups)
            if number not in self._without_extended and len(group.members) > 1
        ]

    def close(self) -> None:
        """
        Close all programs.
        """
        for program in self._loaded.values():
            program.close()
        self._loaded.clear()


def _own(members: Sequence[Collection[int]], there: int) -> Sequence[Sequence[int]]:
    """
    The sockets of each worker, if there are so many.
    """
    return [sorted(member % there for member in own) for own in members]


def _words(error: OSError) -> str:
    return error.strerror or str(error)
