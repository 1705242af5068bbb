"""
Requests and their replies: one file per kind of operation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from kvd.http.methods.contract import Exchange, Replier
from kvd.http.methods.get import GetExchange
from kvd.http.methods.listing import ListExchange
from kvd.http.methods.put import PutExchange
from kvd.http.methods.small import DeleteExchange, TellExchange
from kvd.http.site import Site
from kvd.model.operations import Delete, Get, List, Operation, Put, Tell

_EXCHANGES: Final[dict[type, Callable[[Any, Replier, Site], Exchange]]] = {
    Tell: TellExchange,
    Put: PutExchange,
    Get: GetExchange,
    Delete: DeleteExchange,
    List: ListExchange,
}


def exchange_for(operation: Operation, replier: Replier, site: Site) -> Exchange:
    """
    The exchange that does an operation.
    """
    return _EXCHANGES[type(operation)](operation, replier, site)
