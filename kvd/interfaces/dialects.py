"""
What dialects provide.
"""

from __future__ import annotations

from zope.interface import Attribute, Interface

from kvd.model.operations import Operation
from kvd.model.replies import Reply
from kvd.model.requests import Request


class IDialect(Interface):
    """
    Interprets the requests of one kind of client, and renders its replies. A provider
    keeps no state: what has to last is a value of the store, which all workers see.
    """

    def understand(request: Request, prefix: bytes) -> Operation:
        """
        Return the operation that the request asks for. Uses nothing but the arguments:
        it is called before anybody has asked who sends the request, so its errors must
        not tell what is stored.

        The rights that the request needs follow from the operation alone
        (`kvd.http.authorization`). So the operation has to name all keys that the
        request reads, writes, removes or lists, as far as the head tells. What an
        `Exchange` does beyond that is asked for when it does it.

        Args:
            request: Its path begins with the prefix.
            prefix: The prefix of the keys that this dialect was chosen for: empty for
                all keys, or percent-decoded and ending with a slash. It is a part of
                each key.

        Raises:
            PeerError: The request is invalid, or kvd does not support it.
        """

    def render(
        reply: Reply, request: Request, operation: Operation | None, writing: bool
    ) -> Reply:
        """
        The reply that this kind of client expects.

        Args:
            reply: The reply according to RFC 9110; may be changed and returned. The
                body of a value or of a listing is not in it, and cannot be replaced.
                If it is a refusal with `AccessRefused`, its status stays, because
                clients act on it.
            request: The head of the request.
            operation: The operation; None if the request was not understood.
            writing: Whether the failure came while the body was written, not before.
        """


class ICollectionDialect(IDialect):
    """
    A dialect whose prefix names something even without its slash: the collection of all
    its keys.
    """

    root_methods: frozenset[str] = Attribute(
        "The methods by which clients ask for it so. Methods of plain clients are not"
        " among them: without the slash they name a key, which is not below the prefix."
    )


class ISigningDialect(IDialect):
    """
    A dialect whose clients sign their requests (AWS Signature Version 4). It has the
    body checked against what was signed: `Put.digests` and `Put.coding`, and the body
    of an `Exchange` by itself.
    """
