"""
Requests and their replies: one file per kind of operation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from kvd.exchanges.contract import Exchange, Replier
from kvd.exchanges.get import GetExchange
from kvd.exchanges.listing import ListExchange
from kvd.exchanges.put import PutExchange
from kvd.exchanges.small import DeleteExchange, TellExchange
from kvd.operations import Delete, Get, List, Operation, Put, Tell
from kvd.site import Site

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
