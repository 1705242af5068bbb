"""
The exceptions of kvd, in three families.

- `PeerError`: the client broke the protocol or asked for something that it cannot
  have. This is ordinary: the reply has the error's status, and nothing is logged as a
  traceback.
- `Fault`: kvd or its machine failed. The reply has the error's status, and the fault is
  logged.
- `OperatorError`: the operator asked for something impossible. Its text ends the start
  or the command.

Each exception stands for one condition. Its text is a sentence for a person: what was
given, what is wrong with it, and what would be right.
"""

from __future__ import annotations

import errno
from typing import ClassVar


class KvdError(Exception):
    """
    The base class of all exceptions of kvd; never raised itself.
    """

    @property
    def sentence(self) -> str:
        """
        The text for a person.
        """
        return str(self)


# -- the peer's ---------------------------------------------------------------


class PeerError(KvdError):
    """
    The client's request cannot be granted; never raised itself.
    """

    status: ClassVar[int]
    line: tuple[str, bytes] | None = None
    """Method and target, if the head was refused and both could be read from it."""


class BadRequest(PeerError):
    """
    The request is malformed, but its end is known (RFC 9110 section 15.5.1): the
    connection stays open after the reply.
    """

    status = 400


class BadFraming(BadRequest):
    """
    The bytes are not HTTP, or contradict each other about where a message ends (RFC
    9112 sections 2.2, 5, 6.3, 11.2). Nothing after them can be trusted, so the
    connection is closed after the reply.
    """


class TLSExpected(BadFraming):
    """
    A client sends plain HTTP to an address that speaks TLS.
    """


class ProxyHeaderRefused(BadFraming):
    """
    A connection does not begin with the header that a proxy has to send there, or with
    a malformed one.
    """


class DigestMismatch(BadRequest):
    """
    A body does not match its digest.
    """

    def __init__(self, sentence: str, field: str = "") -> None:
        super().__init__(sentence)
        self.field = field
        """That has the digest; empty if the key does."""


class RefusedLater(KvdError):
    """
    A client is refused, and is not to hear of it before a while: so whoever tries again
    and again makes little work.
    """

    def __init__(self, reason: BaseException, seconds: float) -> None:
        super().__init__(str(reason))
        self.reason = reason
        """What it is to hear."""
        self.seconds = seconds
        """In how many seconds."""


class AccessRefused(PeerError):
    """
    The client may not do this, or has to prove first who it is; never raised itself.
    The status is the same in all dialects, because clients act on it.
    """


class Unauthorized(AccessRefused):
    """
    The request needs credentials, or has wrong ones (RFC 9110 section 15.5.2).
    """

    status = 401


class Forbidden(AccessRefused):
    """
    The client does not have the right.
    """

    status = 403


class SignatureRefused(Forbidden):
    """
    The signature of a request is wrong, too old, or nobody's.
    """

    def __init__(self, sentence: str, code: str) -> None:
        super().__init__(sentence)
        self.code = code
        """What S3 calls it."""


class ForeignPage(AccessRefused):
    """
    A page of another site wants to change something, with what the browser remembers of
    its user.
    """

    status = 403


class KeyAbsent(PeerError):
    """
    No value is stored under the key.
    """

    status = 404


class MethodNotAllowed(PeerError):
    """
    kvd knows the method, but does not serve it.
    """

    status = 405

    def __init__(self, sentence: str, allowed: str) -> None:
        super().__init__(sentence)
        self.allowed = allowed
        """The methods that are served, for ``Allow``."""


class HeadTimeout(PeerError):
    """
    The head of a request did not arrive in time.
    """

    status = 408


class BodyTimeout(PeerError):
    """
    No byte of a request's body arrived for too long.
    """

    status = 408


class UploadAbsent(PeerError):
    """
    There is no resumable upload of this name, or none of this user's.
    """

    status = 404


class UploadMismatch(PeerError):
    """
    The client would go on with an upload somewhere else than at its end.
    """

    status = 409

    def __init__(self, sentence: str, offset: int) -> None:
        super().__init__(sentence)
        self.offset = offset


class KeyConflict(PeerError):
    """
    The key is a folder of other keys, or a part of its path is another key's value.
    """

    status = 409


class ValueFixed(PeerError):
    """
    The key has a value that may not be replaced by another one.
    """

    status = 409


class LengthRequired(PeerError):
    """
    The request has a value, but neither a length nor chunks.
    """

    status = 411


class PreconditionFailed(PeerError):
    """
    A condition of the request does not hold (RFC 9110 section 13).
    """

    status = 412


class ValueTooLarge(PeerError):
    """
    The value is longer than the limit.
    """

    status = 413


class TargetTooLong(PeerError):
    """
    The request target, or the key in it, is longer than the limit.
    """

    status = 414


class CodingUnsupported(PeerError):
    """
    A value has a coding that kvd would have to decode.
    """

    status = 415


class Misdirected(PeerError):
    """
    The request is for a host that this address does not serve.
    """

    status = 421


class RangeNotSatisfiable(PeerError):
    """
    The requested range contains no byte of the value.
    """

    status = 416

    def __init__(self, sentence: str, size: int) -> None:
        super().__init__(sentence)
        self.size = size


