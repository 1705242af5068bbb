"""
The ways in which a client's request can fail.

As in the daemon (`kvd.errors`), each exception is one condition, and its text is a
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
    No server answered, and the request was not sent.
    """


class NotKvd(ClientError):
    """
    A server answered, but not as kvd does.
    """


class BrokenOff(ClientError):
    """
    The connection ended midway. Whether a PUT or DELETE was done is unknown.
    """


class TimedOut(BrokenOff):
    """
    No byte moved until the client's timeout.
    """


class CredentialsUnusable(ClientError):
    """
    A file of credentials cannot be used.
    """


class SourceChanged(ClientError):
    """
    The source changed while it was put; the daemon keeps the old value.
    """


class SourceUnreadable(ClientError):
    """
    The source could not be read; the daemon keeps the old value.
    """


class Refused(ClientError):
    """
    kvd answered, and refused the request.
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
    The key has another value than the one that the request named, or has a value
    already (412).
    """


def refusal(status: int, sentence: str) -> Refused:
    """
    The exception for a status.
    """
    kind = {404: Absent, 412: ConditionFailed}.get(status, Refused)
    return kind(sentence, status)
