"""
The listening sockets of one address, made by the supervisor and held for life.

A worker that dies takes no queued connection with it, since the supervisor
holds every socket too. For TCP the sockets are made with ``SO_REUSEPORT``, and
the kernel spreads connections over them. With that option the kernel no longer
says that a port is in use, if both are the same user's: so the first socket of an
address listens before it gets the option. Of two daemons that start at the same moment,
the kernel lets one do that.

Whether the file of a Unix socket has a server, one has to try, and only then remove it
and make another. Two daemons that did so at the same moment could remove each other's:
so whoever makes one locks its folder meanwhile.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import stat
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from kvd.errors import AddressUnusable
from kvd.model.programs import ClassicProgram, LoadedProgram
from kvd.net.reuseport import attach_program, detach_program
from kvd.settings import Address, TCPAddress, UNIXAddress

_WORDS: Final = {
    errno.EADDRINUSE: "it is in use; another kvd or another server has it, or this one"
    " at another of its addresses",
    errno.EADDRNOTAVAIL: "no interface of this machine has that address",
    errno.EACCES: "this user may not; ports below 1024 need a privilege",
    errno.EPERM: "this user may not",
    errno.ENOENT: "the folder of the socket does not exist",
    errno.ENOTDIR: "the folder of the socket is no folder",
    errno.EAFNOSUPPORT: "this machine does not speak that family of addresses",
}


# struct tcp_info of linux/tcp.h: eight bytes, then tcpi_rto, _ato, _snd_mss and
# _rcv_mss, then tcpi_unacked and _sacked, which describe the queue if a socket
# listens.
_TCP_INFO: Final = struct.Struct("=8x16xII")

LOCK_SECONDS: Final = 5.0
"""
Making a socket takes less than a millisecond; whoever locks its folder for longer is
no kvd.
"""


@dataclass
class ListenerGroup:
    """
    Sockets that listen on one address. Non-blocking; not inherited.
    """

    address: Address
    """With the port that the kernel chose, where it was left to it."""
    members: tuple[socket.socket, ...]
    inode: int | None = None
    """Of the file of a Unix socket, if this made it."""
    given: int = 0
    """How many of the members, the first ones, are another's, who keeps them: what
    waits at their end is for whoever gets them next."""
    fixed: bool = False
    """Whether no member can be added."""
    listen: int = 0
    """The number of the address among those of the settings. Several groups may have
    the same, if systemd gave them."""

    def grow(self, size: int) -> None:
        """
        Have at least so many members. Those of a Unix socket stay as they are, and
        those that are fixed.

        Raises:
            OSError: This process may make no more, or has no descriptors.
        """
        address = self.address
        if isinstance(address, UNIXAddress) or self.fixed:
            return
        while len(self.members) < size:
            member = _bound(family_of(address), address, like=self.members)
            try:
                member.listen(address.backlog)
            except BaseException:
                member.close()
                raise
            self.members += (member,)

    def attach_program(self, program: ClassicProgram | LoadedProgram | None) -> None:
        """
        Have a program choose among the members, or the kernel's hash (None). A group
        of one has no choice.

        Raises:
            OSError: The kernel does not take programs from this process.
        """
        if len(self.members) == 1:
            return
        if program is None:
            detach_program(self.members[0])
        else:
            attach_program(self.members[0], program)

    def waiting(self) -> list[int]:
        """
        How many connections wait to be accepted at each socket; none of Unix
        sockets, for which the kernel does not report it, and of closed ones.
        """
        if isinstance(self.address, UNIXAddress) or self.members[0].fileno() == -1:
            return []
        return [accept_queue(member)[0] for member in self.members]

    def have_waiting(self) -> list[bool]:
        """
        Whether a connection waits to be accepted at each socket; none of closed ones.
        """
        if not isinstance(self.address, UNIXAddress):
            return [count > 0 for count in self.waiting()]
        if self.members[0].fileno() == -1:
            return []
        # A listening socket is readable if a connection waits (accept(2)).
        poller = select.poll()
        for member in self.members:
            poller.register(member, select.POLLIN)
        readable = {descriptor for descriptor, _ in poller.poll(0)}
        return [member.fileno() in readable for member in self.members]

    def queue_limit(self) -> int | None:
        """
        How many may wait at each socket for which `waiting` counts them: the backlog
        as far as the kernel allows it.
        """
        if isinstance(self.address, UNIXAddress) or self.members[0].fileno() == -1:
            return None
        return accept_queue(self.members[0])[1]

    def give_away(self) -> None:
        """
        Another process keeps all members, and the file of a Unix socket.
        """
        self.given = len(self.members)
        self.inode = None

    def own_file(self, inode: int | None) -> None:
        """
        Another process has left the file of a Unix socket, with this inode, to this
        one. Where this is closed already, the file is removed.
        """
        self.inode = inode
        if self._is_closed():
            self._remove_file()

    def _is_closed(self) -> bool:
        return any(member.fileno() == -1 for member in self.members)

    def close(self) -> None:
        """
        Close this process's sockets, and remove the file of a Unix socket if
        it is still the one that was made. Further calls do nothing.
        """
        if self._is_closed():
            return
        # First the file: as long as this listens, nobody puts another in its place.
        self._remove_file()
        for member in self.members:
            member.close()

    def _remove_file(self) -> None:
        if isinstance(self.address, UNIXAddress):
            try:
                if os.stat(self.address.path).st_ino == self.inode:
                    os.unlink(self.address.path)
            except FileNotFoundError:
                # Somebody was tidier.
                pass
            except PermissionError:
                # Made before twistd --uid; who starts next removes it.
                pass


def accept_queue(listener: socket.socket) -> tuple[int, int]:
    """
    How many connections wait to be accepted at a socket of TCP, and how many may.
    """
    info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    waiting, limit = _TCP_INFO.unpack(info)
    return waiting, limit


def open_group(address: Address, size: int) -> ListenerGroup:
    """
    Listen on an address.

    Args:
        address: Where.
        size: How many sockets; a Unix address has one, since the kernel spreads
            nothing there.

    Raises:
        AddressUnusable: With the reason.
    """
    try:
        if isinstance(address, UNIXAddress):
            return _open_unix(address)
        return _open_tcp(address, size)
    except OSError as error:
        reason = _WORDS.get(error.errno or 0, error.strerror or str(error))
        raise AddressUnusable(f"cannot listen on {address}: {reason}") from error


def _open_tcp(address: TCPAddress, size: int) -> ListenerGroup:
    first = _bound(family_of(address), address)
    try:
        # Without SO_REUSEPORT, so that nobody else listens there, or begins to.
        first.listen(address.backlog)
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except BaseException:
        first.close()
        raise
    address = replace(address, port=first.getsockname()[1])
    group = ListenerGroup(address, (first,))
    try:
        group.grow(size)
    except BaseException:
        group.close()
        raise
    return group


def family_of(address: Address) -> int:
    """
    The family of the sockets of an address.
    """
    if isinstance(address, UNIXAddress):
        return socket.AF_UNIX
    return socket.AF_INET6 if ":" in address.interface else socket.AF_INET


def _bound(
    family: int,
    address: TCPAddress,
    like: Sequence[socket.socket] = (),
) -> socket.socket:
    """
    Args:
        like: The sockets that it joins; none: it is the first there.
    """
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        # Connections of a predecessor in TIME_WAIT do not matter.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # One that systemd made may take IPv4 too; others are of its group only if
            # they do the same.
            v6_only = [
                member.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
                for member in like[:1]
            ]
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, *(v6_only or [1]))
        # What is accepted inherits it (tcp(7)).
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if like:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((address.interface, address.port))
    except BaseException:
        sock.close()
        raise
    return sock


def _open_unix(address: UNIXAddress) -> ListenerGroup:
    with _exclusive_in(os.path.dirname(address.path) or "."):
        return _make_unix(address)


@contextmanager
def _exclusive_in(folder: str) -> Iterator[None]:
    """
    Make no socket in a folder while another process does.

    Raises:
        OSError: There is no such folder.
        AddressUnusable: Somebody else holds it for too long.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        # One that may be written to and not read: then nobody can lock it, and a race
        # is as likely as it was. Whether it may be written to is found out next.
        yield
        return
    try:
        _lock(descriptor, folder)
        yield
    finally:
        # Which unlocks it.
        os.close(descriptor)


