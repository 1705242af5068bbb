"""
``steered:by=turns``: a program that counts connections and lets the sockets whose
workers are ready take turns.

Each group of sockets has its own count. There is room for two lists of sockets. A new
list is written where the program does not look, together with the turn that it begins
with; the store of a single word then puts it into force. So no connection is assigned
by half a list.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from zope.interface import implementer

from kvd.dispatch.programs.assembly import Assembly, If, Operation, Register
from kvd.interfaces import ILoadedProgram
from kvd.model.programs import LoadedProgram
from kvd.net.bpf import WORD_BYTES, Words, load
from kvd.settings import MAX_PROCS

R0, R1, R2, R3, R4 = list(Register)[:5]

# Words: the number of the list in force, then two lists; each has the count of its
# sockets, the number of connections that it has assigned, and the sockets.
_IN_FORCE: Final = 0
_LISTS: Final = 1
_COUNT, _TURN, _SOCKETS = range(3)
_LIST_WORDS: Final = _SOCKETS + MAX_PROCS

_NONE: Final = -1
"""
Not the number of a socket: the kernel then uses its hash.
"""


def turning(memory: int) -> bytes:
    """
    The program.

    Args:
        memory: The descriptor of the map with both lists.
    """
    code = Assembly()
    code.address(R1, memory)
    code.load(R2, R1, _IN_FORCE)
    # The verifier has to see the bounds: the list is one of two ...
    code.do(Operation.AND, R2, 1)
    code.do(Operation.MULTIPLY, R2, _LIST_WORDS * WORD_BYTES)
    code.do(Operation.ADD, R1, R2)
    code.load(R2, R1, _LISTS + _COUNT)
    code.jump(If.EQUAL, R2, 0, "none")
    code.do(Operation.SET, R3, 1)
    code.count(R1, _LISTS + _TURN, R3, fetch=True)
    code.do(Operation.MODULO, R3, R2)
    # ... and the index is within it.
    code.jump(If.AT_LEAST, R3, MAX_PROCS, "none")
    code.do(Operation.SHIFT_LEFT, R3, 3)
    code.do(Operation.ADD, R1, R3)
    code.load(R0, R1, _LISTS + _SOCKETS)
    code.leave()
    code.label("none")
    code.do(Operation.SET, R0, _NONE)
    code.leave()
    return code.assemble()


class _Group:
    """
    The lists and the program of one group.
    """

    def __init__(self) -> None:
        self._words = Words(_LISTS + 2 * _LIST_WORDS)
        self._turn = 0
        """Whose turn it was when the list came into force."""
        self._began = 0
        """What the program had counted then."""
        try:
            self.program = load(turning(self._words.descriptor))
        except OSError:
            self._words.close()
            raise

    def admit(self, sockets: Sequence[int]) -> None:
        words = self._words
        old = words[_IN_FORCE]
        self._turn = self._turn_now(_LISTS + old * _LIST_WORDS)
        self._began = bisect_left(sockets, self._turn) % len(sockets)
        start = _LISTS + (1 - old) * _LIST_WORDS
        words[start + _COUNT] = len(sockets)
        words[start + _TURN] = self._began
        for place, socket in enumerate(sockets):
            words[start + _SOCKETS + place] = socket
        words[_IN_FORCE] = 1 - old

    def _turn_now(self, start: int) -> int:
        """
        The number after that of the last socket chosen, as in `View.turn`.
        """
        words = self._words
        counted = words[start + _TURN]
        if counted == self._began:
            return self._turn
        last = (counted - 1) % words[start + _COUNT]
        return words[start + _SOCKETS + last] + 1

    def close(self) -> None:
        os.close(self.program)
        self._words.close()


@implementer(ILoadedProgram)
class Turns:
    """
    A program for each group.
    """

    needs_own_sockets = False
    look_seconds = None

    def __init__(self, groups: int) -> None:
        """
        Args:
            groups: The number of groups.

        Raises:
            OSError: The kernel does not take the program.
        """
        self._groups: list[_Group] = []
        try:
            for _ in range(groups):
                self._groups.append(_Group())
        except OSError:
            self.close()
            raise

    def program(self, group: int) -> LoadedProgram:
        return self._groups[group].program

    def admit(self, group: int, sockets: Mapping[int, int]) -> None:
        self._groups[group].admit(sorted(set(sockets.values())))

    def look(self, waiting: Callable[[], Sequence[Sequence[int]]]) -> None:
        raise AssertionError("turns need no look at what waits")

    def close(self) -> None:
        for group in self._groups:
            group.close()
        self._groups.clear()
