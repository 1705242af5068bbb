"""
Admission of a request: who sends it, and what that sender may do until it ends.

The client is the other end of the connection, or whoever a trusted proxy has forwarded
the request for. Its address may have only so many connections and send only so many
requests, and its rights are asked for. What counts while the request is served ends
with `Admission.end`, however the request does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kvd.access.networks import OpenConnections, network_of
from kvd.access.permit import Permit
from kvd.errors import TooManyRequests
from kvd.http.context import ProcessContext
from kvd.interfaces import Answer, ISigningDialect
from kvd.model.operations import Operation
from kvd.model.requests import Request
from kvd.net.sockets import name_of
from kvd.net.transport import ServerTransport

if TYPE_CHECKING:
    from kvd.access.proxies import Proxies

Permitted = Callable[[Any], Any]
"""
Returns an operation with what the rules of its prefix add, or raises `AccessRefused`.
"""


class Admission:
    """
    Knows who sends one request, and holds what was granted to it.
    """

    permit: Permit | None = None
    """None: there is none yet, or none is needed."""
    _is_open = False
    """Whether everything was permitted when it was asked for; a rights file may have
    come since."""
    _counted_by: OpenConnections | None = None
    """Counts this for the client of a proxy."""

    def __init__(
        self, context: ProcessContext, transport: ServerTransport, request: Request
    ) -> None:
        """
        Args:
            context: Of the process.
            transport: That of the connection.
            request: The head.
        """
        self._context = context
        self._transport = transport
        self._request = request
        self._client = transport.client

    def ask(
        self, operation: Operation | None, dialect: object
    ) -> Answer[Permit] | None:
        """
        Ask for a permit.

        Args:
            operation: What the request asks for; None: nothing that kvd does.
            dialect: The one that has understood it.

        Returns:
            None: it needs none. Whoever gets one must call `Permit.ended`, or set it as
            `permit`.

        Raises:
            TooManyRequests: The client has as many connections as it may, or has sent
                as many requests.
            AccessRefused: The sender may not do it.
            BadRequest: See `Authorization.authorize`.
        """
        context, transport = self._context, self._transport
        if context.proxies is not None:
            self._find_client(context.proxies)
        if operation is None:
            return None
        if context.address_rate is not None:
            context.address_rate(self._client)
        authorization = context.authorization
        if authorization is None:
            self._is_open = True
            return None
        return authorization.authorize(
            self._request,
            operation,
            self._client,
            transport.peer_user,
            may_be_signed=ISigningDialect.providedBy(dialect),
        )

    def _find_client(self, proxies: Proxies) -> None:
        """
        Count a request that comes from a proxy among what its client has open.
        """
        peer = self._transport.client
        self._client = client = proxies.client_of(peer, self._request.fields)
        by_address = self._context.by_address
        if by_address is not None and proxies.trusts(peer):
            if not by_address.has_room(client):
                raise too_many_connections()
            by_address.opened(client)
            self._counted_by = by_address

    @property
    def permitted(self) -> Permitted:
        """
        Decides about other operations of the same sender.
        """
        if self._is_open:
            return _as_it_is
        # Whatever has no permit yet may do nothing.
        assert self.permit is not None, "a request asks for more before it is permitted"
        return self.permit.also

    def end(self) -> None:
        """
        The request has ended.
        """
        if self.permit is not None:
            self.permit.ended()
        if self._counted_by is not None:
            self._counted_by.closed(self._client)

    # -- the sender -----------------------------------------------------------

    @property
    def scheme(self) -> str:
        """
        Of the URL that the client has asked for.
        """
        return "http" if self._transport.secure is None else "https"

    @property
    def user(self) -> str | None:
        """
        Who has sent the request; None: nobody whom kvd knows.
        """
        if self.permit is not None:
            # Whatever the rights file says by now.
            return self.permit.user
        certified = self._transport.peer_user
        authorization = self._context.authorization
        if authorization is None:
            return certified
        return authorization.user_of(self._request, certified)

    @property
    def network(self) -> str:
        """
        Where the request comes from: `kvd.access.networks.network_of` its client.
        """
        return network_of(self._client)

    def names(self) -> tuple[str, str | None]:
        """
        The client, and the proxy that has forwarded the request for it, for a log.
        """
        transport = self._transport
        if self._client is transport.client:
            return transport.peer_name, transport.proxy_name
        return name_of(self._client), transport.peer_name


def _as_it_is(operation: Any) -> Any:
    return operation


def too_many_connections() -> TooManyRequests:
    """
    The refusal of a connection that its address may not have, or of a request that a
    proxy has forwarded for it.
    """
    return TooManyRequests(
        "This address has as many open connections as it may: close one first.", 1
    )
