"""
Opens all listening sockets before anything starts, while errors still reach the
terminal.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from twisted.logger import Logger

from kvd.admin.control.locations import control_path, make_control_folder
from kvd.daemon.systemd.sockets import Inherited, adopt
from kvd.errors import AddressUnusable
from kvd.net.listening import ListenerGroup, open_group
from kvd.settings import Settings, SystemdAddress, TCPAddress, UNIXAddress

_log = Logger()


@dataclass(frozen=True, slots=True)
class Sockets:
    """
    All listening sockets.
    """

    groups: Sequence[ListenerGroup]
    """For clients."""
    control: ListenerGroup | None
    status: ListenerGroup | None
    """Of the status site."""


def open_sockets(settings: Settings, size: int, inherited: list[Inherited]) -> Sockets:
    """
    Open all sockets, or none if one fails.

    Args:
        settings: All settings.
        size: How many sockets an address for clients has.
        inherited: The sockets from systemd; those that are used are removed.
    """
    with ExitStack() as undo:
        groups = open_groups(settings, size, inherited)
        for group in groups:
            undo.callback(group.close)
        status = None
        if settings.status is not None:
            status = open_group(settings.status, 1)
            undo.callback(status.close)
        sockets = Sockets(groups, open_control(settings, groups), status)
        undo.pop_all()
        return sockets


def open_groups(
    settings: Settings, size: int, inherited: list[Inherited]
) -> list[ListenerGroup]:
    """
    Open the sockets for clients, or none if one fails.

    Args:
        settings: All settings.
        size: How many sockets an address has.
        inherited: The sockets from systemd; those that are used are removed.
    """
    groups: list[ListenerGroup] = []
    try:
        for number, address in enumerate(settings.listen):
            if isinstance(address, SystemdAddress):
                opened = adopt(address, inherited, size)
            else:
                opened = [open_group(address, size)]
            for group in opened:
                group.listen = number
            groups += opened
    except BaseException:
        for group in groups:
            group.close()
        raise
    return groups


def open_control(
    settings: Settings, groups: Sequence[ListenerGroup]
) -> ListenerGroup | None:
    """
    Open the control socket, if the settings ask for one. Nobody chose the path of an
    automatic one: if it cannot be opened, kvd logs that and serves without.
    """
    if settings.control is None:
        return None
    if settings.control != "auto":
        return open_group(UNIXAddress(settings.control, mode=0o600), 1)
    try:
        path = _automatic_control(groups)
        return open_group(UNIXAddress(path, mode=0o600), 1)
    except AddressUnusable as error:
        _log.warn("there is no control socket: {error}", error=error.sentence)
        return None


def _automatic_control(groups: Sequence[ListenerGroup]) -> str:
    addresses = [group.address for group in groups]
    ports = [address.port for address in addresses if isinstance(address, TCPAddress)]
    if ports:
        make_control_folder()
        return control_path(ports[0])
    paths = [address.path for address in addresses if isinstance(address, UNIXAddress)]
    if paths[0].startswith("@"):
        raise AddressUnusable(
            f"{addresses[0]} has no folder; name a place with --control"
        )
    return f"{paths[0]}.control"
