"""
A worker's gate: whether it may accept from a socket that other workers accept from too.

Rows of workers that take no connections, or that have written no time stamp lately, do
not count: a dead worker has the least to do of all, and would keep all others away. Nor
does a worker in a long turn of its reactor: it may have the fewest requests, but it
accepts nothing until the turn is over.
"""

from __future__ import annotations

import time
from bisect import insort
from collections.abc import Callable, Sequence
from functools import cache
from random import Random
from typing import Final, Protocol

from twisted.logger import Logger

from kvd.dispatch.selection import load_policy
from kvd.interfaces import IDispatchPolicy, IGatedPolicy
from kvd.ipc.counts import Loads
from kvd.ipc.scoreboard import Scoreboard
from kvd.model.view import View
from kvd.native import compiled
from kvd.plugins import IPolicyDeclaration, find

SILENT_SECONDS: Final = 1.5
"""
A worker waits for a second at most; if its time stamp is older than this, it is
stopped, dead, or busy with something that takes long.
"""

TURN_SECONDS: Final = 0.002
"""
A turn that takes longer is a long one: no connection is left to its worker.
"""


MOST_ANSWERS: Final = 256
"""
How many answers of a policy a gate remembers.
"""


@cache
def policy_of_gates(text: str) -> IDispatchPolicy:
    """
    Load a policy once for this process and for all processes forked from it later:
    searching the plugins and importing one takes a worker 1.5 MiB.

    Raises:
        OperatorError: See `load_policy`.
    """
    return load_policy(text)


def load_before_forks(text: str) -> None:
    """
    Load a policy before workers are forked, if it is one of kvd's own. A third-party
    policy may import a reactor, which must not exist before the fork.
    """
    declaration = find(IPolicyDeclaration, text.partition(":")[0])
    if declaration is not None and declaration.code.startswith("kvd."):
        policy_of_gates(text)


class NoticedRandom(Random):
    """
    Notices whether it is used.
    """

    used = False

    def random(self) -> float:
        self.used = True
        return super().random()

    def getrandbits(self, bits: int, /) -> int:
        self.used = True
        return super().getrandbits(bits)


class Answers(Protocol):
    """
    Remembers what a policy has said of what the scoreboard shows.
    """

    def is_open(self, waiting: int, /) -> bool:
        """
        See `Gate.is_open`.
        """


Ask = Callable[[list[int], Sequence[int], Sequence[int], int], tuple[bool, bool]]
"""
Asks a policy about the ready workers, the connections and requests of each worker, and
how many connections wait. Returns its answer, and whether that may be remembered.
"""


class AnswersInPython:
    """
    See `Answers`.
    """

    def __init__(self, scoreboard: Scoreboard, ask: Ask) -> None:
        self._scoreboard = scoreboard
        self._ask = ask
        self._answers: dict[tuple[Loads, int], bool] = {}

    def is_open(self, waiting: int, /) -> bool:
        """
        See `Answers`.
        """
        loads = self._scoreboard.loads(SILENT_SECONDS, TURN_SECONDS)
        answer = self._answers.get((loads, waiting))
        if answer is not None:
            return answer
        ready, connections, requests = loads
        answer, remembers = self._ask(list(ready), connections, requests, waiting)
        if remembers:
            if len(self._answers) >= MOST_ANSWERS:
                self._answers.clear()
            self._answers[loads, waiting] = answer
        return answer


_native: Final = compiled("_dispatch")


def compiled_answers(scoreboard: Scoreboard, ask: Ask) -> Answers:
    """
    See `Answers`.
    """
    assert _native is not None
    words, marks, places = scoreboard.words_of_loads
    silent_ns, turn_ns = (int(each * 1e9) for each in (SILENT_SECONDS, TURN_SECONDS))
    made: Answers = _native.Answers(
        *(words, marks, *places, silent_ns, turn_ns),
        *(ask, time.monotonic_ns, MOST_ANSWERS),
    )
    return made


make_answers: Final[Callable[[Scoreboard, Ask], Answers]] = (
    AnswersInPython if _native is None else compiled_answers
)


class Gate:
    """
    Asks a policy whether one worker may accept.

    The same view always gets the same answer (`IDispatchPolicy`), so a policy is asked
    once for each. Where connections come one by one there are few views, and the policy
    takes longer than all the rest of accepting one.
    """

    _log = Logger()

    def __init__(
        self,
        policy: IGatedPolicy,
        worker: int,
        scoreboard: Scoreboard,
        make: Callable[[Scoreboard, Ask], Answers] = make_answers,
    ) -> None:
        """
        Args:
            policy: The policy to ask.
            worker: This worker's number.
            scoreboard: Shows what the other workers are doing.
            make: Makes what remembers the answers.
        """
        self._policy = policy
        self._worker = worker
        self._random = NoticedRandom()
        self._complained = False
        self.is_open: Callable[[int], bool] = make(scoreboard, self._ask).is_open
        """Whether to accept now. Called whenever a connection seems to wait, with how
        many seem to."""

    def _ask(
        self,
        ready: list[int],
        connections: Sequence[int],
        requests: Sequence[int],
        waiting: int,
    ) -> tuple[bool, bool]:
        self._random.used = False
        if self._worker not in ready:
            insort(ready, self._worker)
        view = View(
            ready=ready,
            turn=0,
            connections=connections,
            requests=requests,
            handing_over=(0,) * len(connections),
            random=self._random,
            waiting=waiting,
        )
        try:
            answer = bool(self._policy.accepts(self._worker, view))
        except Exception:
            if not self._complained:
                self._complained = True
                self._log.failure(
                    "the policy failed when asked whether this worker may accept; the"
                    " worker accepts, and further failures are not logged"
                )
            return True, False
        return answer, not self._random.used
