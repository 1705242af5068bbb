"""
Addresses as other programs write them.

What can mean only one thing is taken. The rest is answered with what may be meant: a
port alone would be this machine's in some programs, and everybody's in others.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address

# 127.0.0.1:8080, [::1]:8080, and arguments behind it.
_NUMERIC = re.compile(r"(\[[^\[\]]+\]|[0-9]+(?:\.[0-9]+){3}):([0-9]+)(:.*)?", re.DOTALL)
_PORT = re.compile(r"([0-9]+)(:.*)?", re.DOTALL)
_URL = re.compile(r"[a-z]+://([^/]*).*", re.DOTALL)


def in_full(text: str, port_alone: bool) -> str:
    """
    An address as kvd spells it, where it is written plainly; any other text as it is.

    Args:
        text: As it was written.
        port_alone: Whether a port alone can mean only one thing.
    """
    numeric = _NUMERIC.fullmatch(text)
    if numeric:
        host, port, more = numeric.groups(default="")
        return f"tcp:{port}:interface={host}{more}"
    if port_alone and _PORT.fullmatch(text):
        return f"tcp:{text}"
    return text


def hint(text: str) -> str:
    """
    The end of a sentence about a text that is no address: what may be meant.
    """
    meant = _meant(text)
    return f"; did you mean {meant}?" if meant else ""


def _meant(text: str) -> str:
    if _PORT.fullmatch(text):
        return f"127.0.0.1:{text} (this machine alone) or tcp:{text} (all interfaces)"
    if text.startswith(("/", "./", "../", "~")):
        return f"unix:{text}"
    if text.startswith(("tcp", "unix", "systemd")):
        return ""
    if text.lower().startswith(("tcp:", "unix:")):
        kind, colon, rest = text.partition(":")
        return f"{kind.lower()}{colon}{rest}"
    url = _URL.fullmatch(text)
    if url:
        return url[1].replace("localhost", "127.0.0.1") if ":" in url[1] else ""
    host, _, port = text.rpartition(":")
    if port.isdecimal() and host in ("", "*"):
        return f"tcp:{port} (all interfaces)"
    if port.isdecimal() and host == "localhost":
        return f"127.0.0.1:{port}"
    # "::1:8080" is an address of its own, too, but hardly this machine's.
    if port.isdecimal() and _is_number(host):
        return f"{_in_brackets(host)}:{port}"
    return f"{_in_brackets(text)}:8080" if _is_number(text) else ""


def _is_number(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _in_brackets(host: str) -> str:
    return f"[{host}]" if isinstance(ip_address(host), IPv6Address) else host
