"""
Whom a request means.

A page from anywhere may have its own name lead to 127.0.0.1, and then read what
answers there as if it were its own (DNS rebinding). What it cannot do is to make the
browser send another name than its own in ``Host``.
"""

from __future__ import annotations

import re
from typing import Final

from kvd.listening import is_public
from kvd.settings import Address, UNIXAddress

_THIS_MACHINE: Final = re.compile(
    r"(?:localhost\.?|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]*)?",
    re.ASCII | re.IGNORECASE,
)


def is_meant(address: Address, host: str | None) -> bool:
    """
    Whether a request may be answered.

    Args:
        address: Where it came in. Only a loopback address has names to be told from
            others: no page leads a browser to a Unix socket, and a public address
            was opened for all who reach it, by whatever name.
        host: The field ``Host``; None where there is none, which no browser does.
    """
    if isinstance(address, UNIXAddress) or is_public(address) or host is None:
        return True
    return _THIS_MACHINE.fullmatch(host) is not None
