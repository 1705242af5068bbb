"""
Tests for the programs of extended BPF, `kvd.dispatch.programs.round_robin` and
`kvd.dispatch.programs.least_busy`: they choose as their models say, in the kernel and
in its double, and in the kernel they hold every contract that the models hold.
"""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import unittest
from collections.abc import Sequence
from unittest import mock

import pytest
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from kvd.dispatch.contract import rotating
from kvd.dispatch.contract.views import WORKERS, views
from kvd.dispatch.policies.steered import SteeredByLeast, SteeredByTurns
from kvd.dispatch.selection import load_policy
from kvd.interfaces import IDispatchPolicy, IExtendedPolicy, ILoadedProgram
from kvd.ipc.row import ACCEPTED, BEGUN, DONE, OPEN, ROW_WORDS, WORD_BYTES
from kvd.ipc.scoreboard import create_scoreboard
from kvd.model.view import View
from kvd.settings import MAX_PROCS
from kvd.testing import DispatchedByLoadContract, RotatingContract, view
from tests.dispatch.kernels import Kernel, PlayedKernel, TrueKernel, may_load

ROWS = 64
BEFORE = 1 << 20
"""
So many connections each worker has accepted before; fewer are on their way.
"""

LOAD_WITH_ONE_CAPABILITY = f"""
import ctypes, os, struct
from kvd.dispatch.programs.round_robin import Turns
from kvd.dispatch.programs.least_busy import Least
from kvd.ipc.scoreboard import create_scoreboard
from tests.dispatch.kernels import CAP_BPF
low, high = (1 << CAP_BPF) & 0xFFFFFFFF, (1 << CAP_BPF) >> 32
header = struct.pack("=Ii", 0x20080522, 0)
capabilities = struct.pack("=6I", low, low, 0, high, high, 0)
libc = ctypes.CDLL(None, use_errno=True)
assert 0 == libc.capset(header, capabilities)
Turns(2)
Least(create_scoreboard({MAX_PROCS + 1}))
print(CAP_BPF)
"""

needs_privilege = unittest.skipUnless(
    may_load(), "programs of extended BPF take CAP_BPF"
)


@implementer(IDispatchPolicy)
class InKernel(SteeredByTurns):
    """
    A policy that has its program choose, with its memory as a view says.
    """

    def __init__(
        self, case: SynchronousTestCase, kernel: Kernel, rows: int = ROWS
    ) -> None:
        super().__init__()
        self._kernel = kernel
        self._case = case
        with mock.patch("kvd.ipc.scoreboard.create_map", kernel.create_map):
            self.descriptor = create_scoreboard(rows)
        case.addCleanup(os.close, self.descriptor)
        size = (1 + rows) * ROW_WORDS * WORD_BYTES
        self._memory = mmap.mmap(self.descriptor, size)
        self.words = memoryview(self._memory).cast("Q")
        with (
            mock.patch("kvd.net.bpf.create_map", kernel.create_map),
            mock.patch("kvd.dispatch.programs.round_robin.load", kernel.load),
            mock.patch("kvd.dispatch.programs.least_busy.load", kernel.load),
        ):
            self.program_ = self.extended().load(1, self.descriptor)
        case.addCleanup(self.program_.close)

    def extended(self) -> IExtendedPolicy:
        """
        Whose program it is.
        """
        return SteeredByTurns()

    def choose(self, view: View) -> int:
        # Whose turn it is is behind whom it chose last.
        last = (view.turn - 1) % len(view.connections)
        self.admit([last])
        self.run()
        self.admit(view.ready)
        self.see(view)
        return self.run()

    def admit(self, ready: Sequence[int]) -> None:
        """
        Let workers be chosen, each with the socket of its number.
        """
        self.program_.admit(0, {worker: worker for worker in ready})

    def see(self, view: View) -> None:
        """
        Turns have no eyes.
        """

    def run(self) -> int:
        """
        The program's choice.
        """
        return self._kernel.run(self.program_.program(0))


class LeastInKernel(InKernel):
    """
    By load.
    """

    def extended(self) -> IExtendedPolicy:
        return SteeredByLeast()

    def see(self, view: View) -> None:
        for worker in range(len(view.connections)):
            row = (1 + worker) * ROW_WORDS
            self.words[row + ACCEPTED] = BEFORE
            self.words[row + OPEN] = view.connections[worker]
            self.words[row + BEGUN] = BEFORE + view.requests[worker]
            self.words[row + DONE] = BEFORE
        self.look(view.handing_over)

    def look(self, *waiting: Sequence[int]) -> None:
        """
        So often that what is not there is not on its way.
        """
        for _ in range(2):
            self.program_.look(lambda: waiting)


