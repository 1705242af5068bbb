"""
The syntax of hosts in the ``Host`` field and in request targets (RFC 9110 section 7.2).
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv6Address
from typing import Final

# RFC 3986 section 3.2.2: the name may be empty. A port may follow, which may be empty
# too.
_HOST: Final = re.compile(
    rb"(?:\[([0-9A-Fa-f:.]+)\]"
    rb"|\[[Vv][0-9A-Fa-f]+\.[A-Za-z0-9._~!$&'()*+,;=:-]+\]"
    rb"|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?"
)


def is_host(value: bytes) -> bool:
    """
    Whether a value is a host, with or without a port.
    """
    matched = _HOST.fullmatch(value)
    if matched is None:
        return False
    if matched[1] is not None:
        try:
            IPv6Address(matched[1].decode("ascii"))
        except AddressValueError:
            return False
    return True