class ExpectationFailed(PeerError):
    """
    ``Expect`` asks for something other than ``100-continue``.
    """

    status = 417


class TooManyRequests(AccessRefused):
    """
    The client, or its address, asks more often than it may (RFC 6585 section 4).
    """

    status = 429

    def __init__(self, sentence: str, seconds: int) -> None:
        super().__init__(sentence)
        self.seconds = seconds
        """When to try again."""


class Locked(PeerError):
    """
    Somebody else has the lock of what is to be changed (RFC 4918 section 11.3).
    """

    status = 423

    def __init__(self, sentence: str, holder: bytes) -> None:
        super().__init__(sentence)
        self.holder = holder
        """What the holder has said about it."""


class HeadTooLarge(PeerError):
    """
    The head of the request, or the trailers of its body, has more bytes or
    more fields than the limit.
    """

    status = 431


class MetadataTooLarge(PeerError):
    """
    The fields to store with a value have more bytes than kvd, or the store, keeps for
    one value.
    """

    status = 431


class UnknownMethod(PeerError):
    """
    No method of this name is registered.
    """

    status = 501


class OperationUnsupported(PeerError):
    """
    The request belongs to another protocol, for example one that copies a value.
    """

    status = 501


class ConditionUnsupported(PeerError):
    """
    The request has a condition that the store cannot decide in one step with the
    change.
    """

    status = 501


class TooManyLocks(PeerError):
    """
    A client has as many locks as kvd leaves to one (RFC 4918 section 11.5: it must not
    simply try again).
    """

    status = 507


class ForeignDestination(PeerError):
    """
    A value is to be copied to another server (RFC 4918 section 9.8.5).
    """

    status = 502


class UnsupportedVersion(PeerError):
    """
    The request's HTTP version is not 1.x.
    """

    status = 505


class HandshakeFailed(KvdError):
    """
    A client and kvd do not agree on TLS, or the client shows no certificate that kvd
    accepts. It cannot be told in HTTP, so this is no `PeerError`: the log gets the
    sentence, and the client an alert of TLS (RFC 8446 section 6).
    """


# -- ours ---------------------------------------------------------------------


class Fault(KvdError):
    """
    kvd or its machine failed; raised itself only where no subclass fits.
    """

    status: ClassVar[int] = 500


class StoreFault(Fault):
    """
    The store could not read, write or publish, for a reason other than lack of room.
    """


class StoreExhausted(StoreFault):
    """
    The process or its machine has no free descriptor, thread or memory at the moment.
    """

    status = 503


class SyncFailed(StoreFault):
    """
    The disk did not confirm a write. kvd does not retry the same data: the kernel may
    have dropped the pages that it could not write (fsync(2)).
    """


class EngineFailed(StoreFault):
    """
    The engine behind the store answered that it failed, or what no engine answers, or
    broke off.
    """

    status = 502


class EngineUnavailable(StoreFault):
    """
    The engine behind the store cannot be reached, or asks to be asked later.
    """

    status = 503


class EngineSilent(StoreFault):
    """
    The engine behind the store did not answer, or stopped in the middle, for too long.
    """

    status = 504


class NoThread(OSError):
    """
    No thread can be started at the moment; the process or its machine has reached a
    limit, of memory, of tasks, or of processes of its user (pthread_create(3)).
    """

    def __init__(self) -> None:
        super().__init__(errno.EAGAIN, "no thread can be started")


class OutOfResources(Fault):
    """
    This process or its machine has no free descriptor or memory for a request at the
    moment.
    """

    status = 503


class StoreBusy(Fault):
    """
    Another process held the lock of a key for too long.
    """

    status = 503


class StoreFull(Fault):
    """
    No space, no inode or no quota is left for the value.
    """

    status = 507


class QuotaFull(StoreFull):
    """
    The values and the uploads take as much as the limits of the store allow.
    """


# -- the operator's -----------------------------------------------------------


class OperatorError(KvdError):
    """
    The operator asked for something impossible; never raised itself.
    """


class BadSetting(OperatorError):
    """
    The value of a setting is invalid.
    """


class UnknownPlugin(OperatorError):
    """
    No plugin with this name is installed.
    """


class BrokenPlugin(OperatorError):
    """
    A plugin is declared, but its code cannot be loaded.
    """


class AddressUnusable(OperatorError):
    """
    kvd cannot listen on an address: it is in use, not local, or not permitted.
    """


class CredentialsUnusable(OperatorError):
    """
    A certificate, its private key, or a file of authorities cannot be used.
    """


class ControlUnusable(OperatorError):
    """
    A control socket cannot be used: no daemon answers, or this user has no permission.
    """


class AccessLogUnusable(OperatorError):
    """
    The file of the access log cannot be written.
    """


class RecordUnusable(OperatorError):
    """
    A record of connections cannot be written or read.
    """


class StoreUnusable(OperatorError):
    """
    The store cannot be opened at the configured location.
    """


class ChangeImpossible(OperatorError):
    """
    A running daemon cannot make a requested change, or cannot make it now.
    """


class DaemonEnds(ChangeImpossible):
    """
    The daemon is ending, and makes no more changes.
    """


class PlaceTaken(ChangeImpossible):
    """
    Another process serves in the place of the daemon, and can make the change.
    """