class TurnsModelTests(RotatingContract, SynchronousTestCase):
    """
    The model of ``steered:by=turns``.
    """

    def make_policy(self) -> IDispatchPolicy:
        return load_policy("steered:by=turns")


class LeastModelTests(DispatchedByLoadContract, RotatingContract, SynchronousTestCase):
    """
    The model of ``steered:by=least``.
    """

    def make_policy(self) -> IDispatchPolicy:
        return load_policy("steered:by=least")


@needs_privilege
@pytest.mark.untraced
class TurnsInKernelTests(RotatingContract, SynchronousTestCase):
    """
    The program of ``steered:by=turns``, run by the kernel.
    """

    def make_policy(self) -> IDispatchPolicy:
        return InKernel(self, TrueKernel())


@needs_privilege
@pytest.mark.untraced
class LeastInKernelTests(
    DispatchedByLoadContract, RotatingContract, SynchronousTestCase
):
    """
    The program of ``steered:by=least``, run by the kernel. That it chooses as its model
    does among 64 workers too is shown below; that the model's ties rotate, above.
    """

    def setUp(self) -> None:
        self.patch(rotating, "WORKERS", WORKERS[:-1])

    def make_policy(self) -> IDispatchPolicy:
        return LeastInKernel(self, TrueKernel())


