"""
Asks a policy for a worker, and copes with whatever the policy does.

A policy may be third-party code, and it runs in the supervisor, on which all other
processes depend. If its answer is unusable, kvd logs one line and takes the worker
whose turn it is. If it does not answer, the signal of a timer interrupts it. Python
handles the signal between two bytecode instructions, so a call into C that never
returns is not interrupted.

An expired timer does not prove that the policy is slow: the machine may have slept, or
run other processes. So the policy is interrupted only once this thread has used enough
processor time, or the timer has expired several times: each time the thread has run in
between, and a good policy needs no more than that.
"""

from __future__ import annotations

import signal
import time

# Without turning numbers into enumerations, as the public module does: that takes
# longer than a decision.
from _signal import getsignal as _handler_of  # type: ignore[import-not-found]
from _signal import signal as _set_handler
from collections.abc import Callable
from typing import Any, Final, Protocol

from twisted.logger import Logger

from kvd.interfaces import IDispatchPolicy
from kvd.model.view import View
from kvd.native import compiled

DECIDE_SECONDS: Final = 0.1
"""
The interval of the timer. All decisions of one batch may take half of it in processor
time; a good decision takes microseconds.
"""

MOST_RINGS: Final = 5
"""
A policy that has not decided after this many expirations is interrupted, however little
processor time it used.
"""


_SIGALRM: Final = int(signal.SIGALRM)


class _Undecided(BaseException):
    """
    Raised by the timer. Not an Exception, so that ``except Exception`` in a policy does
    not catch it.
    """


class Timer(Protocol):
    """
    Rings again and again (``SIGALRM``).
    """

    rings: int
    """How often it rang since it was started; whoever handles the signal counts."""

    @property
    def began(self) -> float:
        """
        The processor time that this thread had used when it was started, in seconds.
        """

    def start(self) -> None:
        """
        Ring from now on.
        """

    def stop(self) -> None:
        """
        Ring no more.
        """


class TimerInPython:
    """
    See `Timer`.
    """

    def __init__(self, interval: float) -> None:
        """
        Args:
            interval: How often it rings, in seconds.
        """
        self._interval = interval
        self.began = 0.0
        self.rings = 0

    def start(self) -> None:
        """
        See `Timer`.
        """
        self.began = time.thread_time()
        self.rings = 0
        signal.setitimer(signal.ITIMER_REAL, self._interval, self._interval)

    def stop(self) -> None:
        """
        See `Timer`.
        """
        signal.setitimer(signal.ITIMER_REAL, 0)


_native: Final = compiled("_dispatch")

make_timer: Final[Callable[[float], Timer]] = (
    TimerInPython if _native is None else _native.Timer
)


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
            name: The policy as the operator wrote it, for the log.
            policy: The policy to ask.
            fallback: What happens if it has no answer, for the log.
        """
        self._name = name
        self._policy = policy
        self._fallback = fallback
        self._asking = False
        self._complained = False
        self._dismissed = False
        self._handler = self._rang
        self.timer = make_timer(DECIDE_SECONDS)
        """Bounds a batch of decisions, once `be_heard` was called."""

    def be_heard(self) -> None:
        """
        Have the timer call this decider, and no other.
        """
        if _handler_of(_SIGALRM) is not self._handler:
            _set_handler(_SIGALRM, self._handler)

    def begin(self) -> None:
        """
        Start the timer that bounds the following batch of decisions.
        """
        self.be_heard()
        self.timer.start()

    def end(self) -> None:
        """
        Stop the timer: the batch is decided.
        """
        self.timer.stop()

    def _rang(self, number: int, frame: object) -> None:
        timer = self.timer
        timer.rings += 1
        used = time.thread_time() - timer.began
        late = used >= DECIDE_SECONDS / 2 or timer.rings >= MOST_RINGS
        if self._asking and late:
            # Set before raising, as the policy may catch the exception.
            self._dismissed = True
            raise _Undecided

    def ask(self, view: View) -> int | None:
        """
        The number of a ready worker, or None if the policy names none.

        All code of the policy runs while `_asking`, also the methods of what it raises
        and returns.
        """
        if self._dismissed:
            return None
        wrong = None
        try:
            self._asking = True
            try:
                worker = self._policy.choose(view)
                if type(worker) is int and worker in view.ready:
                    self._asking = False
                    if not self._dismissed:
                        return worker
                else:
                    wrong = f"chose {_in_words(repr, worker)}, which is no ready worker"
            except _Undecided:
                raise
            except BaseException as error:
                # SystemExit too: an exception that escaped would end the acceptor.
                wrong = f"failed with {_in_words(_line, error)}"
            self._asking = False
        except _Undecided:
            self._asking = False
        self._complain(None if self._dismissed else wrong)
        return None

    def _complain(self, what: str | None) -> None:
        if what is None:
            self._log.error(
                "policy {policy} did not decide within {seconds:g} seconds; it is not"
                " asked again, and {fallback} until it is chosen anew",
                policy=self._name,
                seconds=DECIDE_SECONDS * self.timer.rings,
                fallback=self._fallback,
            )
            return
        if self._complained:
            return
        self._complained = True
        self._log.error(
            "policy {policy} {what}; for such connections {fallback}; further"
            " cases are not logged",
            policy=self._name,
            what=what,
            fallback=self._fallback,
        )


def _in_words(render: Callable[[Any], str], thing: object) -> str:
    try:
        return render(thing)
    except _Undecided:
        raise
    except BaseException:
        # Rendering it runs third-party code too; the message can do without it.
        return f"a {type(thing).__name__} that cannot be shown"


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
