"""
What can become of a client's request, if not what was asked.

Like those of the daemon (`kvd.errors`), each is one condition, and its text a
sentence for a person.
"""

from __future__ import annotations

from kvd.errors import KvdError


class ClientError(KvdError):
    """
    The root of the family; never raised itself.
    """


class Unreachable(ClientError):
    """
    Nobody answered, and the request was not taken.
    """


class NotKvd(ClientError):
    """
    Somebody answered, but not as kvd does.
    """


class BrokenOff(ClientError):
    """
    The connection ended midway. What became of a PUT or DELETE is unknown.
    """


class TimedOut(BrokenOff):
    """
    Nothing moved for as long as the client waits.
    """


class SourceChanged(ClientError):
    """
    What was being put changed meanwhile; the daemon keeps the old value.
    """


class SourceUnreadable(ClientError):
    """
    What was being put could not be read; the daemon keeps the old value.
    """


class Refused(ClientError):
    """
    kvd answered, and will not do it.
    """

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.status = status


class Absent(Refused):
    """
    No value is stored under the key (404).
    """


class ConditionFailed(Refused):
    """
    The key has another value than the request named, or has one already (412).
    """


def refusal(status: int, sentence: str) -> Refused:
    """
    The exception for a status.
    """
    kind = {404: Absent, 412: ConditionFailed}.get(status, Refused)
    return kind(sentence, status)
