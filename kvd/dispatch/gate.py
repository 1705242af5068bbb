"""
A worker's gate: whether it may accept from a socket that other workers accept from too.

Rows of workers that take no connections, or that have written no time stamp lately, do
not count: a dead worker has the least to do of all, and would keep all others away. Nor
does a worker in a long turn of its reactor: it may have the fewest requests, but it
accepts nothing until the turn is over.
"""

from __future__ import annotations

from bisect import insort
from functools import cache
from random import Random
from typing import Final

from twisted.logger import Logger

from kvd.dispatch.selection import load_policy
from kvd.interfaces import IDispatchPolicy, IGatedPolicy
from kvd.ipc.counts import Loads
from kvd.ipc.scoreboard import Scoreboard
from kvd.model.view import View
from kvd.plugins import IPolicyDeclaration, declared

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
    declaration = declared(IPolicyDeclaration).get(text.partition(":")[0])
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
    ) -> None:
        """
        Args:
            policy: The policy to ask.
            worker: This worker's number.
            scoreboard: Shows what the other workers are doing.
        """
        self._policy = policy
        self._worker = worker
        self._scoreboard = scoreboard
        self._random = NoticedRandom()
        self._answers: dict[tuple[Loads, int], bool] = {}
        self._complained = False

    def is_open(self, waiting: int) -> bool:
        """
        Whether to accept now. Called whenever a connection seems to wait.

        Args:
            waiting: How many connections seem to wait.
        """
        seen = self._scoreboard.loads(SILENT_SECONDS, TURN_SECONDS), waiting
        answer = self._answers.get(seen)
        return self._ask(*seen) if answer is None else answer

    def _ask(self, loads: Loads, waiting: int) -> bool:
        self._random.used = False
        try:
            answer = bool(
                self._policy.accepts(self._worker, self._view(loads, waiting))
            )
        except Exception:
            if not self._complained:
                self._complained = True
                self._log.failure(
                    "the policy failed when asked whether this worker may accept; the"
                    " worker accepts, and further failures are not logged"
                )
            return True
        if not self._random.used:
            if len(self._answers) >= MOST_ANSWERS:
                self._answers.clear()
            self._answers[loads, waiting] = answer
        return answer

    def _view(self, loads: Loads, waiting: int) -> View:
        ready = list(loads.ready)
        if self._worker not in ready:
            insort(ready, self._worker)
        return View(
            ready=ready,
            turn=0,
            connections=loads.connections,
            requests=loads.requests,
            handing_over=(0,) * len(loads.connections),
            random=self._random,
            waiting=waiting,
        )
