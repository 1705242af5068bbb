"""
Asking a policy, and going on whatever it answers.

A policy may be somebody else's code, and it runs in the process on which all
others hang. So an answer that cannot be used costs one line in the log and is
replaced by whoever's turn it is; and one that does not come is cut short by a
timer's signal. The signal reaches Python code between two of its steps; a call
into C that never returns would not hear it.

When the timer rings, the policy need not be to blame: the machine may have slept,
or given its processors to others. So what counts is the thread's own processor
time, or that it rang several times: each time this thread has run meanwhile, which
is all that a good policy needs.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any, Final

from twisted.logger import Logger

from kvd.interfaces import IDispatchPolicy
from kvd.model.view import View, whose_turn

DECIDE_SECONDS: Final = 0.1
"""
Between two rings of the timer. All decisions on the connections of one wake-up
may take half of it in processor time; a good one takes microseconds.
"""

MOST_RINGS: Final = 5
"""
Who still has not decided then does something else than deciding.
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

    def __init__(
        self, name: str, policy: IDispatchPolicy, fallback: str = "workers take turns"
    ) -> None:
        """
        Args:
            name: As the operator chose it, for the log.
            policy: Who is asked.
            fallback: What is done if it has no answer, for the log.
        """
        self._name = name
        self._policy = policy
        self._fallback = fallback
        self._asking = False
        self._complained = False
        self._dismissed = False
        self._began = 0.0
        self._rings = 0

    def begin(self) -> None:
        """
        A batch of decisions follows; from now on none of them takes for ever.
        """
        self._began = time.thread_time()
        self._rings = 0
        signal.signal(signal.SIGALRM, self._rang)
        signal.setitimer(signal.ITIMER_REAL, DECIDE_SECONDS, DECIDE_SECONDS)

    def end(self) -> None:
        """
        The batch is decided.
        """
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _rang(self, number: int, frame: object) -> None:
        self._rings += 1
        used = time.thread_time() - self._began
        late = used >= DECIDE_SECONDS / 2 or self._rings >= MOST_RINGS
        if self._asking and late:
            # Here, as the policy may catch what it is interrupted with.
            self._dismissed = True
            raise _Undecided

    def choose(self, view: View) -> int:
        """
        The number of a ready worker: the policy's, or whoever's turn it is.
        """
        answer = self.ask(view)
        return whose_turn(view) if answer is None else answer

    def ask(self, view: View) -> int | None:
        """
        The number of a ready worker, or None if the policy names none.
        """
        if self._dismissed:
            return None
        answer = self._ask_in_time(view)
        if isinstance(answer, int):
            return answer
        self._complain(answer)
        return None

    def _ask_in_time(self, view: View) -> int | str | None:
        """
        Returns:
            As `_ask`, or None if that had to be cut short.
        """
        try:
            self._asking = True
            answer = self._ask(view)
            self._asking = False
        except _Undecided:
            self._asking = False
            return None
        return None if self._dismissed else answer

    def _ask(self, view: View) -> int | str:
        """
        Whatever is the policy's own code runs in here: also that of what it
        raises and returns.

        Returns:
            The number of a ready worker, or a text that says what came in its place.
        """
        try:
            worker = self._policy.choose(view)
        except _Undecided:
            raise
        except BaseException as error:
            # SystemExit too: whatever gets out of here ends the acceptor.
            return f"failed with {_in_words(_line, error)}"
        if type(worker) is int and worker in view.ready:
            return worker
        return f"chose {_in_words(repr, worker)}, which is no ready worker"

    def _complain(self, what: str | None) -> None:
        if what is None:
            self._log.error(
                "policy {policy} did not decide within {seconds:g} seconds; it is not"
                " asked again, and {fallback} until it is chosen anew",
                policy=self._name,
                seconds=DECIDE_SECONDS * self._rings,
                fallback=self._fallback,
            )
            return
        if self._complained:
            return
        self._complained = True
        self._log.error(
            "policy {policy} {what}; for such connections {fallback}, and no more is"
            " said of it",
            policy=self._name,
            what=what,
            fallback=self._fallback,
        )


def _in_words(spell: Callable[[Any], str], thing: object) -> str:
    try:
        return spell(thing)
    except _Undecided:
        raise
    except BaseException:
        # As foreign as the rest, and no great loss.
        return f"a {type(thing).__name__} that cannot be shown"


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
