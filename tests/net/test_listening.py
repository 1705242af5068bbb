"""
Tests for `kvd.net.listening`.
"""

import fcntl
import os
import socket
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from unittest import mock

import pytest

import kvd.net.listening
from kvd.errors import AddressUnusable
from kvd.net.listening import ListenerGroup, is_public, open_group
from kvd.settings import TCPAddress, UNIXAddress
from tests.descriptors import Descriptors

ANY_PORT = TCPAddress("127.0.0.1", 0)


def test_all_members_listen_on_one_port() -> None:
    """
    The one that the kernel chose is reported.
    """
    group = open_group(ANY_PORT, 4)
    ports = {member.getsockname()[1] for member in group.members}
    group.close()

    assert isinstance(group.address, TCPAddress)
    assert {group.address.port} == ports
    assert 4 == len(group.members)
    assert f"http://127.0.0.1:{group.address.port}" == str(group.address)


def test_members_are_for_this_process_alone() -> None:
    """
    Not inherited, not blocking; what they accept sends small replies at once.
    """
    group = open_group(ANY_PORT, 1)
    (member,) = group.members
    seen = (
        member.get_inheritable(),
        member.getblocking(),
        member.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY),
    )
    group.close()

    assert (False, False, 1) == seen


@pytest.mark.parametrize("size", [1, 4])
def test_a_port_in_use_is_noticed(size: int) -> None:
    """
    Also one that the kernel would let us share.
    """
    group = open_group(ANY_PORT, size)
    try:
        with pytest.raises(AddressUnusable, match="in use"):
            open_group(group.address, size)
    finally:
        group.close()

    open_group(group.address, size).close()


@pytest.mark.parametrize(
    ("address", "word"),
    [
        (TCPAddress("192.0.2.1", 0), "no interface"),
        (UNIXAddress("/no/such/folder/socket"), "folder"),
        (UNIXAddress("/dev/null/socket"), "folder"),
        (UNIXAddress("/tmp/" + "x" * 200), "107"),
    ],
)
def test_impossible_addresses_are_named(
    address: TCPAddress | UNIXAddress, word: str
) -> None:
    """
    With the reason.
    """
    with pytest.raises(AddressUnusable, match=word) as refused:
        open_group(address, 1)

    assert str(address) in str(refused.value)


