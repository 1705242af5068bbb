"""
SIGINT and SIGTERM, which may come more than once.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

_log = Logger()


def end_once(reactor: Any) -> None:
    """
    Let a second SIGINT or SIGTERM say that kvd is ending. Twisted would stop its
    reactor again, which fails with a traceback.

    Args:
        reactor: This process's; its own handlers are there when it runs.
    """
    ending = False

    def begin() -> None:
        nonlocal ending
        ending = True

    def tell(number: int) -> None:
        _log.info(
            "{name} again: kvd is ending, and requests in flight have their time",
            name=signal.Signals(number).name,
        )

    def once(first: Callable[[int, Any], Any]) -> Callable[[int, Any], Any]:
        def came(number: int, frame: object) -> None:
            if ending:
                reactor.callFromThread(tell, number)
            else:
                begin()
                first(number, frame)

        return came

    def take_over() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if callable(handler):
                signal.signal(number, once(handler))

    reactor.callWhenRunning(take_over)
    reactor.addSystemEventTrigger("before", "shutdown", begin)


def stop(reactor: Any) -> None:
    """
    Stop a reactor, unless it is stopping.
    """
    try:
        reactor.stop()
    except ReactorNotRunning:
        pass
