"""
Tests for `kvd.daemon.systemd.sockets`, with true sockets and played variables.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from fcntl import F_DUPFD_CLOEXEC, fcntl
from pathlib import Path

import pytest
from twisted.logger import capturedLogs

from kvd.daemon.systemd.sockets import Inherited, adopt, leave, take_inherited
from kvd.errors import AddressUnusable
from kvd.net.listening import ListenerGroup
from kvd.settings import TLS, SystemdAddress, TCPAddress, UNIXAddress

FIRST = 500
"""
Stands for 3, which is taken in a process that tests.
"""

ALL = SystemdAddress("")


def place(descriptor: int, number: int) -> None:
    """
    Let a descriptor have another number too, which nothing else has.
    """
    assert number == fcntl(descriptor, F_DUPFD_CLOEXEC, number)


class Systemd:
    """
    Holds sockets, and gives them away.
    """

    def __init__(self, held: ExitStack) -> None:
        self._held = held
        self.environ: dict[str, str] = {"PATH": "/bin"}

    def hold(self, sock: socket.socket) -> socket.socket:
        """
        Have it as long as the test lasts.
        """
        return self._held.enter_context(sock)

    def listen(
        self,
        family: int = socket.AF_INET,
        place: object = ("127.0.0.1", 0),
        shared: bool = False,
    ) -> socket.socket:
        """
        Make a listening socket, as systemd does.
        """
        sock = self.hold(socket.socket(family, socket.SOCK_STREAM))
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(place)  # type: ignore[arg-type]  # of whichever family
        sock.listen()
        return sock

    def give(
        self, *given: tuple[str, socket.socket | int], pid: int | None = None
    ) -> list[Inherited]:
        """
        Start a daemon with these, each with its name.
        """
        for at, (_, each) in enumerate(given):
            number = each if isinstance(each, int) else each.fileno()
            place(number, FIRST + at)
        self.environ |= {
            "LISTEN_PID": str(os.getpid() if pid is None else pid),
            "LISTEN_FDS": str(len(given)),
            "LISTEN_FDNAMES": ":".join(name for name, _ in given),
            "LISTEN_PIDFDID": "4711",
        }
        return take_inherited(self.environ, FIRST)

    def adopted(
        self, address: SystemdAddress, inherited: list[Inherited], size: int = 1
    ) -> list[ListenerGroup]:
        """
        What kvd makes of them.
        """
        groups = adopt(address, inherited, size)
        for group in groups:
            self._held.callback(group.close)
        return groups


@pytest.fixture
def systemd() -> Iterator[Systemd]:
    """
    One for each test.
    """
    with ExitStack() as held:
        yield Systemd(held)


@pytest.fixture
def logged() -> Iterator[Callable[[], Sequence[str]]]:
    """
    The formats of what was logged.
    """
    with capturedLogs() as events:
        yield lambda: [
            event["log_format"] + f" {event.get('reason')}" for event in events
        ]


def test_sockets_are_taken_for_this_process_alone(systemd: Systemd) -> None:
    """
    Non-blocking, and not inherited; no child finds the variables.
    """
    made = systemd.listen()
    (group,) = systemd.adopted(ALL, systemd.give(("web", made)))
    (member,) = group.members

    assert TCPAddress("127.0.0.1", made.getsockname()[1]) == group.address
    assert FIRST == member.fileno()
    assert not member.getblocking()
    assert not member.get_inheritable()
    assert member.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert {"PATH": "/bin"} == systemd.environ


def test_a_place_of_several_sockets_is_one_group(systemd: Systemd) -> None:
    """
    Also where they are given in between others; all have one name, as those of one
    socket unit.
    """
    one = systemd.listen(shared=True)
    other = systemd.listen()
    two = systemd.listen(place=one.getsockname(), shared=True)
    given = systemd.give(
        ("kvd.socket", one), ("kvd.socket", other), ("kvd.socket", two)
    )
    groups = systemd.adopted(ALL, given)

    assert [[FIRST, FIRST + 2], [FIRST + 1]] == [
        [member.fileno() for member in group.members] for group in groups
    ]
    assert [] == given


def test_a_name_chooses(systemd: Systemd) -> None:
    """
    Others stay for others.
    """
    given = systemd.give(("web", systemd.listen()), ("local", systemd.listen()))
    (group,) = systemd.adopted(SystemdAddress("local"), given)

    assert [FIRST + 1] == [member.fileno() for member in group.members]
    assert [Inherited("web", FIRST)] == given
    leave(given)


def test_sockets_may_be_for_tls(systemd: Systemd) -> None:
    """
    Those of TCP.
    """
    tls = TLS("/cert", "/key")
    given = systemd.give(("https", systemd.listen()))
    (group,) = systemd.adopted(SystemdAddress("https", tls), given)

    assert str(group.address).startswith("https://127.0.0.1:")
    assert isinstance(group.address, TCPAddress)
    assert tls == group.address.tls


def test_a_unix_socket_is_not_for_tls(systemd: Systemd, tmp_path: Path) -> None:
    """
    And says which it is.
    """
    path = str(tmp_path / "socket")
    given = systemd.give(("https", systemd.listen(socket.AF_UNIX, path)))

    with pytest.raises(AddressUnusable, match=f"the Unix socket {path}"):
        systemd.adopted(SystemdAddress("https", TLS("/cert", "/key")), given)


def test_a_socket_that_nobody_adopts_is_warned_of(
    systemd: Systemd, logged: Callable[[], Sequence[str]]
) -> None:
    """
    Whoever connects to it would wait in vain.
    """
    leave(systemd.give(("web", systemd.listen())))

    assert any("{name}, but no --listen names it" in each for each in logged())
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(FIRST)


def test_sockets_without_names_are_known_as_such(systemd: Systemd) -> None:
    """
    As to systemd itself.
    """
    made = systemd.listen()
    place(made.fileno(), FIRST)
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
    given = take_inherited(environ, FIRST)

    assert [Inherited("unknown", FIRST)] == given
    leave(given)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "one"},
        {"LISTEN_FDS": "1"},
    ],
)
def test_what_was_meant_for_another_process_is_none(environ: dict[str, str]) -> None:
    """
    And no child will think that it was meant for it.
    """
    given = take_inherited(environ, FIRST)

    assert [] == given
    assert {} == environ
    with pytest.raises(AddressUnusable, match="gave no sockets to this process"):
        adopt(ALL, given, 1)


def test_descriptors_that_are_not_there_are_reported(systemd: Systemd) -> None:
    """
    Somebody closed them on the way.
    """
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}

    with pytest.raises(AddressUnusable, match=f"descriptor {FIRST} is not open"):
        take_inherited(environ, FIRST)


def test_an_unknown_name_is_answered_with_the_known_ones(systemd: Systemd) -> None:
    """
    With each once.
    """
    given = systemd.give(("web", systemd.listen()), ("web", systemd.listen()))
    with pytest.raises(AddressUnusable, match=r"systemd:wbe: .* there are: web$"):
        systemd.adopted(SystemdAddress("wbe"), given)
    leave(given)


def test_what_takes_no_connections_is_refused(systemd: Systemd) -> None:
    """
    With what would be right in the socket unit.
    """
    datagrams = systemd.hold(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    silent = systemd.hold(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    systemd.hold(ends[0])
    systemd.hold(ends[1])
    netlink = systemd.hold(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
    pipe = os.pipe()
    for each, reason in (
        (datagrams, "web from systemd is not for connections: ListenStream="),
        (ends[0], "web from systemd is not for connections: ListenStream="),
        (silent, "web from systemd does not listen: Accept=no"),
        (netlink, "web from systemd is neither one of TCP nor a Unix socket"),
        (pipe[0], "web from systemd is not a socket"),
    ):
        with pytest.raises(AddressUnusable, match=reason):
            adopt(ALL, systemd.give(("good", systemd.listen()), ("web", each)), 1)
    for descriptor in (*pipe, FIRST + 1):
        os.close(descriptor)


def test_the_file_of_a_unix_socket_is_systemds(
    systemd: Systemd, tmp_path: Path, logged: Callable[[], Sequence[str]]
) -> None:
    """
    It stays, and so does the socket behind it, of which there is never but one.
    """
    path = str(tmp_path / "socket")
    made = systemd.listen(socket.AF_UNIX, path)
    (group,) = systemd.adopted(ALL, systemd.give(("web", made)), size=4)
    group.close()

    assert [] == logged()
    assert f"unix:{path}" == str(group.address)
    assert 1 == len(group.members)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def test_an_abstract_unix_socket_has_no_file(systemd: Systemd) -> None:
    """
    It is written as systemd does.
    """
    name = f"kvd-test-{os.getpid()}"
    made = systemd.listen(socket.AF_UNIX, f"\0{name}")
    (group,) = systemd.adopted(ALL, systemd.give(("web", made)))
    group.close()

    assert UNIXAddress(f"@{name}") == group.address


def test_where_the_port_may_be_shared_kvd_adds_its_own(systemd: Systemd) -> None:
    """
    Now, and whenever more are wanted.
    """
    made = systemd.listen(shared=True)
    (group,) = systemd.adopted(ALL, systemd.give(("web", made)), size=3)
    assert 3 == len(group.members)
    group.grow(4)

    assert [made.getsockname()] * 4 == [
        member.getsockname() for member in group.members
    ]


def test_what_kvd_adds_takes_the_same_connections(systemd: Systemd) -> None:
    """
    systemd's IPv6 sockets take IPv4 too, unless it is configured otherwise.
    """
    made = systemd.hold(socket.socket(socket.AF_INET6, socket.SOCK_STREAM))
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    made.bind(("::", 0))
    made.listen()
    (group,) = systemd.adopted(ALL, systemd.give(("web", made)), size=2)

    assert [0, 0] == [
        member.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        for member in group.members
    ]


def test_where_it_may_not_the_socket_stays_alone(
    systemd: Systemd, logged: Callable[[], Sequence[str]]
) -> None:
    """
    For good, and it is said once.
    """
    (enough,) = systemd.adopted(ALL, systemd.give(("web", systemd.listen())), size=1)
    enough.grow(4)
    assert 1 == len(enough.members)
    assert [] == logged()

    enough.close()
    (group,) = systemd.adopted(ALL, systemd.give(("web", systemd.listen())), size=3)
    group.grow(4)
    assert 1 == len(group.members)
    (said,) = logged()
    assert "kvd cannot add" in said
    assert said.endswith("ReusePort=yes is not set")


def test_a_socket_of_one_device_stays_alone(
    systemd: Systemd, logged: Callable[[], Sequence[str]]
) -> None:
    """
    kvd's own would be reached through every device.
    """
    made = systemd.listen(shared=True)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
    (group,) = systemd.adopted(ALL, systemd.give(("web", made)), size=3)

    assert 1 == len(group.members)
    assert 1 == sum("kvd cannot add" in each for each in logged())


def test_a_socket_that_the_kernel_lets_nobody_join_stays_alone(
    systemd: Systemd,
    monkeypatch: pytest.MonkeyPatch,
    logged: Callable[[], Sequence[str]],
) -> None:
    """
    As that of another user.
    """

    def refuse(group: ListenerGroup, size: int) -> None:
        raise OSError(98, "Address already in use")

    given = systemd.give(("web", systemd.listen(shared=True)))
    with monkeypatch.context() as patched:
        patched.setattr(ListenerGroup, "grow", refuse)
        (group,) = systemd.adopted(ALL, given, size=3)
    group.grow(4)

    assert 1 == len(group.members)
    assert 1 == sum("kvd cannot add" in each for each in logged())
