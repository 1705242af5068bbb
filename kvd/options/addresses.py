r"""
Addresses to listen on, as an operator writes them.

They have the form of Twisted's server endpoints: a kind and its main argument, then
further arguments as ``name=value``, all separated by colons. A colon within an argument
is written ``\:``; an IPv6 address may also stand in brackets or as it is.
`plain_addresses` reads the forms of other programs. kvd does not use Twisted's own
parser: it looks for plugins, accepts host names and certificates, and makes endpoints
that open their own sockets, while the supervisor opens its sockets itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from ipaddress import ip_address
from typing import Final

from kvd.errors import BadSetting
from kvd.model.quantities import Count
from kvd.options.paths import absolute
from kvd.options.plain_addresses import hint, in_full
from kvd.settings import TLS, Address, SystemdAddress, TCPAddress, UNIXAddress

RIGHT: Final = (
    "give tcp:PORT[:interface=ADDRESS][:backlog=N][:proxy=1] or"
    " unix:PATH[:mode=660][:backlog=N][:proxy=1]"
)

RIGHT_TLS: Final = (
    "give tls:PORT:cert=FILE:key=FILE[:names=FOLDER][:ca=FILE][:crl=FILE]"
    "[:clients=optional][:interface=ADDRESS][:backlog=N][:proxy=1]"
)

ANY_IPV4: Final = "0.0.0.0"  # noqa: S104 - chosen by leaving the interface out
"""
The interface of ``tcp:8080``, as everywhere in Twisted.
"""

LOOPBACK: Final = "127.0.0.1"
"""
The interface of ``tcp:8081`` for the status site: it is open to other machines only if
the operator says so.
"""

# sun_path of Linux has 108 bytes, one of them for the NUL (unix(7)).
MAX_UNIX_PATH_BYTES: Final = 107

_port = Count("a TCP port", 0, 65535)
_backlog = Count("a number of waiting connections", 1, 65535)

# One piece between two colons; brackets count only right after a "=".
_PIECE = re.compile(r"(?:=\[[^\[\]]*\]|\\.|[^\\:])*", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
# The form of names in systemd.socket(5).
_NAME = re.compile(r"[ -9;-~]{1,255}")
_MODE = re.compile(r"0?[0-7]{3}", re.ASCII)

_TLS_ARGUMENTS: Final = ("cert", "key", "names", "ca", "crl", "clients")


def read_address(text: str, interface: str = ANY_IPV4) -> Address:
    """
    Read an address.

    Args:
        text: The address as the operator wrote it.
        interface: The interface of a port without one.

    Raises:
        BadSetting: The text is not an address; the sentence says how to write one.
    """
    kind, *pieces = _split(in_full(text, interface != ANY_IPV4))
    if kind not in _KINDS:
        raise BadSetting(f"{text!r} is not an address: {RIGHT}{hint(text)}")
    return _read(text, kind, pieces, interface)


def _read(text: str, kind: str, pieces: list[str], interface: str) -> Address:
    if not pieces or not pieces[0]:
        what = "path" if kind == "unix" else "port"
        right = RIGHT_TLS if kind == "tls" else RIGHT
        raise BadSetting(f"{text!r} has no {what}: {right}")
    try:
        arguments = _Arguments(_joined(pieces[1:]))
        return _KINDS_FOR_CLIENTS[kind](pieces[0], arguments, interface)
    except BadSetting as error:
        raise BadSetting(f"{text!r}: {error.sentence}") from error


def read_listen(text: str) -> Address | SystemdAddress:
    """
    Read an address for clients: one for `read_address`, one for TLS, ``systemd`` or
    ``systemd:NAME``.

    Raises:
        BadSetting: The text is none of these.
    """
    kind, *pieces = _split(in_full(text, False))
    if kind in _KINDS_FOR_CLIENTS:
        return _read(text, kind, pieces, ANY_IPV4)
    if kind == "systemd":
        return _read_systemd(text, pieces)
    raise BadSetting(
        f"{text!r} is not an address: {RIGHT}, tls:PORT:cert=FILE:key=FILE or"
        f" systemd[:NAME]{hint(text)}"
    )


def _read_systemd(text: str, pieces: list[str]) -> SystemdAddress:
    # A name may contain "=" too.
    known = (*_TLS_ARGUMENTS, "proxy")
    is_named = bool(pieces) and pieces[0].partition("=")[0] not in known
    name, rest = (pieces[0], pieces[1:]) if is_named else ("", pieces)
    if (is_named and not _NAME.fullmatch(name)) or (rest and "=" not in rest[0]):
        raise BadSetting(
            f"{text!r} does not name sockets of systemd: give systemd for all of them,"
            " or systemd:NAME with their FileDescriptorName= (or the name of their"
            " unit, such as kvd.socket)"
        )
    try:
        arguments = _Arguments(rest)
        arguments.check(*known)
        has_tls = any(arguments.get(each, "") for each in _TLS_ARGUMENTS)
        tls = _read_tls(arguments) if has_tls else None
        return SystemdAddress(name, tls, _read_proxy(arguments))
    except BadSetting as error:
        raise BadSetting(f"{text!r}: {error.sentence}") from error


def read_status(text: str) -> Address | None:
    """
    Read the address of the status site, or ``off``.

    Raises:
        BadSetting: The text is neither.
    """
    if text == "off":
        return None
    try:
        address = read_address(text, LOOPBACK)
    except BadSetting as error:
        raise BadSetting(f"{error.sentence}, or off") from error
    if address.proxy:
        raise BadSetting(
            f"{text!r} has proxy=1, but the status site does not speak the PROXY"
            " protocol: leave it out"
        )
    return address


def _joined(pieces: list[str]) -> list[str]:
    """
    The arguments of an address, with the pieces of an unquoted IPv6 address joined
    again.
    """
    joined: list[str] = []
    for piece in pieces:
        if joined and joined[-1].startswith("interface=") and "=" not in piece:
            joined[-1] += f":{piece}"
        else:
            joined.append(piece)
    return joined


def _split(text: str) -> list[str]:
    pieces: list[str] = []
    end = -1
    while end < len(text):
        match = _PIECE.match(text, end + 1)
        assert match is not None, "the pattern matches the empty text"
        pieces.append(match[0])
        end = match.end()
        if text[end : end + 1] == "\\":
            raise BadSetting(f"{text!r} ends with a backslash that escapes nothing")
    return pieces


class _Arguments:
    """
    The ``name=value`` arguments of one address; each may be given once.
    """

    def __init__(self, pieces: list[str]) -> None:
        self._values: dict[str, str] = {}
        for piece in pieces:
            name, equals, value = piece.partition("=")
            if not equals:
                raise BadSetting(f"{piece!r} is not of the form name=value; {RIGHT}")
            if name in self._values:
                raise BadSetting(f"{name} is given twice")
            self._values[name] = _ESCAPED.sub(r"\1", value)

    def check(self, *known: str) -> None:
        """
        Refuse arguments that this kind of address does not have.
        """
        for name in self._values:
            if name not in known:
                closest = get_close_matches(name, known, n=1)
                hint = f"; did you mean {closest[0]!r}?" if closest else ""
                if name in _TLS_ARGUMENTS:
                    hint = "; TLS has addresses of its own, tls:PORT:cert=FILE:key=FILE"
                raise BadSetting(
                    f"there is no argument {name!r}, but {' and '.join(known)}{hint}"
                )

    def get(self, name: str, default: str) -> str:
        """
        The value of an argument, as text.
        """
        return self._values.get(name, default)


def _read_tcp(port: str, arguments: _Arguments, interface: str) -> TCPAddress:
    arguments.check("interface", "backlog", "proxy")
    return TCPAddress(
        interface=_read_interface(arguments.get("interface", interface)),
        port=_port(port),
        backlog=_backlog(arguments.get("backlog", "4096")),
        proxy=_read_proxy(arguments),
    )


def _read_secure(port: str, arguments: _Arguments, interface: str) -> TCPAddress:
    arguments.check("interface", "backlog", "proxy", *_TLS_ARGUMENTS)
    return TCPAddress(
        interface=_read_interface(arguments.get("interface", interface)),
        port=_port(port),
        backlog=_backlog(arguments.get("backlog", "4096")),
        tls=_read_tls(arguments),
        proxy=_read_proxy(arguments),
    )


def _read_proxy(arguments: _Arguments) -> bool:
    text = arguments.get("proxy", "0")
    if text not in ("0", "1"):
        raise BadSetting(
            f"proxy={text} says nothing: give proxy=1 if connections begin with the"
            " header of the PROXY protocol"
        )
    return text == "1"


def _read_tls(arguments: _Arguments) -> TLS:
    cert = arguments.get("cert", "")
    if not cert:
        raise BadSetting(f"there is no certificate: {RIGHT_TLS}")
    ca = arguments.get("ca", "")
    clients = arguments.get("clients", "required")
    if clients not in ("required", "optional"):
        raise BadSetting(
            f"clients={clients} says nothing: give clients=required (as without it) or"
            " clients=optional, which also lets in those without a certificate"
        )
    if clients == "optional" and not ca:
        raise BadSetting(
            "clients=optional needs ca=FILE, with the authorities whose certificates"
            " clients show"
        )
    crl, names = arguments.get("crl", ""), arguments.get("names", "")
    if crl and not ca:
        raise BadSetting(
            "crl=FILE, with the certificates that were revoked, needs ca=FILE, with the"
            " authorities that have issued them"
        )
    return TLS(
        cert=absolute(cert),
        # Some programs put both into one file.
        key=absolute(arguments.get("key", cert)),
        ca=absolute(ca) if ca else None,
        clients="optional" if clients == "optional" else "required",
        crl=absolute(crl) if crl else None,
        names=absolute(names) if names else None,
    )


def _read_interface(text: str) -> str:
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return str(ip_address(bare))
    except ValueError as error:
        # A name may have several addresses, or another one tomorrow.
        raise BadSetting(
            f"the interface {text!r} is not a numeric address: give one such as"
            " 127.0.0.1 or [::1]; leave it out for all of IPv4, [::] is all of IPv6"
        ) from error


def _read_unix(path: str, arguments: _Arguments, interface: str) -> UNIXAddress:
    arguments.check("mode", "backlog", "proxy")
    path = absolute(_ESCAPED.sub(r"\1", path))
    length = len(os.fsencode(path))
    if "\0" in path or length > MAX_UNIX_PATH_BYTES:
        raise BadSetting(
            f"a Unix socket cannot have the path {path!r}: give one of at most"
            f" {MAX_UNIX_PATH_BYTES} bytes without NUL; this has {length}"
        )
    return UNIXAddress(
        path=path,
        mode=_read_mode(arguments.get("mode", "660")),
        backlog=_backlog(arguments.get("backlog", "4096")),
        proxy=_read_proxy(arguments),
    )


def _read_mode(text: str) -> int:
    if not _MODE.fullmatch(text):
        raise BadSetting(
            f"{text!r} is not a file's mode: give three octal digits, such as 660"
        )
    return int(text, 8)


_KINDS: Mapping[str, Callable[[str, _Arguments, str], Address]] = {
    "tcp": _read_tcp,
    "unix": _read_unix,
}

_KINDS_FOR_CLIENTS: Final = {**_KINDS, "tls": _read_secure}