class ProgramTests(SynchronousTestCase):
    """
    The programs, run by the double.
    """

    workers: Sequence[int] = (1, 2, 3, 8, 32)

    def kernel(self) -> Kernel:
        """
        Who runs them.
        """
        return PlayedKernel()

    def turns(self) -> InKernel:
        """
        The program that takes turns.
        """
        return InKernel(self, self.kernel())

    def least(self, rows: int = ROWS) -> LeastInKernel:
        """
        The program that goes by load.
        """
        return LeastInKernel(self, self.kernel(), rows)

    def test_they_provide_the_interface(self) -> None:
        """
        Of what is loaded, and of what loads it.
        """
        for made in (self.turns(), self.least()):
            assert verifyObject(ILoadedProgram, made.program_)
            assert verifyObject(IExtendedPolicy, made.extended())

    def test_they_choose_as_their_models_say(self) -> None:
        """
        Whatever the view.
        """
        for made, model in (
            (self.turns(), SteeredByTurns()),
            (self.least(), SteeredByLeast()),
        ):
            for workers in self.workers:
                for seen in views(workers):
                    assert model.choose(seen) == made.choose(seen)

    def test_turns_are_exact(self) -> None:
        """
        To the connection, and they go on where they were when workers come and go.
        """
        turns = self.turns()
        turns.admit([0, 1, 3])
        assert [0, 1, 3, 0] == [turns.run() for _ in range(4)]
        turns.admit([0, 1, 2, 3])
        assert [1, 2, 3, 0, 1] == [turns.run() for _ in range(5)]
        turns.admit([0, 3])
        assert [3, 0, 3] == [turns.run() for _ in range(3)]

    def test_a_list_that_comes_into_force_unused_keeps_the_turn(self) -> None:
        """
        Workers may become ready one by one before anybody connects.
        """
        turns = self.turns()
        turns.admit([0, 1, 2])
        turns.run()
        for ready in ([0, 2], [0], [0, 1, 2]):
            turns.admit(ready)

        assert [1, 2, 0] == [turns.run() for _ in range(3)]

    def test_before_anybody_is_admitted_the_kernel_hashes(self) -> None:
        """
        The number is no socket's.
        """
        assert -1 == self.turns().run()
        assert -1 == self.least().run()

    def test_what_was_assigned_counts_at_once(self) -> None:
        """
        Nobody has accepted anything yet.
        """
        least = self.least()
        least.see(view(4, requests=[0, 2, 1, 0]))
        least.admit([0, 1, 2, 3])

        chosen = [least.run() for _ in range(9)]
        assert [3, 1, 2, 3] == [chosen.count(worker) for worker in range(4)]

    def test_what_was_accepted_is_no_longer_on_its_way(self) -> None:
        """
        It is among the worker's own then, or has ended.
        """
        least = self.least()
        least.admit([0, 1])
        assert [0, 1, 0] == [least.run() for _ in range(3)]
        least.words[ROW_WORDS + ACCEPTED] += 2

        assert [0, 1] == [least.run() for _ in range(2)]

    def test_what_never_came_is_corrected(self) -> None:
        """
        After a look at the queues nothing of it counts, however much it was.
        """
        least = self.least()
        least.admit([0])
        for _ in range(50):
            least.run()
        least.admit([0, 1])
        assert [1] * 4 == [least.run() for _ in range(4)]

        least.look([0, 4])
        assert [0, 0, 0, 0] == [least.run() for _ in range(4)]

    def test_what_is_missing_for_a_moment_is_not_settled(self) -> None:
        """
        It has been taken from the queue, and is not counted yet.
        """
        least = self.least()
        least.admit([0, 1])
        assert [0, 1, 0] == [least.run() for _ in range(3)]
        least.program_.look(lambda: [[0, 1]])

        assert 1 == least.run()

    def test_a_look_finds_what_waits_at_all_addresses(self) -> None:
        """
        A worker has a socket of each.
        """
        least = self.least()
        least.admit([0, 1, 2])
        least.look([1, 0, 1], [1, 2, 0])

        chosen = [least.run() for _ in range(4)]
        assert [1, 1, 2] == [chosen.count(worker) for worker in range(3)]

    def test_a_look_that_was_overtaken_changes_nothing(self) -> None:
        """
        What it saw is of no one moment.
        """
        least = self.least()
        least.admit([0, 1])

        def waiting() -> Sequence[Sequence[int]]:
            assert 0 == least.run()
            return [[0, 0]]

        least.program_.look(waiting)
        assert [1, 0, 1] == [least.run() for _ in range(3)]

    def test_a_stand_in_does_not_owe_connections(self) -> None:
        """
        It accepted more than it was assigned.
        """
        least = self.least()
        least.admit([0, 1])
        least.words[ROW_WORDS + ACCEPTED] += 100
        least.look([0, 0])

        chosen = [least.run() for _ in range(8)]
        assert [4, 4] == [chosen.count(worker) for worker in range(2)]

    def test_a_replacement_owes_nothing(self) -> None:
        """
        What was on its way to the worker that was lost is others' now.
        """
        least = self.least()
        least.admit([0, 1])
        for _ in range(10):
            least.run()
        least.admit([1])
        least.admit([0, 1])

        assert [0] * 5 == [least.run() for _ in range(5)]

    def test_a_stand_in_shares_a_socket(self) -> None:
        """
        As while workers are restarted: the less busy of the two counts.
        """
        least = self.least()
        least.see(view(3, requests=[4, 3, 0]))
        least.program_.admit(0, {0: 0, 1: 1, 2: 0})

        assert 0 == least.run()
        # Each has half of them.
        least.look([4, 0])
        assert 0 == least.run()
        least.look([8, 0])
        assert 1 == least.run()

    def test_numbers_that_do_not_fit_together_are_none(self) -> None:
        """
        A request may seem to have ended before it began.
        """
        least = self.least()
        least.see(view(2, requests=[0, 1]))
        least.words[ROW_WORDS + DONE] += 3
        least.admit([0, 1])

        assert [0, 1, 0] == [least.run() for _ in range(3)]


@needs_privilege
class ProgramInKernelTests(ProgramTests):
    """
    The same in the kernel, so that the double can be trusted.
    """

    workers = (1, 2, 3, 8, 32, 64)

    def kernel(self) -> Kernel:
        return TrueKernel()

    def test_the_kernel_takes_them_for_as_many_workers_as_may_be(self) -> None:
        """
        The verifier looks at a million instructions, and no more.
        """
        workers = MAX_PROCS + 1
        least = self.least(workers)
        least.see(view(workers, requests=[1] * MAX_PROCS + [0]))
        least.admit(range(workers))
        assert [MAX_PROCS, 0, 1] == [least.run() for _ in range(3)]

        turns = self.turns()
        turns.admit(range(MAX_PROCS))
        assert list(range(MAX_PROCS)) == [turns.run() for _ in range(MAX_PROCS)]

    def test_one_capability_is_enough(self) -> None:
        """
        With it alone, the verifier is stricter than with all.
        """
        loaded = subprocess.run(
            [sys.executable, "-c", LOAD_WITH_ONE_CAPABILITY],
            env=os.environ | {"PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
        )

        assert ("39\n", "") == (loaded.stdout, loaded.stderr)
