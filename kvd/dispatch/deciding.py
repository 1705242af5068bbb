"""
Asking a policy, and going on whatever it answers.

A policy may be somebody else's code, and it runs in the process on which all
others hang. So an answer that cannot be used costs one line in the log and is
replaced by whoever's turn it is; and one that does not come is cut short by a
timer's signal. The signal reaches Python code between two of its steps; a call
into C that never returns would not hear it.
"""

from __future__ import annotations

import signal
from typing import Final

from twisted.logger import Logger

from kvd.dispatch.view import View, whose_turn
from kvd.interfaces import IDispatchPolicy

DECIDE_SECONDS: Final = 0.1
"""
For all decisions on the connections of one wake-up; a good one takes
microseconds.
"""


class _Undecided(BaseException):
    """
    The timer's. Not an Exception, so that no policy catches it by habit.
    """


class Decider:
    """
    Asks one policy, in the main thread.
    """

    _log = Logger()

    def __init__(self, name: str, policy: IDispatchPolicy) -> None:
        """
        Args:
            name: As the operator chose it, for the log.
            policy: Who is asked.
        """
        self._name = name
        self._policy = policy
        self._asking = False
        self._complained = False
        self._dismissed = False

    def begin(self) -> None:
        """
        A batch of decisions follows; from now on none of them takes for ever.
        """
        signal.signal(signal.SIGALRM, self._rang)
        signal.setitimer(signal.ITIMER_REAL, DECIDE_SECONDS)

    def end(self) -> None:
        """
        The batch is decided.
        """
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _rang(self, number: int, frame: object) -> None:
        if self._asking:
            raise _Undecided

    def choose(self, view: View) -> int:
        """
        The number of a ready worker: the policy's, or whoever's turn it is.
        """
        if self._dismissed:
            return whose_turn(view)
        try:
            self._asking = True
            worker = self._policy.choose(view)
            self._asking = False
        except _Undecided:
            self._dismissed = True
            self._log.error(
                "policy {policy} did not decide within {seconds:g} seconds; it is not"
                " asked again, and workers take turns until kvd is started anew",
                policy=self._name,
                seconds=DECIDE_SECONDS,
            )
            return whose_turn(view)
        except Exception as error:
            self._complain(f"failed with {type(error).__name__}: {error}")
            return whose_turn(view)
        finally:
            self._asking = False
        if type(worker) is int and worker in view.ready:
            return worker
        self._complain(f"chose {worker!r}, which is no ready worker")
        return whose_turn(view)

    def _complain(self, what: str) -> None:
        if self._complained:
            return
        self._complained = True
        self._log.error(
            "policy {policy} {what}; such connections go to whose turn it is, and no"
            " more is said of it",
            policy=self._name,
            what=what,
        )
