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


class Gate:
    """
    Asks a policy whether one worker may accept.
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
        self._random = Random()
        self._complained = False

    def is_open(self, waiting: int) -> bool:
        """
        Whether to accept now. Called whenever a connection seems to wait.

        Args:
            waiting: How many connections seem to wait.
        """
        try:
            return bool(self._policy.accepts(self._worker, self._view(waiting)))
        except Exception:
            if not self._complained:
                self._complained = True
                self._log.failure(
                    "the policy failed when asked whether this worker may accept; the"
                    " worker accepts, and further failures are not logged"
                )
            return True

    def _view(self, waiting: int) -> View:
        ready, connections, requests = self._scoreboard.loads(
            SILENT_SECONDS, TURN_SECONDS
        )
        if self._worker not in ready:
            insort(ready, self._worker)
        return View(
            ready=ready,
            turn=0,
            connections=connections,
            requests=requests,
            handing_over=(0,) * len(connections),
            random=self._random,
            waiting=waiting,
        )
