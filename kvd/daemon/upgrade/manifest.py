"""
What the old daemon hands to the new one: the descriptors that it inherits, and the
settings that must not differ.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from kvd import __version__
from kvd.daemon.opening import Sockets
from kvd.daemon.reload import FIXED
from kvd.daemon.systemd.sockets import place_of
from kvd.errors import BadSetting
from kvd.net.listening import ListenerGroup
from kvd.settings import Address, Settings, SystemdAddress, TCPAddress, UNIXAddress

PROTOCOL: Final = 1

MAX_MESSAGE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class HandedGroup:
    """
    A `ListenerGroup`.
    """

    listen: int
    members: Sequence[int]
    """Their descriptors."""
    inode: int | None
    given: int
    fixed: bool


@dataclass(frozen=True, slots=True)
class Manifest:
    """
    See the module.
    """

    version: str
    """Of the old daemon's code."""
    pid: int
    """Of the old daemon."""
    fixed: Mapping[str, str]
    """The settings that must not differ, by name."""
    groups: Sequence[HandedGroup]
    """For clients."""
    control: HandedGroup | None
    status: HandedGroup | None
    totals: int | None
    """The descriptor of the file of totals of a store with limits, which is locked."""
    stderr: int | None
    """The descriptor of standard error. That of the new daemon is a pipe to the old
    one until it serves."""
    stand_in: int | None
    """The descriptor of a pipe to the process that stands in for the daemon
    (`kvd.daemon.upgrade.stand_in`)."""
    ignores_hangup: bool
    """Whether it goes on without its terminal. The new daemon cannot see that itself,
    since the old one handles SIGHUP."""

    def descriptors(self) -> Iterator[int]:
        """
        All descriptors that the new daemon inherits.
        """
        for group in (*self.groups, self.control, self.status):
            if group is not None:
                yield from group.members
        for descriptor in (self.totals, self.stderr, self.stand_in):
            if descriptor is not None:
                yield descriptor

    def encode(self) -> bytes:
        """
        As the first message.
        """
        return json.dumps({"protocol": PROTOCOL, **asdict(self)}).encode("ascii")


def decode(message: bytes) -> Manifest:
    """
    Read the first message.

    Raises:
        BadSetting: It is of a version of kvd with another protocol.
    """
    fields = json.loads(message)
    if fields["protocol"] != PROTOCOL:
        raise BadSetting(
            f"the running kvd {fields['version']} cannot be upgraded to"
            f" {__version__}: they hand over in different ways; restart it"
        )
    return Manifest(
        fields["version"],
        fields["pid"],
        fields["fixed"],
        [HandedGroup(**group) for group in fields["groups"]],
        fields["control"] and HandedGroup(**fields["control"]),
        fields["status"] and HandedGroup(**fields["status"]),
        fields["totals"],
        fields["stderr"],
        fields["stand_in"],
        # An older kvd does not say so.
        fields.get("ignores_hangup", False),
    )


def make_manifest(
    settings: Settings,
    sockets: Sockets,
    totals: int | None,
    stand_in: int | None,
    ignores_hangup: bool = False,
) -> Manifest:
    """
    The manifest of this daemon, with what `Manifest` says of each descriptor.
    """
    return Manifest(
        __version__,
        os.getpid(),
        fixed_texts(settings),
        [_handed(group) for group in sockets.groups],
        None if sockets.control is None else _handed(sockets.control),
        None if sockets.status is None else _handed(sockets.status),
        totals,
        None,
        stand_in,
        ignores_hangup,
    )


def _handed(group: ListenerGroup) -> HandedGroup:
    members = [member.fileno() for member in group.members]
    return HandedGroup(group.listen, members, group.inode, group.given, group.fixed)


def adopted(
    group: HandedGroup, listen: Address | SystemdAddress | None
) -> ListenerGroup:
    """
    The sockets that this process inherited. As long as they are also the old daemon's,
    no more are made, and no file is removed.

    Args:
        group: The old daemon's.
        listen: The address in the settings; None: there is none.
    """
    members = [socket.socket(fileno=descriptor) for descriptor in group.members]
    for member in members:
        member.setblocking(False)
    if isinstance(listen, TCPAddress):
        address: Address = replace(listen, port=members[0].getsockname()[1])
    elif isinstance(listen, UNIXAddress):
        address = listen
    else:
        address = place_of(members[0], listen or SystemdAddress(""))
    return ListenerGroup(
        address,
        tuple(members),
        given=len(members),
        fixed=True,
        listen=group.listen,
    )


def fixed_texts(settings: Settings) -> dict[str, str]:
    """
    The settings that must not differ, as texts. The files of TLS may.
    """
    texts = {name: str(getattr(settings, name)) for name in FIXED}
    texts["listen"] = ", ".join(map(_written, settings.listen))
    texts["quotas"] = ", ".join(map(str, settings.quotas))
    return texts


def _written(address: Any) -> str:
    if isinstance(address, SystemdAddress):
        return f"{address}{' with TLS' if address.tls else ''}"
    mode = f":mode={address.mode:o}" if isinstance(address, UNIXAddress) else ""
    return f"{address}{mode}:backlog={address.backlog}"
