"""
Reads addresses in the forms of other programs.

A form with only one possible meaning is accepted. For other forms the error suggests
what may be meant: a port by itself is on the loopback interface in some programs, and
on all interfaces in others.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address

# 127.0.0.1:8080, [::1]:8080, and arguments after it.
_NUMERIC = re.compile(r"(\[[^\[\]]+\]|[0-9]+(?:\.[0-9]+){3}):([0-9]+)(:.*)?", re.DOTALL)
_PORT = re.compile(r"([0-9]+)(:.*)?", re.DOTALL)
_URL = re.compile(r"[a-z]+://([^/]*).*", re.DOTALL)


def in_full(text: str, bare_port: bool) -> str:
    """
    Convert a plain address to the form of kvd; return any other text unchanged.

    Args:
        text: The address as the operator wrote it.
        bare_port: Whether a port by itself is accepted.
    """
    numeric = _NUMERIC.fullmatch(text)
    if numeric:
        host, port, more = numeric.groups(default="")
        return f"tcp:{port}:interface={host}{more}"
    if bare_port and _PORT.fullmatch(text):
        return f"tcp:{text}"
    return text


def hint(text: str) -> str:
    """
    Return the end of a message about a text that is not an address: what may be meant.
    """
    meant = _meant(text)
    return f"; did you mean {meant}?" if meant else ""


def _meant(text: str) -> str:
    if _PORT.fullmatch(text):
        return f"127.0.0.1:{text} (this machine only) or tcp:{text} (all interfaces)"
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
    # "::1:8080" is an address too, but hardly one of this machine.
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
