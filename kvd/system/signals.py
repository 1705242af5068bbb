"""
SIGINT and SIGTERM, and what happens when one comes a second time.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

_log = Logger()


def end_once(reactor: Any) -> Callable[[], bool]:
    """
    Log a second SIGINT or SIGTERM while kvd is ending. Twisted would stop its reactor
    again, which fails with a traceback.

    Args:
        reactor: The reactor of this process, which installs its own handlers when it
            starts.

    Returns:
        Whether such a signal has come, or the reactor is stopping. The reactor begins
        to stop only some turns after a signal.
    """
    ending = False

    def begin() -> None:
        nonlocal ending
        ending = True

    def report(number: int) -> None:
        _log.info(
            "{name} again: kvd is ending already, and waits for requests in progress",
            name=signal.Signals(number).name,
        )

    def once(first: Callable[[int, Any], Any]) -> Callable[[int, Any], Any]:
        def handle(number: int, frame: object) -> None:
            if ending:
                reactor.callFromThread(report, number)
            else:
                begin()
                first(number, frame)

        return handle

    def take_over() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if callable(handler):
                signal.signal(number, once(handler))

    reactor.callWhenRunning(take_over)
    reactor.addSystemEventTrigger("before", "shutdown", begin)
    return lambda: ending


def stop(reactor: Any) -> None:
    """
    Stop a reactor, unless it is stopping.
    """
    try:
        reactor.stop()
    except ReactorNotRunning:
        pass
