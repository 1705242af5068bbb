"""
Whoever asks `kvd.access.authentication`, as a connection does.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from kvd.access.authentication import Answer, Authentication
from kvd.errors import RefusedLater


def ask(
    clock: Clock, authentication: Authentication, value: bytes | None, network: str
) -> Answer:
    """
    Who sends something; a refusal comes when it is due.
    """

    heard: Deferred[Any] = Deferred()

    def failed(failure: Failure) -> None:
        error = failure.value
        if isinstance(error, RefusedLater):
            clock.callLater(error.seconds, heard.errback, error.reason)
        else:
            heard.errback(failure)

    answer: Answer
    try:
        answer = authentication.authenticate(value, network)
    except RefusedLater as refused:
        answer = fail(refused)
    if not isinstance(answer, Deferred):
        return answer
    answer.addCallbacks(heard.callback, failed)
    return heard
