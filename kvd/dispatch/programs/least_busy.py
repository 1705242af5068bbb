"""
``steered:by=least``: a program that reads on the scoreboard what each worker does, and
chooses the one with the least to do.

The scoreboard is memory that the kernel reads at each choice
(`kvd.dispatch.scoreboard`), so an end counts as soon as its worker has seen it, and
nothing is copied. The workers cannot report the connections that are on their way to
them. So the program itself counts what it *assigned*; what the worker has accepted
since is no longer on its way::

    on the way  =  assigned - accepted - settled, and at least 0
    load        =  (requests in progress + on the way, connections + on the way)

Not everything that was assigned is ever accepted: the program counts the first packet
of a connection that may come to nothing, or be sent again because a queue is full; and
a worker accepts what others were assigned while it stands in for them. So a few times a
second the counts are compared with the kernel's queues, and such a difference is
*settled*: one that was there at the last look too, since it takes a moment until what
a worker takes from its queue is counted, and until a connection is in one. Whoever
replaces a worker that was lost begins with nothing on its way.

Ties take turns, as in `kvd.dispatch.policies.leastbusy`, whose choice this is word by
word.
Connections that come to several processors at once may meet the same load and turn.

The program looks at all workers in a loop: 0.1 µs with 32 of them and 22 µs with 4,096,
for which the verifier, who follows all rounds, looks at a sixth of the million
instructions that it is ready to look at, in 50 ms.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from zope.interface import implementer

from kvd.dispatch.programs.assembly import Assembly, If, Operation, Register
from kvd.dispatch.scoreboard import (
    ACCEPTED,
    BEGUN,
    DONE,
    OPEN,
    ROW_WORDS,
    ROWS_TOGETHER,
    Scoreboard,
    rounded_up,
)
from kvd.interfaces import ILoadedProgram
from kvd.model.programs import LoadedProgram
from kvd.net.bpf import WORD_BYTES, Words, load

R0, R1, R2, R3 = list(Register)[:4]
ROW, ENTRY, WORKERS, WORKER, BEST, TURN = list(Register)[4:]

# Words of the program's own memory: whose turn it is and how many workers to look at,
# then an entry for each worker: what was assigned, what of it is settled, and its
# socket's number and one more; 0: it gets nothing.
_TURN, _WORKERS = range(2)
_ENTRIES: Final = 4
_ASSIGNED, _SETTLED, _SOCKET, _ = range(4)
_ENTRY_WORDS: Final = 4

# A load as a number: requests, connections, and the distance from whose turn it is. Of
# two such numbers the lesser is the lesser load.
_DISTANCE_BITS: Final = 13
_CONNECTIONS_BITS: Final = 24
_DISTANCES: Final = (1 << _DISTANCE_BITS) - 1
_NO_LOAD_BITS: Final = 60
"""
No load has a one from here on; who gets nothing has.
"""

_NONE: Final = -1
"""
The number of no socket: then the kernel hashes.
"""

_MODULUS: Final = 1 << 64

LOOK_SECONDS: Final = 0.1
LOOK_SECONDS_FOR_EACH: Final = 0.00025
"""
A look at a queue takes 2 µs, so all looks together are to take no more than a
hundredth of the supervisor's time.
"""


def weighing(scoreboard: int, entries: int, rows: int) -> bytes:
    """
    The program.

    What is odd about it is for verifiers of kernels that guard against guessing
    processors, as they do unless a process has CAP_PERFMON too: each jump costs them
    a further state, so rows are taken several at once; and no address may be outside
    of the memory, even if nothing is read there.

    Args:
        scoreboard: The descriptor of its map.
        entries: That of the program's own.
        rows: How many workers there may be; a multiple of `ROWS_TOGETHER`.
    """
    code = Assembly()
    code.address(R1, entries)
    code.load(TURN, R1, _TURN)
    code.load(WORKERS, R1, _WORKERS)
    code.address(ENTRY, entries, _ENTRIES)
    # The first row is the scoreboard's own.
    code.address(ROW, scoreboard, ROW_WORDS)
    code.constant(BEST, 1 << _NO_LOAD_BITS)
    code.do(Operation.SET, WORKER, 0)
    code.label("next worker")
    code.jump(If.AT_LEAST, WORKER, WORKERS, "all seen")
    # Who is beyond them has no socket.
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
    R1 becomes the load of a worker, as a number.
    """
    code.load(R1, ROW, BEGUN)
    code.load(R2, ROW, DONE)
    code.do(Operation.SUBTRACT, R1, R2)
    # The two are not of one moment.
    _at_least_0(code, R1)
    code.load(R2, ENTRY, _ASSIGNED)
    code.load(R3, ROW, ACCEPTED)
    code.do(Operation.SUBTRACT, R2, R3)
    code.load(R3, ENTRY, _SETTLED)
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
    # Without a socket: more than any load.
    code.load(R0, ENTRY, _SOCKET)
    code.do(Operation.SUBTRACT, R0, 1)
    code.do(Operation.SHIFT_RIGHT_SIGNED, R0, 63)
    code.do(Operation.SHIFT_RIGHT, R0, 2)
    code.do(Operation.OR, R1, R0)


def _at_least_0(code: Assembly, number: Register) -> None:
    """
    What is below 0 becomes 0; R0 is lost.
    """
    code.do(Operation.SET, R0, number)
    code.do(Operation.SHIFT_RIGHT_SIGNED, R0, 63)
    code.do(Operation.XOR, R0, -1)
    code.do(Operation.AND, number, R0)


def _take_lesser(code: Assembly) -> None:
    """
    BEST becomes R1, if that is less.
    """
    code.do(Operation.SUBTRACT, R1, BEST)
    code.do(Operation.SET, R0, R1)
    code.do(Operation.SHIFT_RIGHT_SIGNED, R0, 63)
    code.do(Operation.AND, R1, R0)
    code.do(Operation.ADD, BEST, R1)


def _assign(code: Assembly, entries: int, rows: int) -> None:
    """
    Count one more for the worker with the best load, and answer with its socket.
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
    One program for all groups, since a worker's load is one.
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
            # And one, as no address may be beyond all words (see `weighing`).
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
        """What did not seem to be on the way at the last look, for each worker."""

    @property
    def look_seconds(self) -> float:
        return max(LOOK_SECONDS, LOOK_SECONDS_FOR_EACH * len(self._sockets))

    def program(self, group: int) -> LoadedProgram:
        return self._program

    def admit(self, group: int, sockets: Mapping[int, int]) -> None:
        words = self._words
        for worker in sockets.keys() - self._sockets.keys():
            # What a predecessor did not take is others'.
            words[_entry(worker) + _SETTLED] = self._counted(worker) % _MODULUS
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
            # Where something came or was taken meanwhile, the next look will do.
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
        So many are on the way to a worker, unless some have not arrived yet.
        """
        at = _entry(worker) + _SETTLED
        surplus = _signed(self._counted(worker) - waits - self._words[at])
        settled = min(surplus, self._surplus.get(worker, 0))
        self._words[at] = (self._words[at] + settled) % _MODULUS
        self._surplus[worker] = surplus - settled

    def close(self) -> None:
        os.close(self._program)
        self._words.close()
        self._board.close()


def _signed(number: int) -> int:
    """
    The number that is meant, where only its lower 64 bits are known.
    """
    return (number + _MODULUS // 2) % _MODULUS - _MODULUS // 2


def _entry(worker: int) -> int:
    return _ENTRIES + worker * _ENTRY_WORDS
