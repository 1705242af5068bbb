"""
Every exception of kvd, by whose fault it is.

- `PeerError`: the client asked for something that it cannot have, or broke
  the protocol. Ordinary; answered with its status, never a traceback.
- `Fault`: kvd, or the machine under it, could not do what it should.
  Answered with its status and logged.
- `OperatorError`: whoever starts kvd asked for something impossible. Ends the
  start with a sentence.

One exception is one condition. Its text is a sentence for a person: what was
given, what is wrong with it, what would be right.
"""

from __future__ import annotations

from typing import ClassVar


class KvdError(Exception):
    """
    The root of the three families; never raised itself.
    """

    @property
    def sentence(self) -> str:
        """
        What a person is told.
        """
        return str(self)


# -- the peer's ---------------------------------------------------------------


class PeerError(KvdError):
    """
    The client's request cannot be granted; never raised itself.
    """

    status: ClassVar[int]
    line: tuple[str, bytes] | None = None
    """Method and target, where the head was refused and they could be read in it."""


class BadRequest(PeerError):
    """
    The request is malformed in a way that leaves its end known (RFC 9110
    section 15.5.1): the connection can go on after the reply.
    """

    status = 400


class BadFraming(BadRequest):
    """
    The bytes are not HTTP, or say two things about where a message ends
    (RFC 9112 sections 2.2, 5, 6.3, 11.2): nothing behind them can be trusted,
    the connection is closed after the reply.
    """


class DigestMismatch(BadRequest):
    """
    A body is not the one that its digest is of.
    """


class KeyAbsent(PeerError):
    """
    No value is stored under the key.
    """

    status = 404


class MethodNotAllowed(PeerError):
    """
    The method is known, but not one that kvd serves.
    """

    status = 405


class HeadTimeout(PeerError):
    """
    The head of a request did not arrive within its time.
    """

    status = 408


class BodyTimeout(PeerError):
    """
    The body of a request stood still for too long.
    """

    status = 408


class KeyConflict(PeerError):
    """
    The key is a folder of other keys, or leads through another key's value.
    """

    status = 409


class LengthRequired(PeerError):
    """
    A value came with neither a length nor chunks.
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
    A value comes in a coding that kvd would have to take off.
    """

    status = 415


class Misdirected(PeerError):
    """
    The request is for a host that this address does not stand for.
    """

    status = 421


class RangeNotSatisfiable(PeerError):
    """
    The range asked for lies wholly behind the end of the value.
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


class HeadTooLarge(PeerError):
    """
    The head of the request, or the trailers of its body, has more bytes or
    more fields than the limit.
    """

    status = 431


class MetadataTooLarge(PeerError):
    """
    The fields that are to be kept with a value have more bytes than the store's file
    system keeps for a file.
    """

    status = 431


class UnknownMethod(PeerError):
    """
    No method of this name is registered.
    """

    status = 501


class OperationUnsupported(PeerError):
    """
    The request is one of another protocol, such as that to copy a value.
    """

    status = 501


class UnsupportedVersion(PeerError):
    """
    The request's version of HTTP is none of 1.x.
    """

    status = 505


# -- ours ---------------------------------------------------------------------


class Fault(KvdError):
    """
    kvd or its machine could not do what it should.
    """

    status: ClassVar[int] = 500


class StoreFault(Fault):
    """
    The store could not read, write or publish, for a reason other than room.
    """


class StoreExhausted(StoreFault):
    """
    The process or the machine has no descriptor or no memory left for now.
    """

    status = 503


class SyncFailed(StoreFault):
    """
    The disk did not confirm a write. Never tried again on the same data: the
    kernel may have dropped the pages that it could not write (fsync(2)).
    """


class OutOfResources(Fault):
    """
    This process or its machine has no descriptor or no memory left for a request, for
    the moment.
    """

    status = 503


class StoreBusy(Fault):
    """
    A key stayed locked by others for longer than anyone should hold it.
    """

    status = 503


class StoreFull(Fault):
    """
    No space, no inode or no quota is left for the value.
    """

    status = 507


# -- the operator's -----------------------------------------------------------


class OperatorError(KvdError):
    """
    Whoever starts kvd asked for something impossible; never raised itself.
    """


class BadSetting(OperatorError):
    """
    A setting has a value that it cannot have.
    """


class UnknownPlugin(OperatorError):
    """
    No plugin of the name is installed.
    """


class BrokenPlugin(OperatorError):
    """
    A plugin is declared, but what it names cannot be loaded.
    """


class AddressUnusable(OperatorError):
    """
    An address cannot be listened on: in use, not ours, or not permitted.
    """


class ControlUnusable(OperatorError):
    """
    A control socket cannot be asked: nobody answers, or not to this user.
    """


class AccessLogUnusable(OperatorError):
    """
    A file cannot be written to as the access log.
    """


class RecordUnusable(OperatorError):
    """
    A record of connections cannot be written, or cannot be read.
    """


class StoreUnusable(OperatorError):
    """
    A store cannot be opened where the settings say.
    """


class ChangeImpossible(OperatorError):
    """
    What is asked of a running daemon cannot be done, or not now.
    """
