"""
Listening sockets that systemd opened and keeps (sd_listen_fds(3)).

They outlive the daemon: a client that connects while there is no daemon waits in the
accept queue for the next one.

Twisted's ``ListenFDs`` does not suffice. Of several sockets with one name, as those of
a ``.socket`` unit have, it knows only the last one. Without names it finds no sockets.
And it leaves the variables in the environment, where children see them.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from twisted.logger import Logger

from kvd.errors import AddressUnusable
from kvd.net.listening import ListenerGroup
from kvd.settings import Address, SystemdAddress, TCPAddress, UNIXAddress

FIRST_DESCRIPTOR: Final = 3
"""
SD_LISTEN_FDS_START.
"""

UNNAMED: Final = "unknown"
"""
The name of a socket without a name (sd_listen_fds_with_names(3)).
"""

_log = Logger()


@dataclass(frozen=True, slots=True)
class Inherited:
    """
    One descriptor that systemd gave.
    """

    name: str
    """Its ``FileDescriptorName=``, or the name of its unit if it has none."""
    descriptor: int


def take_inherited(
    environ: MutableMapping[str, str], first: int = FIRST_DESCRIPTOR
) -> list[Inherited]:
    """
    The descriptors that systemd gave to this process. Children neither inherit them nor
    find them in the environment.

    Args:
        environ: The environment of the process; the variables are removed.
        first: The first descriptor.
    """
    pid = environ.pop("LISTEN_PID", "")
    count = environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "")
    # Since systemd 258; it identifies the same process as LISTEN_PID.
    environ.pop("LISTEN_PIDFDID", None)
    if pid != str(os.getpid()) or not count.isdecimal():
        # They were given to a parent of this process, or there are none.
        return []
    named = names.split(":") if names else []
    named += [UNNAMED] * (int(count) - len(named))
    inherited = [Inherited(named[at], first + at) for at in range(int(count))]
    for each in inherited:
        try:
            os.set_inheritable(each.descriptor, False)
        except OSError as error:
            raise AddressUnusable(
                f"LISTEN_FDS is {count}, but descriptor {each.descriptor} is not open"
            ) from error
    return inherited


def adopt(
    address: SystemdAddress, inherited: list[Inherited], size: int
) -> list[ListenerGroup]:
    """
    Adopt the sockets of an address, in groups that are bound to the same address. Their
    order is systemd's, by which the kernel numbers them.

    Args:
        address: Names the sockets, or means all.
        inherited: The sockets that are not adopted yet; those adopted here are removed.
        size: How many sockets a group should have. If systemd gave fewer, kvd adds its
            own, if the kernel allows it.

    Raises:
        AddressUnusable: There are none, or one does not accept connections.
    """
    meant = [each for each in inherited if address.name in ("", each.name)]
    if not meant:
        raise AddressUnusable(_absence(address, inherited))
    groups: dict[Address, ListenerGroup] = {}
    try:
        for each in meant:
            sock = _checked(each)
            inherited.remove(each)
            place = place_of(sock, address)
            group = groups.setdefault(place, ListenerGroup(place, ()))
            group.members += (sock,)
            group.given += 1
    except BaseException:
        for group in groups.values():
            group.close()
        raise
    for group in groups.values():
        _grow(group, size)
    return list(groups.values())


def leave(inherited: Iterable[Inherited]) -> None:
    """
    Close the sockets that were not adopted, with a warning: in systemd they still
    listen, and clients that connect wait in vain.
    """
    for each in inherited:
        _log.warn(
            "systemd gave a socket named {name}, but no --listen names it:"
            " --listen systemd uses all",
            name=each.name,
        )
        os.close(each.descriptor)


def _absence(address: SystemdAddress, inherited: list[Inherited]) -> str:
    if inherited:
        known = ", ".join(sorted({each.name for each in inherited}))
        return (
            f"cannot listen on {address}: systemd gave no such socket, or it is taken"
            f" already; there are: {known}"
        )
    return (
        f"cannot listen on {address}: systemd gave no sockets to this process, or all"
        " are taken already; kvd has to be started by its service unit itself, not by"
        " a shell in it, and with a socket unit"
    )


def _checked(each: Inherited) -> socket.socket:
    try:
        sock = socket.socket(fileno=each.descriptor)
    except OSError as error:
        raise AddressUnusable(
            f"{each.name} from systemd is not a socket ({error.strerror}):"
            " ListenStream= would be right"
        ) from error
    wrong = _wrong_with(sock)
    if wrong:
        sock.close()
        raise AddressUnusable(f"the socket {each.name} from systemd {wrong}")
    sock.setblocking(False)
    if sock.family != socket.AF_UNIX:
        # What is accepted inherits it (tcp(7)).
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _wrong_with(sock: socket.socket) -> str:
    if sock.family not in {socket.AF_INET, socket.AF_INET6, socket.AF_UNIX}:
        return "is neither one of TCP nor a Unix socket"
    if sock.type != socket.SOCK_STREAM:
        return "is not for connections: ListenStream= would be right"
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return "does not listen: Accept=no would be right"
    return ""


def place_of(sock: socket.socket, given: SystemdAddress) -> Address:
    """
    The address that a socket is bound to.

    Args:
        sock: Closed if it cannot be used.
        given: What the settings say of it.

    Raises:
        AddressUnusable: It is for TLS, and no socket of TCP.
    """
    name: Any = sock.getsockname()
    if sock.family != socket.AF_UNIX:
        return TCPAddress(name[0], name[1], tls=given.tls, proxy=given.proxy)
    if given.tls is not None:
        sock.close()
        raise AddressUnusable(
            f"{given} is for TLS, and among its sockets is the Unix socket"
            f" {os.fsdecode(name)}: give it a FileDescriptorName= of its own"
        )
    if isinstance(name, bytes):
        # Abstract (unix(7)): without a file, and shown as systemd writes it.
        return UNIXAddress("@" + os.fsdecode(name[1:]), proxy=given.proxy)
    return UNIXAddress(name, proxy=given.proxy)


def _grow(group: ListenerGroup, size: int) -> None:
    """
    Have so many members, or for ever those that there are.
    """
    there = len(group.members)
    if isinstance(group.address, UNIXAddress):
        return
    reason = _hindrance(group.members)
    if not reason:
        try:
            group.grow(size)
            return
        except OSError as error:
            # As where systemd made them as root, and kvd is another user: then the
            # kernel calls the address in use.
            reason = error.strerror or str(error)
    group.fixed = True
    if there < size:
        _log.info(
            "{address} has the sockets that systemd gave, {there}, and kvd cannot add"
            " its own ({reason}): workers share them",
            address=str(group.address),
            there=there,
            reason=reason,
        )


def _hindrance(members: Sequence[socket.socket]) -> str:
    for member in members:
        if not member.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT):
            return "ReusePort=yes is not set"
        if member.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16):
            # Ours would be reached through every interface.
            return "BindToDevice= is set"
    return ""
