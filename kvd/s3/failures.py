"""
What the replies of an engine mean that are not success.
"""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import Final

from kvd.errors import (
    EngineFailed,
    EngineUnavailable,
    KvdError,
    MetadataTooLarge,
    OperationUnsupported,
    StoreFault,
    StoreFull,
    TargetTooLong,
    ValueTooLarge,
)
from kvd.s3.requests import Reply

SERVER_ERROR: Final = 500

_BUSY: Final = frozenset({429, 503})
_BUSY_CODES: Final = frozenset({"SlowDown", "ServiceUnavailable", "TooManyRequests"})
_FULL: Final = 507
_FULL_CODES: Final = frozenset(
    {"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull"}
)
_TOO_LONG_CODES: Final = frozenset({"KeyTooLongError", "InvalidObjectName"})
_OVERTAKEN_CODES: Final = frozenset({"UnknownError"})
"""
What Ceph says, with 500, to those that lose a race for an object.
"""

_REFUSED_CODES: Final = frozenset(
    {
        "AccessDenied",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "SignatureDoesNotMatch",
    }
)


class Transient(Exception):
    """
    A failure that may be over soon: the request is worth another attempt.
    """

    def __init__(self, failure: KvdError, of_endpoint: bool = False) -> None:
        """
        Args:
            failure: What to raise if no attempt succeeds.
            of_endpoint: Whether another endpoint is the better choice.
        """
        super().__init__(failure.sentence)
        self.failure = failure
        self.of_endpoint = of_endpoint


class BrokenBody(EngineFailed):
    """
    The engine broke off in the middle of a body.
    """


def failure_of(reply: Reply, code: str, bucket: str) -> KvdError | Transient:
    """
    What a reply of failure means.

    Args:
        code: The engine's word for it; empty if it gave none.
    """
    status = reply.status
    named = f"{status} {code}".rstrip()
    if status == _FULL or code in _FULL_CODES:
        return StoreFull(f"The engine has no room for the value ({named}).")
    if status in _BUSY or code in _BUSY_CODES:
        return Transient(
            EngineUnavailable(f"The engine is busy ({named}): try again later.")
        )
    if status >= SERVER_ERROR and code != "NotImplemented":
        return Transient(EngineFailed(f"The engine failed ({named})."), True)
    return _refusal(status, code, named, reply, bucket)


def _refusal(status: int, code: str, named: str, reply: Reply, bucket: str) -> KvdError:
    """
    What is wrong with a request, or with the settings.
    """
    if code == "NoSuchBucket":
        return no_bucket(bucket)
    if code == "RequestTimeTooSkewed":
        return StoreFault(
            f"The engine refuses kvd's signatures because the clocks differ"
            f"{_difference(reply)} ({named}): set the clock of this machine, or of"
            " the engine."
        )
    if code in _REFUSED_CODES or status in (401, 403):
        return StoreFault(
            f"The engine refuses kvd's credentials ({named}): see that they are"
            f" right and may read, write, delete and list in {bucket!r}; the"
            f" clocks differ{_difference(reply)}."
        )
    if code in _TOO_LONG_CODES:
        return TargetTooLong("The engine has no names so long: choose a shorter key.")
    if code == "EntityTooLarge":
        return ValueTooLarge(f"The engine keeps no value so large ({named}).")
    if code == "MetadataTooLarge":
        return MetadataTooLarge(f"The engine keeps no metadata so long ({named}).")
    if code == "NotImplemented":
        return OperationUnsupported("The engine does not know what it was asked for.")
    return EngineFailed(f"The engine refuses what kvd asked for ({named}).")


def is_overtaken(reply: Reply, code: str) -> bool:
    """
    Whether a change with a condition failed, perhaps, because another client came
    before.
    """
    return reply.status == SERVER_ERROR and code in _OVERTAKEN_CODES


def no_bucket(bucket: str) -> StoreFault:
    """
    There is no bucket.
    """
    return StoreFault(
        f"The engine has no bucket {bucket!r}: create it, or give another one with"
        " --store."
    )


def _difference(reply: Reply) -> str:
    """
    By how much the clock of the engine differs from this machine's.
    """
    try:
        theirs = parsedate_to_datetime(reply.field("Date")).timestamp()
    except ValueError:
        return ""
    return f" by {abs(theirs - time.time()):.0f} s"
