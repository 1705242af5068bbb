"""
``steered:by=least``: a program that reads the load of each worker from the scoreboard
and chooses the least busy worker.

The kernel reads the scoreboard at each choice (`kvd.ipc.scoreboard`), so the end
of a request counts as soon as its worker has seen it, and nothing is copied. Workers
cannot report the connections on their way to them. So the program counts the
connections that it *assigned*; those that the worker has accepted since are no longer
on their way::

    on the way  =  assigned - accepted - corrected, and at least 0
    load        =  (requests in progress + on the way, connections + on the way)

The worker does not accept every connection that was assigned to it: the program counts
first packets, and a connection may never be established, or its packet may be sent
again because a queue is full. A worker also accepts connections that were assigned to
others while it stands in for them. So a few times a second the supervisor compares the
counts with the kernel's queues and *corrects* a difference that it has seen twice in a
row: a connection takes a moment to reach a queue, and to be counted once it has left
the queue. A worker that replaces a lost one begins with no connection on its way.

Workers that tie take turns. The choice is exactly that of
`kvd.dispatch.policies.leastbusy`. Connections that reach several processors at the same
moment may be assigned by the same loads and turn.

The program loops over all workers: 0.1 µs with 32 of them, 22 µs with 4,096. With
4,096, the verifier, which follows every iteration, examines a sixth of the million
instructions that it allows, in 50 ms.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from zope.interface import implementer

from kvd.dispatch.programs.assembly import Assembly, If, Operation, Register
from kvd.interfaces import ILoadedProgram
from kvd.ipc.row import ACCEPTED, BEGUN, DONE, OPEN, ROW_WORDS
from kvd.ipc.scoreboard import ROWS_TOGETHER, Scoreboard, rounded_up
from kvd.model.programs import LoadedProgram
from kvd.net.bpf import WORD_BYTES, Words, load

R0, R1, R2, R3 = list(Register)[:4]
ROW, ENTRY, WORKERS, WORKER, BEST, TURN = list(Register)[4:]

# Words of the program's own memory: whose turn it is and the number of workers to look
# at, then an entry for each worker: the connections that were assigned, those of them
# that were corrected, and the number of its socket plus 1; 0 means that it gets none.
_TURN, _WORKERS = range(2)
_ENTRIES: Final = 4
_ASSIGNED, _CORRECTED, _SOCKET, _ = range(4)
_ENTRY_WORDS: Final = 4

# A load as a number: requests, connections, and the distance from the worker whose turn
# it is. The smaller number is the smaller load.
_DISTANCE_BITS: Final = 13
_CONNECTIONS_BITS: Final = 24
_DISTANCES: Final = (1 << _DISTANCE_BITS) - 1
_NO_LOAD_BITS: Final = 60
"""
The bits from here on are 0 in each load, and 1 for a worker that gets no connection.
"""

_NONE: Final = -1
"""
Not the number of a socket: the kernel then uses its hash.
"""

_MODULUS: Final = 1 << 64

LOOK_SECONDS: Final = 0.1
LOOK_SECONDS_FOR_EACH: Final = 0.00025
"""
Looking at a queue takes 2 µs; all queues together may take a hundredth of the
supervisor's time.
"""


def weighing(scoreboard: int, entries: int, rows: int) -> bytes:
    """
    The program.

    Its form suits verifiers that guard against speculative execution, as they do unless
    the process has CAP_PERFMON too. Each jump costs such a verifier a state, so one
    iteration takes several rows. No address may be outside of the memory, even if the
    program does not read from it.

    Args:
        scoreboard: The descriptor of its map.
        entries: The descriptor of the program's own map.
        rows: The largest number of workers; a multiple of `ROWS_TOGETHER`.
    """
    code = Assembly()
    code.address(R1, entries)
    code.load(TURN, R1, _TURN)
    code.load(WORKERS, R1, _WORKERS)
    code.address(ENTRY, entries, _ENTRIES)
    # The first row belongs to the scoreboard itself.
    code.address(ROW, scoreboard, ROW_WORDS)
    code.constant(BEST, 1 << _NO_LOAD_BITS)
    code.do(Operation.SET, WORKER, 0)
    code.label("next worker")
    code.jump(If.AT_LEAST, WORKER, WORKERS, "all seen")
    # Rows beyond the last worker have no socket.
    for _ in range(ROWS_TOGETHER):
        _weigh(code)
        _take_lesser(code)
        code.do(Operation.ADD, ROW, ROW_WORDS * WORD_BYTES)
        code.do(Operation.ADD, ENTRY, _ENTRY_WORDS * WORD_BYTES)
        code.do(Operation.ADD, WORKER, 1)
    code.jump(If.BELOW, WORKER, rows, "next worker")
    code.label("all seen")
    _assign(code, entries, rows)
    return code.assemble()


def _weigh(code: Assembly) -> None:
    """
    Set R1 to the load of a worker, as a number.
    """
    code.load(R1, ROW, BEGUN)
    code.load(R2, ROW, DONE)
    code.do(Operation.SUBTRACT, R1, R2)
    # The two are not read at the same moment.
    _at_least_0(code, R1)
    code.load(R2, ENTRY, _ASSIGNED)
    code.load(R3, ROW, ACCEPTED)
    code.do(Operation.SUBTRACT, R2, R3)
    code.load(R3, ENTRY, _CORRECTED)
    code.do(Operation.SUBTRACT, R2, R3)
    _at_least_0(code, R2)
    code.do(Operation.ADD, R1, R2)
    code.load(R3, ROW, OPEN)
    code.do(Operation.ADD, R2, R3)
    code.do(Operation.SHIFT_LEFT, R1, _CONNECTIONS_BITS)
    code.do(Operation.ADD, R1, R2)
    code.do(Operation.SHIFT_LEFT, R1, _DISTANCE_BITS)
    code.do(Operation.SET, R2, WORKER)
    code.do(Operation.SUBTRACT, R2, TURN)
    code.do(Operation.AND, R2, _DISTANCES)
    code.do(Operation.ADD, R1, R2)
    # Without a socket: greater than any load.
    code.load(R0, ENTRY, _SOCKET)
    code.do(Operation.SUBTRACT, R0, 1)
    code.do(Operation.SHIFT_RIGHT_SIGNED, R0, 63)
    code.do(Operation.SHIFT_RIGHT, R0, 2)
    code.do(Operation.OR, R1, R0)


def _at_least_0(code: Assembly, number: Register) -> None:
    """
    Set a negative number to 0; R0 is overwritten.
    """
    code.do(Operation.SET, R0, number)
    code.do(Operation.SHIFT_RIGHT_SIGNED, R0, 63)
    code.do(Operation.XOR, R0, -1)
    code.do(Operation.AND, number, R0)


def _take_lesser(code: Assembly) -> None:
    """
    Set BEST to R1 if that is less.
    """
    code.do(Operation.SUBTRACT, R1, BEST)
    code.do(Operation.SET, R0, R1)
    code.do(Operation.SHIFT_RIGHT_SIGNED, R0, 63)
    code.do(Operation.AND, R1, R0)
    code.do(Operation.ADD, BEST, R1)


def _assign(code: Assembly, entries: int, rows: int) -> None:
    """
    Count a connection for the worker with the least load, and return its socket.
    """
    code.do(Operation.SET, R1, BEST)
    code.do(Operation.SHIFT_RIGHT, R1, _NO_LOAD_BITS)
    code.jump(If.NOT_EQUAL, R1, 0, "none")
    code.do(Operation.ADD, BEST, TURN)
    code.do(Operation.AND, BEST, _DISTANCES)
    code.jump(If.AT_LEAST, BEST, rows, "none")
    code.do(Operation.SET, R2, BEST)
    code.do(Operation.ADD, R2, 1)
    code.address(R1, entries)
    code.store(R1, _TURN, R2)
    code.do(Operation.MULTIPLY, BEST, _ENTRY_WORDS * WORD_BYTES)
    code.do(Operation.ADD, R1, BEST)
    code.do(Operation.SET, R2, 1)
    code.count(R1, _ENTRIES + _ASSIGNED, R2, fetch=False)
    code.load(R0, R1, _ENTRIES + _SOCKET)
    code.do(Operation.SUBTRACT, R0, 1)
    code.leave()
    code.label("none")
    code.do(Operation.SET, R0, _NONE)
    code.leave()


@implementer(ILoadedProgram)
class Least:
    """
    One program for all groups, since a worker has one load.
    """

    needs_own_sockets = True

    def __init__(self, scoreboard: int) -> None:
        """
        Args:
            scoreboard: The descriptor of its memory, which stays the caller's.

        Raises:
            OSError: The kernel does not take the program, or cannot read that
                memory.
        """
        self._board = Scoreboard(scoreboard)
        try:
            rows = rounded_up(self._board.rows)
            # One more, since no address may be behind the last word (see `weighing`).
            self._words = Words(_ENTRIES + _ENTRY_WORDS * (rows + 1))
            try:
                own = self._words.descriptor
                self._program = load(weighing(scoreboard, own, rows))
            except OSError:
                self._words.close()
                raise
        except OSError:
            self._board.close()
            raise
        self._sockets: Mapping[int, int] = {}
        self._surplus: dict[int, int] = {}
        """For each worker, the connections that seemed not to be on their way at the
        last look."""

    @property
    def look_seconds(self) -> float:
        return max(LOOK_SECONDS, LOOK_SECONDS_FOR_EACH * len(self._sockets))

    def program(self, group: int) -> LoadedProgram:
        return self._program

    def admit(self, group: int, sockets: Mapping[int, int]) -> None:
        words = self._words
        for worker in sockets.keys() - self._sockets.keys():
            # Other workers accept what its predecessor did not.
            words[_entry(worker) + _CORRECTED] = self._counted(worker) % _MODULUS
            self._surplus[worker] = 0
        for worker, _ in self._sockets.items() ^ sockets.items():
            words[_entry(worker) + _SOCKET] = sockets.get(worker, -1) + 1
        words[_WORKERS] = max(sockets) + 1
        self._sockets = dict(sockets)

    def look(self, waiting: Callable[[], Sequence[Sequence[int]]]) -> None:
        before = {worker: self._counted(worker) for worker in self._sockets}
        queues = waiting()
        sharing = Counter(self._sockets.values())
        for worker, counted in before.items():
            # If a connection came or was accepted meanwhile, the next look compares.
            if counted == self._counted(worker):
                socket = self._sockets[worker]
                waits = sum(queue[socket] for queue in queues)
                self._compare(worker, waits // sharing[socket])

    def _counted(self, worker: int) -> int:
        """
        How many more connections a worker was assigned than it has accepted.
        """
        return self._words[_entry(worker) + _ASSIGNED] - self._board.accepted_by(worker)

    def _compare(self, worker: int, waits: int) -> None:
        """
        Correct the count of a worker's connections by those that are not on their way,
        although it has not accepted them.

        Args:
            worker: The worker.
            waits: How many connections wait in its queues.
        """
        at = _entry(worker) + _CORRECTED
        surplus = _signed(self._counted(worker) - waits - self._words[at])
        corrected = min(surplus, self._surplus.get(worker, 0))
        self._words[at] = (self._words[at] + corrected) % _MODULUS
        self._surplus[worker] = surplus - corrected

    def close(self) -> None:
        os.close(self._program)
        self._words.close()
        self._board.close()


def _signed(number: int) -> int:
    """
    The signed number with these lower 64 bits.
    """
    return (number + _MODULUS // 2) % _MODULUS - _MODULUS // 2


def _entry(worker: int) -> int:
    return _ENTRIES + worker * _ENTRY_WORDS
