"""
Tests for `kvd.net.reactor`: both halves of Twisted's `IReactorSocket`.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from threading import Thread
from typing import Any
from unittest import mock

import pytest
from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import UnsupportedAddressFamily
from twisted.internet.interfaces import IListeningPort, IReactorSocket
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.selectreactor import SelectReactor
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kvd.ipc.row import lone_row
from kvd.net.factory import ServerFactory
from kvd.net.port import Port
from kvd.net.reactor import (
    WorkerReactor,
    install_adoption,
    poll,
    poll_in_python,
    poller_of,
)
from kvd.net.transport import ServerTransport
from tests.descriptors import Descriptors
from tests.stepped import Client, SteppedReactor


class Greeter(Protocol):
    """
    Says who it takes the client for, then repeats what it hears.
    """

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"hello ")

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


class Greeters(Factory):
    """
    A factory as anybody writes one.
    """

    noisy = False
    protocol = Greeter

    def __init__(self) -> None:
        self.came: list[Any] = []
        self.built: list[Any] = []
        self.running = False
        self.declines = False

    def startFactory(self) -> None:
        self.running = True

    def stopFactory(self) -> None:
        self.running = False

    def buildProtocol(self, addr: Any) -> Any:
        self.came.append(addr)
        built = None if self.declines else super().buildProtocol(addr)
        self.built.append(built)
        return built


class Keeper(ServerFactory):
    """
    Takes connections as they are.
    """

    def __init__(self) -> None:
        self.kept: list[tuple[socket.socket, Any]] = []

    def take(self, connection: socket.socket, peer: Any) -> bool:
        self.kept.append((connection, peer))
        return True


class AdoptCase(SynchronousTestCase):
    """
    A stepped reactor, and sockets to adopt.
    """

    def setUp(self) -> None:
        self.reactor = SteppedReactor()
        self.addCleanup(self.reactor.dispose)
        self.factory = Greeters()

    def listener(self, family: int, address: Any) -> socket.socket:
        """
        A socket that the supervisor holds.
        """
        sock = socket.socket(family, socket.SOCK_STREAM)
        self.addCleanup(sock.close)
        sock.bind(address)
        sock.listen()
        sock.setblocking(False)
        return sock

    def adopt(self, sock: socket.socket) -> Port:
        """
        Accept from a socket in a worker, which closes what it got.
        """
        given = sock.dup()
        port = self.reactor.adoptStreamPort(given.fileno(), given.family, self.factory)
        given.close()
        self.addCleanup(port.stopListening)
        return port

    def client(self, sock: socket.socket) -> Client:
        """
        Somebody who connects.
        """
        client = socket.socket(sock.family)
        self.addCleanup(client.close)
        client.connect(sock.getsockname())
        return Client(self.reactor, client)


class StreamPortTests(AdoptCase):
    """
    `adoptStreamPort` accepts from a socket that others hold too.
    """

    def serves(self, sock: socket.socket) -> None:
        """
        See that clients of a socket are served, by any factory.
        """
        assert self.client(sock).send(b"you").receive() == b"hello you"

    def test_over_every_family(self) -> None:
        """
        By a factory of Twisted's own kind, which hears who came and knows where.
        """
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = os.path.join(folder.name, "socket")
        table: list[tuple[int, Any, type[Any]]] = [
            (socket.AF_INET, ("127.0.0.1", 0), IPv4Address),
            (socket.AF_INET6, ("::1", 0), IPv6Address),
            (socket.AF_UNIX, path, UNIXAddress),
        ]
        for family, address, kind in table:
            sock = self.listener(family, address)
            port = self.adopt(sock)
            self.serves(sock)

            assert verifyObject(IListeningPort, port)
            assert kind is type(self.factory.came[-1])
            assert kind is type(port.getHost())
            (built,) = self.factory.built[-1:]
            assert built is not None
            assert isinstance(built.transport, ServerTransport)
            assert kind is type(built.transport.getHost())
            assert self.factory.came[-1] == built.transport.getPeer()
        assert UNIXAddress(path.encode()) == port.getHost()

    def test_a_port_that_ends_leaves_the_socket_alone(self) -> None:
        """
        The file of a Unix socket keeps its mode and its place, and the queue stays
        open to the others.
        """
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = os.path.join(folder.name, "socket")
        sock = self.listener(socket.AF_UNIX, path)
        os.chmod(path, 0o640)
        port = self.adopt(sock)
        runs = [self.factory.running]
        assert 0o640 == stat.S_IMODE(os.stat(path).st_mode)

        self.successResultOf(port.stopListening())
        runs.append(self.factory.running)
        assert [True, False] == runs
        assert 0o640 == stat.S_IMODE(os.stat(path).st_mode)
        client = self.client(sock)
        sock.accept()[0].close()
        assert b"" == client.receive()

    def test_a_port_may_be_ended_again(self) -> None:
        """
        Nothing more happens.
        """
        sock = self.listener(socket.AF_INET, ("127.0.0.1", 0))
        port = self.adopt(sock)
        for _ in range(2):
            self.successResultOf(port.stopListening())
        self.client(sock)
        self.reactor.settle()

        assert [] == self.factory.came

    def test_a_factory_may_decline(self) -> None:
        """
        The connection ends.
        """
        self.factory.declines = True
        sock = self.listener(socket.AF_INET, ("127.0.0.1", 0))
        self.adopt(sock)
        client = self.client(sock)

        assert b"" == client.receive()
        assert client.ended

    def test_other_families_are_not_supported(self) -> None:
        """
        As the interface says.
        """
        with self.assertRaises(UnsupportedAddressFamily):  # noqa: PT027  # trial runs it too
            self.reactor.adoptStreamPort(0, socket.AF_NETLINK, self.factory)


class NoSocketTests(AdoptCase):
    """
    What cannot be adopted leaves no descriptor behind.
    """

    def test_neither_a_file_nor_a_closed_descriptor_is_a_socket(self) -> None:
        """
        The kernel says what is wrong.
        """
        file = os.open("/dev/null", os.O_RDONLY)
        self.addCleanup(os.close, file)
        opened = Descriptors(os.devnull, "socket:")
        for descriptor in (file, -1):
            for adopt in (
                self.reactor.adoptStreamPort,
                self.reactor.adoptStreamConnection,
            ):
                with self.assertRaises(OSError):  # noqa: PT027  # trial runs it too
                    adopt(descriptor, socket.AF_INET, self.factory)

        assert 0 == opened.more


class StreamConnectionTests(AdoptCase):
    """
    `adoptStreamConnection` serves a connection that another process accepted.
    """

    def adopt_one(self, connection: socket.socket, factory: Any) -> None:
        """
        Serve a connection, and close what came.
        """
        with connection:
            self.reactor.adoptStreamConnection(
                connection.fileno(), connection.family, factory
            )

    def test_it_is_served(self) -> None:
        """
        With what has been sent already, by any factory, which hears who came.
        """
        sock = self.listener(socket.AF_INET, ("127.0.0.1", 0))
        client = self.client(sock)
        client.socket.send(b"you")
        self.adopt_one(sock.accept()[0], self.factory)

        assert b"hello you" == client.receive()
        address = IPv4Address("TCP", *client.socket.getsockname())
        assert [address] == self.factory.came
        assert not self.factory.running

    def test_a_factory_may_take_it_as_it_is(self) -> None:
        """
        Its own descriptor of it, for as long as it likes.
        """
        keeper = Keeper()
        near, far = socket.socketpair()
        self.addCleanup(far.close)
        self.adopt_one(near, keeper)
        ((connection, peer),) = keeper.kept
        connection.send(b"kept")
        connection.close()

        assert b"kept" == far.recv(10)
        assert "" == peer

    def test_a_factory_may_take_the_descriptor(self) -> None:
        """
        It is one of its own, of several; if the factory fails, it is closed.
        """
        factory = ServerFactory()
        taken: list[int] = []

        def take(descriptors: list[int]) -> int:
            taken.extend(descriptors)
            return len(descriptors)

        self.patch(factory, "take_descriptors", take)
        near, far = socket.socketpair()
        self.addCleanup(far.close)
        self.adopt_one(near, factory)
        os.write(taken[0], b"taken")
        os.close(taken[0])

        assert b"taken" == far.recv(10)
        assert b"" == far.recv(10)

        def wrong(descriptors: list[int]) -> int:
            raise ZeroDivisionError

        self.patch(factory, "take_descriptors", wrong)
        near, far = socket.socketpair()
        self.addCleanup(far.close)
        with self.assertRaises(ZeroDivisionError):  # noqa: PT027  # trial runs it too
            self.adopt_one(near, factory)
        assert b"" == far.recv(10)

    def test_what_a_peer_sent_before_it_was_gone_is_received(self) -> None:
        """
        Even if it reset the connection; nothing is left open.
        """
        sock = self.listener(socket.AF_INET, ("127.0.0.1", 0))
        client = self.client(sock)
        linger = b"\1\0\0\0\0\0\0\0"
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        client.socket.send(b"sent before")
        connection, _ = sock.accept()
        client.socket.close()
        opened = Descriptors("socket:")
        received: list[bytes] = []
        self.patch(Greeter, "dataReceived", lambda _, data: received.append(data))
        self.adopt_one(connection, self.factory)
        self.reactor.settle()

        assert [b"sent before"] == received
        assert -1 == opened.more


class Bell(FileDescriptor):
    """
    An event that rings on request, and calls the next function then.
    """

    def __init__(self, reactor: Any, *rings: Callable[[], object]) -> None:
        super().__init__(reactor)
        self._counter = os.eventfd(0, os.EFD_NONBLOCK)
        self._rings = list(rings)
        self.startReading()

    def fileno(self) -> int:
        return self._counter

    def ring(self) -> None:
        """
        Have the reactor call the next function.
        """
        os.eventfd_write(self._counter, 1)

    def doRead(self) -> None:
        os.eventfd_read(self._counter)
        self._rings.pop(0)()

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        os.close(self._counter)


def reactor_of(whose: str) -> Any:
    """
    A reactor that polls as kvd's do.
    """
    if whose == "kvd's":
        return WorkerReactor(lone_row())
    reactor = EPollReactor()
    install_adoption(reactor)
    return reactor


@pytest.fixture
def loop(request: pytest.FixtureRequest) -> Iterator[None]:
    """
    Reactors that are made meanwhile have one of the two loops.
    """
    with mock.patch("kvd.net.reactor.poll", request.param):
        yield


each_loop = pytest.mark.parametrize(
    "loop", [poll_in_python, poll], ids=["Python", "compiled"], indirect=True
)


def test_the_faster_loop_is_compiled() -> None:
    """
    Else it would not be tested here.
    """
    assert poll is not poll_in_python


@each_loop
def test_what_the_reactor_does_not_know_is_offered_whatever_happens_to_it(
    loop: None,
) -> None:
    """
    Nobody else would ever hear of its end, and each wait would report it again.
    """
    reactor = SteppedReactor()
    poller = poller_of(reactor)
    assert reactor._poller.fileno() == poller
    offered: list[int] = []

    def take(descriptor: int) -> bool:
        offered.append(descriptor)
        reactor._poller.unregister(descriptor)
        return True

    reactor.serve_readable = take
    near, far = socket.socketpair()
    with near:
        reactor._poller.register(near, select.EPOLLIN)
        far.close()
        reactor.iterate(0)
        reactor.iterate(0)
        assert [near.fileno()] == offered
    reactor.dispose()


@each_loop
def test_the_end_of_each_turn_is_told_before_the_reactor_waits(loop: None) -> None:
    """
    Once for all events that came together.
    """
    reactor = reactor_of("kvd's")
    told: list[str] = []
    reactor.before_wait = lambda: told.append("waits")
    bells = [Bell(reactor, lambda: told.append("event")) for _ in range(2)]
    for bell in bells:
        bell.ring()
    reactor.iterate(0)
    assert ["waits", "event", "event"] == told
    reactor.iterate(0)
    assert ["waits", "event", "event", "waits"] == told
    dismantle(reactor)
    reactor._poller.close()


@each_loop
def test_the_reactor_goes_on_if_the_end_of_a_turn_cannot_be_told(loop: None) -> None:
    """
    The error is its caller's, as any in a turn.
    """
    reactor = reactor_of("kvd's")
    reactor.before_wait = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        reactor.iterate(0)
    reactor.before_wait = None
    reactor.iterate(0)
    dismantle(reactor)
    reactor._poller.close()


def test_only_a_reactor_that_offers_events_has_a_poller() -> None:
    """
    Of kvd's own, and of those that somebody else made and kvd has changed.
    """
    theirs = EPollReactor()
    assert None is poller_of(theirs)
    install_adoption(theirs)
    assert theirs._poller.fileno() == poller_of(theirs)
    others = SelectReactor()
    install_adoption(others)
    assert None is poller_of(others)
    for reactor in (theirs, others):
        for reader in list(reactor._internalReaders):
            reactor.removeReader(reader)
            reader.connectionLost(None)
    theirs._poller.close()


@each_loop
def test_what_can_be_read_is_offered_first(loop: None) -> None:
    """
    What is taken comes to nobody else, and a mistake there is not lost.
    """
    reactor = SteppedReactor()
    offered: list[int] = []
    answers = [True, False]
    rung: list[str] = []

    def take(descriptor: int) -> bool:
        offered.append(descriptor)
        return answers.pop()

    bell = Bell(reactor, lambda: rung.append("bell"))
    reactor.serve_readable = take
    bell.ring()
    reactor.iterate(0)
    assert [bell.fileno()] == offered
    assert ["bell"] == rung

    bell.ring()
    reactor.iterate(0)
    assert 2 * [bell.fileno()] == offered
    assert ["bell"] == rung

    with pytest.raises(IndexError):
        reactor.iterate(0)
    reactor.dispose()


@each_loop
def test_each_wait_is_counted(loop: None) -> None:
    """
    Where a reactor counts.
    """
    reactor = SteppedReactor()
    told: list[str] = []
    reactor.counts = mock.Mock(
        waits=lambda: told.append("waits"), woke=lambda: told.append("woke")
    )
    reactor.iterate(0)
    reactor.iterate(0)

    assert 2 * ["waits", "woke"] == told
    reactor.dispose()


@each_loop
def test_a_signal_is_handled_while_nothing_else_comes(loop: None) -> None:
    """
    It ends the wait, also where nobody watches for signals.
    """
    reactor = reactor_of("kvd's")
    before = signal.signal(
        signal.SIGUSR1, lambda number, frame: reactor.callFromThread(reactor.stop)
    )
    limit = reactor.callLater(60, reactor.stop)
    reactor.callLater(0, signal.setitimer, signal.ITIMER_REAL, 0.01)
    old = signal.signal(
        signal.SIGALRM, lambda number, frame: signal.raise_signal(signal.SIGUSR1)
    )
    try:
        reactor.run(installSignalHandlers=False)
    finally:
        signal.signal(signal.SIGUSR1, before)
        signal.signal(signal.SIGALRM, old)
    assert reactor.seconds() < limit.getTime()
    limit.cancel()
    dismantle(reactor)
    reactor._poller.close()


def dismantle(reactor: Any) -> None:
    """
    Close what a reactor watches.
    """
    for selectable in reactor.removeAll():
        selectable.connectionLost(Failure(CONNECTION_DONE))
    for internal in list(reactor._internalReaders):
        internal.connectionLost(None)


@each_loop
@pytest.mark.parametrize("whose", ["kvd's", "Twisted's"])
def test_calls_come_between_events(whose: str, loop: None) -> None:
    """
    A reactor that polls again for events makes the calls that an event asked for: soon,
    sooner than meant before, or from a thread; and it stops.
    """
    reactor = reactor_of(whose)
    called: list[str] = []

    def call(name: str) -> None:
        called.append(name)
        bell.ring()

    def end() -> None:
        thread.join()
        reactor.stop()
        # What is waited for before it stops comes with another event.
        reactor.addSystemEventTrigger("before", "shutdown", lambda: ended)
        bell.ring()

    ended: Deferred[None] = Deferred()

    far_off = reactor.callLater(3600, call, "sooner")
    bell = Bell(
        reactor,
        lambda: bell.ring(),
        lambda: reactor.callLater(0.001, call, "soon"),
        lambda: far_off.reset(0.001),
        lambda: reactor.callFromThread(call, "at once"),
        lambda: thread.start(),
        lambda: end(),
        lambda: ended.callback(None),
    )
    thread = Thread(target=reactor.callFromThread, args=(call, "thread"))
    limit = reactor.callLater(60, reactor.stop)
    bell.ring()
    reactor.run(installSignalHandlers=False)

    assert ["soon", "sooner", "at once", "thread"] == called
    # Nor does it wait for the next call before it ends.
    assert reactor.seconds() < limit.getTime()
    limit.cancel()
    dismantle(reactor)
    reactor._poller.close()


@each_loop
@pytest.mark.parametrize("whose", ["kvd's", "Twisted's"])
def test_an_event_may_have_the_reactor_iterate(whose: str, loop: None) -> None:
    """
    That is one turn, although nothing is due; and what is asked for afterwards is
    called.
    """
    reactor = reactor_of(whose)
    limit = reactor.callLater(60, reactor.stop)

    def iterate() -> None:
        reactor.iterate(0.001)
        reactor.callLater(0, reactor.stop)

    bell = Bell(reactor, iterate)
    bell.ring()
    reactor.run(installSignalHandlers=False)

    assert reactor.seconds() < limit.getTime()
    limit.cancel()
    dismantle(reactor)
    reactor._poller.close()


@each_loop
def test_a_signal_that_comes_during_an_event_is_handled_before_the_next_wait(
    loop: None,
) -> None:
    """
    Also if the event was handled without Python, which handles signals between two of
    its instructions.
    """
    reactor = reactor_of("kvd's")
    reactor.counts = lone_row().turns
    limit = reactor.callLater(60, reactor.stop)
    kill = ctypes.CDLL(None).kill
    # Nothing is left to do then.
    kill.restype = (0).__eq__
    reactor.serve_readable = partial(kill, os.getpid(), int(signal.SIGUSR1))
    bell = Bell(reactor)
    # Else the event came again.
    reactor._poller.modify(bell.fileno(), select.EPOLLIN | select.EPOLLET)
    bell.ring()
    before = signal.signal(
        signal.SIGUSR1, lambda number, frame: reactor.callFromThread(reactor.stop)
    )
    try:
        reactor.run(installSignalHandlers=False)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert reactor.seconds() < limit.getTime()
    limit.cancel()
    dismantle(reactor)
    reactor._poller.close()


@each_loop
@pytest.mark.parametrize("whose", ["kvd's", "Twisted's"])
def test_a_call_may_be_far_off(whose: str, loop: None) -> None:
    """
    epoll waits no longer than 24 days; after an event a reactor waits on although its
    next call is due later than that.
    """
    reactor = reactor_of(whose)
    far_off = reactor.callLater(100 * 24 * 3600, lambda: None)
    bell = Bell(
        reactor,
        lambda: bell.ring(),
        lambda: reactor.stop(),
    )
    bell.ring()
    with capturedLogs() as logged:
        reactor.run(installSignalHandlers=False)
    failed = [
        event["log_failure"].getErrorMessage()
        for event in logged
        if "log_failure" in event
    ]

    far_off.cancel()
    dismantle(reactor)
    reactor._poller.close()
    assert [] == failed


def test_the_reactor_of_somebody_else_does_the_same() -> None:
    """
    Whichever was chosen, it adopts sockets as kvd's own reactor does.
    """
    reactor = SelectReactor()
    install_adoption(reactor)
    factory = Greeters()
    with (
        socket.create_server(("127.0.0.1", 0)) as sock,
        socket.create_connection(sock.getsockname()) as client,
    ):
        sock.setblocking(False)
        port = reactor.adoptStreamPort(sock.fileno(), sock.family, factory)
        assert isinstance(port, Port)
        assert IReactorSocket.providedBy(reactor)
        client.sendall(b"you")
        client.settimeout(0)
        reply = b""
        # On a busy machine the kernel may deliver the connection late.
        end = time.monotonic() + 30
        while len(reply) < len(b"hello you") and time.monotonic() < end:
            reactor.iterate(0.01)
            try:
                reply += client.recv(100)
            except BlockingIOError:
                continue
        port.stopListening()
    assert b"hello you" == reply
    dismantle(reactor)


@pytest.mark.timeout(20)
def test_a_single_turn_ends_without_an_event() -> None:
    """
    Whoever turns a reactor by hand goes on after the time that was asked for.
    """
    reactor = SteppedReactor()
    try:
        reactor.iterate(0.01)
    finally:
        reactor.dispose()