def test_of_two_that_start_at_once_one_has_the_port(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    From the moment on at which the first listens, before it has all its sockets.
    """
    grow = ListenerGroup.grow

    def grow_late(group: ListenerGroup, size: int) -> None:
        monkeypatch.setattr(ListenerGroup, "grow", grow)
        with pytest.raises(AddressUnusable, match="in use"):
            open_group(group.address, size)
        grow(group, size)

    monkeypatch.setattr(ListenerGroup, "grow", grow_late)
    group = open_group(ANY_PORT, 4)
    members = len(group.members)
    group.close()

    assert 4 == members


def test_connections_come_to_all_members() -> None:
    """
    To the first one too, which listened before the kernel knew of others.
    """
    group = open_group(ANY_PORT, 4)
    assert isinstance(group.address, TCPAddress)
    place = group.address.interface, group.address.port
    clients = [socket.create_connection(place) for _ in range(200)]
    waiting = group.waiting()
    for client in clients:
        client.close()
    group.close()

    assert 200 == sum(waiting)
    assert min(waiting) > 20


def test_what_waits_is_counted_at_each_socket() -> None:
    """
    Until somebody accepts it, and up to a limit.
    """
    group = open_group(TCPAddress("127.0.0.1", 0, backlog=7), 1)
    (member,) = group.members
    try:
        assert [0] == group.waiting()
        with (
            socket.create_connection(member.getsockname()),
            socket.create_connection(member.getsockname()),
        ):
            assert [2] == group.waiting()
            member.accept()[0].close()
            assert [1] == group.waiting()
        assert 7 == group.queue_limit()
    finally:
        group.close()

    assert [] == group.waiting()
    assert group.queue_limit() is None


@pytest.mark.parametrize("unix", [False, True])
def test_whether_a_connection_waits_is_known_of_each_socket(
    unix: bool, tmp_path: Path
) -> None:
    """
    Of any kind.
    """
    group = open_group(
        UNIXAddress(str(tmp_path / "socket")) if unix else TCPAddress("127.0.0.1", 0), 1
    )
    (member,) = group.members
    with socket.socket(member.family) as client:
        try:
            assert [False] == group.have_waiting()
            client.connect(member.getsockname())
            assert [True] == group.have_waiting()
            member.accept()[0].close()
            assert [False] == group.have_waiting()
        finally:
            group.close()

    assert [] == group.have_waiting()


def test_the_kernel_does_not_report_the_queue_of_a_unix_socket(tmp_path: Path) -> None:
    """
    So nothing is reported of it.
    """
    group = open_group(UNIXAddress(str(tmp_path / "socket")), 1)
    try:
        assert [] == group.waiting()
        assert group.queue_limit() is None
    finally:
        group.close()


def test_ipv6_leaves_ipv4_alone() -> None:
    """
    Both can listen on one port.
    """
    six = open_group(TCPAddress("::1", 0), 2)
    assert isinstance(six.address, TCPAddress)
    four = open_group(TCPAddress("127.0.0.1", six.address.port), 2)
    six.close()
    four.close()

    assert f"http://[::1]:{six.address.port}" == str(six.address)


def test_a_unix_socket_is_alone_and_has_its_mode(tmp_path: Path) -> None:
    """
    Whatever size was asked for; its file goes with it.
    """
    path = tmp_path / "socket"
    group = open_group(UNIXAddress(str(path), 0o600), 8)
    mode = path.stat().st_mode & 0o777
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    group.close()
    group.close()

    assert 1 == len(group.members)
    assert 0o600 == mode
    assert not path.exists()


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    """
    Its server is gone.
    """
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    group = open_group(UNIXAddress(str(path)), 1)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    group.close()


def test_a_socket_that_goes_meanwhile_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Its server stops, and removes its file, while another asks whether it is live.
    """
    address = UNIXAddress(str(tmp_path / "socket"))
    predecessor = open_group(address, 1)
    lstat = os.lstat

    def lstat_and_stop(path: str) -> os.stat_result:
        found = lstat(path)
        predecessor.close()
        return found

    monkeypatch.setattr(os, "lstat", lstat_and_stop)
    group = open_group(address, 1)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(address.path)
    group.close()


def test_a_live_socket_is_not(tmp_path: Path) -> None:
    """
    It is in use.
    """
    address = UNIXAddress(str(tmp_path / "socket"))
    group = open_group(address, 1)
    try:
        with pytest.raises(AddressUnusable, match="in use"):
            open_group(address, 1)
    finally:
        group.close()


def test_a_stopped_server_with_a_full_queue_is_live(tmp_path: Path) -> None:
    """
    Whoever would wait until it takes one more would wait for ever.
    """
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as stopped, ExitStack() as clients:
        stopped.bind(path)
        stopped.listen(1)
        while True:
            client = clients.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            try:
                client.connect(path)
            except BlockingIOError:
                break
        with pytest.raises(AddressUnusable, match="in use"):
            open_group(UNIXAddress(path), 1)


def test_of_two_that_start_at_once_one_has_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Also while the first has its file and does not listen yet.
    """
    path = str(tmp_path / "socket")
    made: list[ListenerGroup | AddressUnusable] = []

    def make() -> None:
        try:
            made.append(open_group(UNIXAddress(path), 1))
        except AddressUnusable as error:
            made.append(error)

    second = Thread(target=make)
    chmod = os.chmod

    def chmod_late(name: str, mode: int) -> None:
        monkeypatch.setattr(os, "chmod", chmod)
        second.start()
        # Without a lock it would be done by then.
        second.join(0.3)
        chmod(name, mode)

    monkeypatch.setattr(os, "chmod", chmod_late)
    make()
    second.join()
    (group,) = [each for each in made if isinstance(each, ListenerGroup)]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        group.members[0].accept()[0].close()
    group.close()

    (error,) = [each for each in made if isinstance(each, AddressUnusable)]
    assert "in use" in error.sentence


def test_a_folder_that_somebody_locks_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    After a while, with what to do.
    """
    monkeypatch.setattr(kvd.net.listening, "LOCK_SECONDS", 0.05)
    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    with pytest.raises(AddressUnusable, match="another process has the folder locked"):
        open_group(UNIXAddress(str(tmp_path / "socket")), 1)
    os.close(folder)

    open_group(UNIXAddress(str(tmp_path / "socket")), 1).close()


def test_a_successor_keeps_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Whoever ends removes its file before others can see that it does not listen.
    """
    path = str(tmp_path / "socket")
    group = open_group(UNIXAddress(path), 1)
    states: list[bool] = []
    unlink = os.unlink

    def unlink_late(name: str) -> None:
        with socket.socket(socket.AF_UNIX) as client:
            states.append(0 == client.connect_ex(path))
        unlink(name)

    monkeypatch.setattr(os, "unlink", unlink_late)
    group.close()

    assert [True] == states


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    """
    A typing mistake costs no file.
    """
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(AddressUnusable, match="no socket"):
        open_group(UNIXAddress(str(path)), 1)

    assert "precious" == path.read_text()


def test_only_our_own_file_is_removed(tmp_path: Path) -> None:
    """
    Another daemon may have taken the path meanwhile, or tidied up.
    """
    path = tmp_path / "socket"
    group = open_group(UNIXAddress(str(path)), 1)
    # Moved, not removed: the inode of a removed file may be used again.
    os.rename(path, tmp_path / "moved")
    path.write_text("another's")
    group.close()
    assert path.exists()

    path.unlink()
    group = open_group(UNIXAddress(str(path)), 1)
    path.unlink()
    group.close()


PUBLIC = [
    (TCPAddress("127.0.0.1", 1), False),
    (TCPAddress("127.3.2.1", 1), False),
    (TCPAddress("::1", 1), False),
    (UNIXAddress("/s"), False),
    (TCPAddress("0.0.0.0", 1), True),
    (TCPAddress("::", 1), True),
    (TCPAddress("10.0.0.1", 1), True),
]


@pytest.mark.parametrize(("address", "public"), PUBLIC)
def test_addresses_that_others_reach_are_known(
    address: TCPAddress | UNIXAddress, public: bool
) -> None:
    """
    For the warning.
    """
    assert public is is_public(address)


def test_a_file_that_is_left_to_one_that_has_closed_is_removed(
    tmp_path: Path,
) -> None:
    """
    And only then.
    """
    path = tmp_path / "socket"
    group = open_group(UNIXAddress(str(path)), 1)
    inode = group.inode
    group.give_away()
    group.own_file(inode)
    assert path.exists()
    group.give_away()
    group.close()
    assert path.exists()
    group.own_file(inode)
    assert not path.exists()


def test_sockets_that_were_given_away_keep_their_file(tmp_path: Path) -> None:
    """
    It is another process's to remove.
    """
    group = open_group(UNIXAddress(str(tmp_path / "socket")), 1)
    group.give_away()
    group.close()

    assert 1 == group.given
    assert (tmp_path / "socket").exists()


def test_a_unix_socket_that_is_removed_at_once_is_not_left_open(tmp_path: Path) -> None:
    """
    By another program: nobody could reach it.
    """
    opened = Descriptors("socket:")
    path = tmp_path / "socket"

    def remove(path: str, _: int) -> None:
        os.unlink(path)

    with (
        mock.patch("os.chmod", remove),
        pytest.raises(AddressUnusable, match="does not exist"),
    ):
        open_group(UNIXAddress(str(path)), 1)

    assert 0 == opened.more