def _lock(descriptor: int, folder: str) -> None:
    end = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() >= end:
                raise AddressUnusable(
                    f"cannot make a socket in {folder}: another process has the folder"
                    f" locked for more than {LOCK_SECONDS:g} seconds (flock); fuser"
                    " shows which"
                ) from error
        except OSError:
            # A file system without locks.
            return
        time.sleep(LOCK_SECONDS / 200)


def _make_unix(address: UNIXAddress) -> ListenerGroup:
    _remove_stale(address.path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        try:
            sock.bind(address.path)
        except OSError as error:
            if error.errno is None:
                raise AddressUnusable(
                    f"cannot listen on {address}: {error}; a path of at most 107"
                    " bytes would be right"
                ) from error
            raise
        # Nobody connects before it listens, so the mode is right in time.
        os.chmod(address.path, address.mode)
        sock.listen(address.backlog)
        inode = os.stat(address.path).st_ino
    except BaseException:
        sock.close()
        raise
    return ListenerGroup(address, (sock,), inode)


def _remove_stale(path: str) -> None:
    """
    Remove the file of a socket whose server is gone, and nothing else.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise AddressUnusable(
            f"cannot listen on unix:{path}: there is something that is no socket"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # One whose queue is full would keep a blocking one waiting, for ever if its
        # server is stopped.
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except FileNotFoundError:
            # Its server has just stopped.
            return
        except BlockingIOError:
            pass
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def is_public(address: Any) -> bool:
    """
    Whether other machines may reach an address.
    """
    return isinstance(address, TCPAddress) and not (
        address.interface.startswith("127.") or address.interface == "::1"
    )
