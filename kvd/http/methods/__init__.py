"""
The request handlers: one file per kind of operation.
"""

from __future__ import annotations

from typing import Final

from kvd.http.dialects.choice import Mount
from kvd.http.lifecycle import ConnectionLifecycle
from kvd.http.methods.delete import DeleteHandler
from kvd.http.methods.exchange import ExchangeHandler
from kvd.http.methods.get import GetHandler
from kvd.http.methods.listing import ListHandler, wants_page
from kvd.http.methods.put import PutHandler, PutPartHandler
from kvd.http.methods.resumable import (
    AppendHandler,
    BeginUploadHandler,
    CancelUploadHandler,
    LookAtUploadHandler,
)
from kvd.http.methods.without_store import FixedReplyHandler, RefusalHandler
from kvd.http.page_guard import check_page
from kvd.http.request import RequestHandler
from kvd.model.operations import (
    Append,
    CancelUpload,
    Delete,
    Exchange,
    FixedReply,
    Get,
    List,
    LookAtUpload,
    Put,
    PutPart,
    ResumablePut,
)
from kvd.model.requests import Request

_HANDLERS: Final[dict[type, type[RequestHandler]]] = {
    FixedReply: FixedReplyHandler,
    Put: PutHandler,
    PutPart: PutPartHandler,
    Get: GetHandler,
    Delete: DeleteHandler,
    List: ListHandler,
    ResumablePut: BeginUploadHandler,
    Append: AppendHandler,
    LookAtUpload: LookAtUploadHandler,
    CancelUpload: CancelUploadHandler,
    Exchange: ExchangeHandler,
}


def handler_for(connection: ConnectionLifecycle, request: Request) -> RequestHandler:
    """
    Understand a head, and make the handler that serves or refuses the request.
    """
    mount: Mount | None = None
    try:
        guard = connection.context.guard
        if not guard.knows(request.host):
            guard.check(request, connection.transport.socket.getsockname())
        check_page(request, connection.context.cors)
        dialects = connection.context.dialects
        mount = dialects.of(request.target, request.method)
        operation = dialects.understand(mount, request)
        handler = _HANDLERS[operation.__class__]
        if handler is ListHandler and wants_page(connection.context, request):
            # Not at the top: only where it is needed.
            from kvd.http.methods.browsing import BrowseHandler

            handler = BrowseHandler
    except Exception as error:
        return RefusalHandler(connection, request, mount, error)
    return handler(connection, request, mount, operation)
