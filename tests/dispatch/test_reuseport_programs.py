"""
Tests for `kvd.dispatch.reuseport_programs`: true sockets, and a kernel that refuses
what a test says.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest import mock

import pytest
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from kvd.dispatch.distribution import choose_policy
from kvd.dispatch.policies.steered import SteeredByLeast, SteeredByTurns
from kvd.dispatch.reuseport_programs import HASH, ReuseportPrograms
from kvd.interfaces import ILoadedProgram
from kvd.ipc.scoreboard import create_scoreboard
from kvd.model.programs import ClassicProgram, LoadedProgram
from kvd.net.listening import ListenerGroup, open_group
from kvd.net.reuseport import by_chance
from kvd.settings import TCPAddress, UNIXAddress
from tests.descriptors import Descriptors

WORKERS = 3
EXTENDED = LoadedProgram(1000)


@implementer(ILoadedProgram)
class PlayedProgram:
    """
    Remembers what it is called with.
    """

    look_seconds: float | None = 0.5

    def __init__(self, needs_own_sockets: bool = False) -> None:
        self.needs_own_sockets = needs_own_sockets
        self.admitted: dict[int, Mapping[int, int]] = {}
        self.looks: list[Sequence[Sequence[int]]] = []
        self.closed = False

    def program(self, group: int) -> LoadedProgram:
        return LoadedProgram(EXTENDED + group)

    def admit(self, group: int, sockets: Mapping[int, int]) -> None:
        self.admitted[group] = sockets

    def look(self, waiting: Callable[[], Sequence[Sequence[int]]]) -> None:
        self.looks.append(waiting())

    def close(self) -> None:
        self.closed = True


class ProgramsTests(SynchronousTestCase):
    """
    An address with a socket for each of three workers, and a second one.
    """

    def setUp(self) -> None:
        self.groups = [self.open(WORKERS), self.open(WORKERS)]
        self.refused: tuple[type, ...] = ()
        self.attached: list[ClassicProgram | LoadedProgram | None] = []
        self.patch(ListenerGroup, "attach_program", self.attach)
        self.loaded = PlayedProgram()
        self.load: Any = self.give
        self.patch(SteeredByTurns, "load", lambda *given: self.load())
        self.programs = ReuseportPrograms(self.groups, scoreboard=-1)
        self.addCleanup(self.programs.close)

    def open(self, size: int) -> ListenerGroup:
        """
        Listen somewhere.
        """
        group = open_group(TCPAddress("127.0.0.1", 0), size)
        self.addCleanup(group.close)
        return group

    def give(self) -> PlayedProgram:
        """
        The kernel takes the program.
        """
        return self.loaded

    def forbid(self) -> PlayedProgram:
        """
        The kernel does not.
        """
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    def attach(self, program: ClassicProgram | LoadedProgram | None) -> None:
        """
        Remember, or refuse.
        """
        if isinstance(program, self.refused):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        self.attached.append(program)

    def switch(self, name: str, ready: set[int] | None = None) -> list[str]:
        """
        To a policy.

        Returns:
            What is logged.
        """
        everybody = set(range(WORKERS))
        with capturedLogs() as events:
            self.programs.switch(
                choose_policy(name, WORKERS), everybody if ready is None else ready
            )
        return [event["log_format"].format(**event) for event in events]

    def look_seconds(self) -> float | None:
        """
        How often looks are wanted.
        """
        return self.programs.look_seconds

    def by(self) -> list[str]:
        """
        What chooses at each address where the policy's own program does not.
        """
        return [fallback.by for fallback in self.programs.fallbacks]

    def test_the_double_provides_the_interface(self) -> None:
        """
        As those do that it stands for.
        """
        assert verifyObject(ILoadedProgram, self.loaded)

    def test_an_extended_program_is_attached_once_and_learns_who_is_ready(self) -> None:
        """
        Also when workers come and go.
        """
        assert [] == self.switch("steered:by=turns", {0, 2})
        assert [EXTENDED, EXTENDED + 1] == self.attached
        assert {0: {0: 0, 2: 2}, 1: {0: 0, 2: 2}} == self.loaded.admitted

        self.programs.admit({1})
        assert [EXTENDED, EXTENDED + 1] == self.attached
        assert {0: {1: 1}, 1: {1: 1}} == self.loaded.admitted
        assert [] == self.by()

    def test_nothing_is_attached_once_another_process_does(self) -> None:
        """
        Whoever gets ready, or is lost.
        """
        self.switch("reuseport", {0, 1, 2})
        self.programs.leave()
        self.attached.clear()
        self.programs.admit({0, 1})
        assert [] == self.attached

    def test_before_anybody_is_ready_all_are_meant(self) -> None:
        """
        Who connects meanwhile waits for one of them.
        """
        self.switch("steered:by=turns", set())

        assert {0: 0, 1: 1, 2: 2} == self.loaded.admitted[0]

    def test_a_stand_in_has_the_socket_of_another(self) -> None:
        """
        Its number is beyond the others'.
        """
        self.switch("steered:by=turns", {1, WORKERS})

        assert {1: 1, WORKERS: 0} == self.loaded.admitted[0]

    def test_what_is_not_taken_is_replaced_by_chance(self) -> None:
        """
        One sentence says so, and nothing more when workers come and go.
        """
        self.load = self.forbid
        (warning,) = self.switch("steered:by=turns")
        assert (
            "policy steered:by=turns is not available, since the kernel does not take"
            " its program (Operation not permitted; CAP_BPF allows it);"
            " steered:by=random is used instead"
        ) == warning
        assert [by_chance(range(3))] * 2 == self.attached
        with capturedLogs() as events:
            self.programs.admit({1, 2})
        assert [] == events
        assert [by_chance([1, 2])] * 2 == self.attached[2:]

        assert ["steered:by=random"] * 2 == self.by()
        addresses = [fallback.address for fallback in self.programs.fallbacks]
        assert [str(group.address) for group in self.groups] == addresses

    def test_what_is_not_attached_is_replaced_by_chance(self) -> None:
        """
        It may be allowed to load and not to use.
        """
        self.refused = (int,)
        (warning,) = self.switch("steered:by=turns")

        assert (
            "attaches no such program (Permission denied); steered:by=random" in warning
        )
        assert [by_chance(range(3))] * 2 == self.attached
        assert ["steered:by=random"] * 2 == self.by()

    def test_where_no_program_is_allowed_the_hash_is_used(self) -> None:
        """
        And one sentence is enough.
        """
        self.load = self.forbid
        self.refused = (int, bytes)
        (warning,) = self.switch("steered:by=turns")
        assert warning.endswith("; the kernel's hash is used instead")
        assert [HASH] * 2 == self.by()

        (warning,) = self.switch("steered")
        assert (
            "policy steered is not available, since the kernel attaches no program"
            " (Permission denied); the kernel's hash is used instead"
        ) == warning
        assert [HASH] * 2 == self.by()

    def test_a_dispatcher_needs_no_program(self) -> None:
        """
        The supervisor accepts from all sockets; others are not kept to theirs.
        """
        self.refused = (bytes,)
        assert 1 == len(self.switch("leastbusy"))
        assert [] == self.by()

        self.switch("shared")
        assert [HASH] * 2 == self.by()

    def test_what_was_refused_is_asked_for_again_by_a_switch(self) -> None:
        """
        Whoever forbade it may have thought better of it.
        """
        self.load = self.forbid
        self.switch("steered:by=turns")
        self.switch("steered")
        assert [] == self.by()
        assert 1 == len(self.switch("steered:by=turns"))

        self.load = self.give
        assert [] == self.switch("steered:by=turns")
        assert [EXTENDED, EXTENDED + 1] == self.attached[-2:]
        assert [] == self.by()

    def test_what_is_loaded_early_needs_no_privilege_later(self) -> None:
        """
        Nor when other policies were in force meanwhile.
        """
        self.programs.prepare(choose_policy("steered:by=turns", WORKERS))
        self.load = self.forbid

        for name in ("steered:by=turns", "reuseport", "steered:by=turns"):
            assert [] == self.switch(name)
        assert [EXTENDED, EXTENDED + 1] == self.attached[-2:]

    def test_one_that_needs_a_socket_for_each_worker_is_not_used_without(self) -> None:
        """
        An address from elsewhere may have fewer, so it does not know which it counts.
        """
        self.loaded.needs_own_sockets = True
        self.groups[1].members[2].close()
        self.groups[1].members = self.groups[1].members[:2]
        (warning,) = self.switch("steered:by=turns")

        assert "since there are 2 sockets for 3 workers; steered:by=random" in warning
        assert [EXTENDED, by_chance(range(2))] == self.attached
        (fallback,) = self.programs.fallbacks
        assert str(self.groups[1].address) == fallback.address

    def test_a_policy_that_fails_is_replaced_by_chance(self) -> None:
        """
        It may be somebody else's.
        """

        def fail() -> PlayedProgram:
            raise KeyError("code")

        self.load = fail
        warnings = self.switch("steered:by=turns")

        assert warnings[-1].endswith(
            "since it fails; steered:by=random is used instead"
        )
        assert 1 == len(self.flushLoggedErrors(KeyError))

    def test_looks_are_wanted_while_it_is_in_force(self) -> None:
        """
        And only at the addresses where it chooses.
        """
        self.switch("reuseport")
        assert None is self.look_seconds()
        self.programs.look()

        self.switch("steered:by=turns")
        assert 0.5 == self.look_seconds()
        self.programs.look()
        assert [[[0] * 3, [0] * 3]] == self.loaded.looks

        self.refused = (int,)
        self.switch("steered")
        self.switch("steered:by=turns")
        assert None is self.look_seconds()

    def test_one_socket_needs_no_program(self) -> None:
        """
        A Unix socket is always alone.
        """
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        group = open_group(UNIXAddress(f"{folder.name}/socket"), 1)
        self.addCleanup(group.close)
        self.programs = ReuseportPrograms([group, self.groups[0]], scoreboard=-1)
        self.switch("steered:by=turns")

        assert [EXTENDED + 1] == self.attached
        self.programs.look()
        assert [[[0] * 3]] == self.loaded.looks

    def test_what_was_loaded_is_let_go_of(self) -> None:
        """
        In the end.
        """
        self.switch("steered:by=turns")
        self.switch("reuseport")
        self.programs.close()

        assert self.loaded.closed


class UnreadableTests(SynchronousTestCase):
    """
    A scoreboard that is not the kernel's.
    """

    def test_what_reads_it_is_refused(self) -> None:
        """
        With or without a privilege, and nothing is left open.
        """
        refused = OSError(errno.EPERM, os.strerror(errno.EPERM))
        with mock.patch("kvd.ipc.scoreboard.create_map", side_effect=refused):
            memory = create_scoreboard(2)
        self.addCleanup(os.close, memory)
        opened = Descriptors("anon_inode:bpf")
        with pytest.raises(OSError, match="Errno"):
            SteeredByLeast().load(1, memory)

        assert 0 == opened.more
