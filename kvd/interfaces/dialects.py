"""
What dialects provide.
"""

from __future__ import annotations

from zope.interface import Interface

from kvd.model.operations import Operation
from kvd.model.requests import Request


class IDialect(Interface):
    """
    Interprets the requests of one kind of client, and decides the statuses of its
    replies. A provider keeps no state.
    """

    def understand(request: Request, prefix: bytes) -> Operation:
        """
        Return the operation that the request asks for. Uses nothing but the arguments:
        it is called before anybody has asked who sends the request, so its errors must
        not tell what is stored.

        The rights that the request needs follow from the operation alone
        (`kvd.http.authorization`). So the operation has to name all keys that the
        request reads, writes, removes or lists; one that does several of these is a
        `kvd.model.operations.Compound`. Keys that only a body names are decided about
        by `kvd.http.request.RequestHandler.permitted`.

        Args:
            request: Its path begins with the prefix.
            prefix: The prefix of the keys that this dialect was chosen for: empty for
                all keys, or percent-decoded and ending with a slash. It is a part of
                each key.

        Raises:
            PeerError: The request is invalid, or kvd does not support it.
        """

    def render_status(status: int, operation: Operation | None, writing: bool) -> int:
        """
        The status that this kind of client expects. Not asked where a right is missing
        or credentials are wrong: 401 and 403 are the same in all dialects.

        Args:
            status: The status according to RFC 9110.
            operation: The operation; None if the request was not understood.
            writing: Whether the failure came while the body was written, not before.
        """
