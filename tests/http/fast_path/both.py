"""
Two workers side by side, with the fast path and without, whose clients do the same.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from unittest import mock

from twisted.internet.defer import Deferred, execute
from zope.interface import implementer

from kvd.access.counting import CountingMemory
from kvd.access.passwords import has_password
from kvd.access.rules import AccessRules
from kvd.http.dialects.choice import Dialects
from kvd.http.host_guard import HostGuard
from kvd.http.record import read_record
from kvd.interfaces import IStore, IStoreMaker
from kvd.ipc.row import WORDS_OF_REQUESTS, lone_row
from kvd.log.buffered import FLUSH_SECONDS
from kvd.settings import (
    Bounds,
    CorsChoice,
    DialectChoice,
    Durability,
    Limits,
    NearCache,
    Settings,
    StoreLocation,
    TCPAddress,
)
from kvd.store import listing
from kvd.store.admission import WAIT_SECONDS, Admission
from kvd.store.file import FileStore
from kvd.store.uploads import RESUMABLE_NAME
from kvd.store.usage import UNLIMITED, Counts, UsageMemory, create_usage
from kvd.workers.http_factory import HttpFactory
from kvd.workers.http_server import HttpServer
from kvd.workers.loading import LoadedPlugins
from tests import tls
from tests.http.counted import ByClass, counted
from tests.http.fast_path.cases import attribute_of
from tests.http.fast_path.watched import WatchedFastPath
from tests.patience import PATIENCE_SECONDS
from tests.stepped import Client, InlineWriter, SteppedReactor

P = ParamSpec("P")
T = TypeVar("T")

LIMITS = Limits(value_bytes=70_000, idle_seconds=100, head_seconds=50)

LAST_TAG = b'"' + b"last" * 8 + b'"'
"""
In a request: the entity tag that a reply of the same worker had last.
"""

_TAG = re.compile(rb'ETag: ("[^"]{32}")')


def unhurried(
    function: Callable[P, T], *args: P.args, **named: P.kwargs
) -> Deferred[T]:
    """
    Call a function at once. A slice of a listing ends with its values, and not, on a
    busy machine, with its time: of two workers, both have the same.
    """
    with mock.patch.object(listing, "SLICE_SECONDS", PATIENCE_SECONDS):
        return execute(function, *args, **named)


@implementer(IStoreMaker)
class SteppedStoreMaker:
    """
    Opens file stores that go by a reactor which steps.
    """

    def __init__(self, reactor: SteppedReactor, bounds: Bounds | None = None) -> None:
        self._reactor = reactor
        self._admission: Admission | None = None
        self.memory: UsageMemory | None = None
        if bounds is not None:
            limits = [quota.max_size or UNLIMITED for quota in bounds.quotas]
            self.memory = UsageMemory(create_usage(limits, 1))
            self._admission = Admission(self.memory, bounds, 0, reactor)

    def resolve(self, path: str) -> str:
        return path

    def prepare(self, path: str) -> None:
        pass

    def open_store(self, path: str, durability: Durability) -> IStore:
        return FileStore(
            path, durability, self._reactor, unhurried, admission=self._admission
        )

    def taken(self) -> list[Counts]:
        """
        What each quota has counted.
        """
        if self.memory is None:
            return []
        return [self.memory.counts(quota) for quota in range(self.memory.quotas)]

    def close(self) -> None:
        """
        Count no more.
        """
        if self.memory is not None:
            os.close(self.memory.descriptor)


@dataclass(frozen=True)
class Outcome:
    """
    What is the same on both ways.
    """

    replies: list[bytes]
    """Of each connection, without what differs from one moment to the next."""
    ended: list[bool]
    files: dict[str, tuple[bytes, bytes]]
    """What is stored, without its ids."""
    entries: list[str]
    """Of the access log, without times."""
    connections: list[tuple[int, int]]
    """Of the record: bytes and requests of each."""
    counts: list[int]
    requests: ByClass
    taken: list[Counts]


class LoopbackGuard(HostGuard):
    """
    Takes all connections for ones to a loopback address.
    """

    def _guards(self, local: Any) -> bool:
        return True


class HttpServerAtOnce(HttpServer):
    """
    Writes its logs without a thread.
    """

    def _thread_for(self, path: str) -> Callable[[Callable[[], None]], Deferred[None]]:
        return execute


class Worker:
    """
    A worker over a folder of its own, and its clients.
    """

    def __init__(
        self,
        *,
        fast_path: bool,
        durability: Durability,
        guarded: bool = False,
        reports: bool = True,
        accepts: bool = False,
        secure: bool = False,
        rules: AccessRules | None = None,
        cors: tuple[CorsChoice, ...] = (),
        limits: Limits = LIMITS,
        counting: CountingMemory | None = None,
        number: int = 0,
        bounds: Bounds | None = None,
        trusted: tuple[str, ...] = (),
        behind_proxy: bool = False,
        fresh_seconds: float | None = None,
        dialects: tuple[DialectChoice, ...] = (),
    ) -> None:
        """
        Args:
            fresh_seconds: Those of a near cache in front of the folder; None: there is
                none.
        """
        self.secure = secure
        self._behind_proxy = behind_proxy
        self._waits_for_room = bounds is not None and bounds.quotas[0].evicts
        self.folder = tempfile.mkdtemp(prefix="kvd-test-")
        self.root = os.path.join(self.folder, "values")
        self.cache = os.path.join(self.folder, "cache")
        os.mkdir(self.root)
        os.mkdir(self.cache)
        self._reactor = self.make_reactor()
        self._row = lone_row()
        near = None
        if fresh_seconds is not None:
            near = NearCache(StoreLocation("file", self.cache), 1 << 30, fresh_seconds)
        settings = Settings(
            near=near,
            store=StoreLocation("file", self.root),
            durability=durability,
            access_log=os.path.join(self.folder, "log") if reports else None,
            # All that is known of a request.
            access_log_format="json",
            record=os.path.join(self.folder, "record") if reports else None,
            limits=limits,
            fast_path=fast_path,
            cors=cors,
            trusted_proxies=trusted,
            # Else no request that names one takes the fast path.
            allowed_hosts=("kvd",),
        )
        self._maker = self.make_maker(bounds)
        memory = counting or CountingMemory()
        parts = LoadedPlugins(
            self._maker,
            Dialects(dialects),
            rules,
            memory,
            has_password,
            near=SteppedStoreMaker(self._reactor),
        )
        self._server = HttpServerAtOnce(
            settings, number, self._reactor, self._row, parts
        )
        with (
            mock.patch("kvd.workers.outputs.Writer", InlineWriter),
            mock.patch("kvd.workers.http_server.in_threads_of", return_value=execute),
            # A near cache goes by its clock.
            mock.patch("twisted.internet.reactor", self._reactor),
        ):
            self._server.start()
        self.watched: WatchedFastPath | None = None
        process = self._server.process
        if guarded:
            process.guard = LoopbackGuard([TCPAddress("127.0.0.1", 8080)], ["kvd"])
        if process.fast_path is not None:
            self.watched = process.fast_path = WatchedFastPath(process.fast_path)
        self._reactor.serve_readable = self._server.serve_idle()
        self._listener = self._listen() if accepts and not secure else None
        self._clients: list[Client] = []
        self._replies: list[bytes] = []
        self._last_tag = LAST_TAG

    def make_reactor(self) -> SteppedReactor:
        """
        What it runs in.
        """
        return SteppedReactor()

    def make_maker(self, bounds: Bounds | None) -> SteppedStoreMaker:
        """
        What opens its store.
        """
        return SteppedStoreMaker(self._reactor, bounds)

    def _listen(self) -> socket.socket:
        """
        A connection that is accepted here may be held (`FastPath.hold`).
        """
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(os.path.join(self.folder, "socket"))
        listener.listen()
        listener.setblocking(False)
        self._server.listen("0/0", listener)
        return listener

    def connect(self, request: bytes, room: int | None = None) -> None:
        """
        One more client.

        Args:
            request: What it has said when it is accepted.
            room: How much may be sent ahead to it; None: much.
        """
        if self._listener is not None and room is None:
            far = socket.socket(socket.AF_UNIX)
            far.connect(self._listener.getsockname())
            far.sendall(self._with_tag(request))
            self._clients.append(Client(self._reactor, far))
            self._reactor.settle()
            self._replies.append(b"")
            self._receive(len(self._clients) - 1)
            return
        near, far = socket.socketpair()
        if room is not None:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
        if self.secure:
            self._connect_over_tls(near, far, request)
        else:
            far.sendall(self._with_tag(request))
            self._clients.append(Client(self._reactor, far))
            self.adopt(near)
        self._replies.append(b"")
        self._receive(len(self._clients) - 1)

    def adopt(self, near: socket.socket) -> None:
        """
        Serve the other end of a client.
        """
        context = tls.server_context() if self.secure else None
        factory = self._server.factory
        if self.secure or self._behind_proxy:
            factory = HttpFactory(
                self._server, context, behind_proxy=self._behind_proxy
            )
        with near:
            self._reactor.adoptStreamConnection(near.fileno(), near.family, factory)

    def _connect_over_tls(
        self, near: socket.socket, far: socket.socket, request: bytes
    ) -> None:
        self.adopt(near)
        far.setblocking(False)
        client = tls.client_context().wrap_socket(
            far, do_handshake_on_connect=False, server_hostname="localhost"
        )
        tls.shake_hands(self._reactor, client)
        self._clients.append(Client(self._reactor, client))
        self._clients[-1].send(self._with_tag(request))

    def send(self, number: int, data: bytes, *, reads: bool = True) -> None:
        """
        One of the last clients sends something; if it has ended, another does.
        """
        number = self._one_of_the_last(number)
        if self._clients[number].ended:
            self.connect(b"")
            number = len(self._clients) - 1
        client = self._clients[number]
        try:
            client.send(self._with_tag(data), partial(self._be_stuck, number))
        except (BrokenPipeError, ConnectionResetError):
            client.ended = True
        if reads:
            self._receive(number)

    def _be_stuck(self, number: int) -> None:
        """
        The server takes no more from a client before it reads, or before there is room.
        """
        self._wait_for_room()
        self._receive(number)

    def _wait_for_room(self) -> None:
        if self._waits_for_room:
            self._reactor.advance(WAIT_SECONDS)

    def _one_of_the_last(self, number: int) -> int:
        return len(self._clients) - 1 - number % min(3, len(self._clients))

    def _receive(self, number: int) -> None:
        client = self._clients[number]
        if not client.ended:
            received = client.receive()
            self._replies[number] += received
            self._last_tag = [self._last_tag, *_TAG.findall(received)][-1]

    def _with_tag(self, request: bytes) -> bytes:
        return request.replace(LAST_TAG, self._last_tag)

    def half_close(self, number: int) -> None:
        """
        A client sends no more.
        """
        number = self._one_of_the_last(number)
        if not self._clients[number].ended:
            self._clients[number].half_close()
            self._receive(number)

    def leave(self, number: int) -> None:
        """
        A client is gone.
        """
        client = self._clients[self._one_of_the_last(number)]
        client.ended = True
        client.close()

    def wait(self, seconds: float) -> None:
        """
        Time passes.
        """
        self._reactor.advance(seconds)

    def path(self, name: str) -> str:
        """
        Of something in the store.
        """
        return os.path.join(self.root, name)

    def place(self, key: str, value: bytes) -> None:
        """
        Another program stores a value.
        """
        path = Path(self.path(key))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value)

    def entries(self) -> list[dict[str, Any]]:
        """
        The access log so far.
        """
        self._reactor.advance(FLUSH_SECONDS)
        return [json.loads(line) for line in self._lines("log")]

    def replies(self) -> list[bytes]:
        """
        What each client has received so far, as in an outcome.
        """
        return [_without_moments(reply) for reply in self._replies]

    def values(self) -> dict[str, bytes]:
        """
        What is stored.
        """
        return {name: body for name, (body, _) in self._stored().items()}

    def counts(self) -> tuple[int, int, list[Counts]]:
        """
        How many requests have begun and are done, as the scoreboard has it now; and
        what the quotas have counted.
        """
        words = self._row.words
        begun, done = WORDS_OF_REQUESTS.begun, WORDS_OF_REQUESTS.done
        return words[begun], words[done], self._maker.taken()

    def end(self) -> Outcome:
        """
        Drain, and say what was.
        """
        for number in range(len(self._clients)):
            self._receive(number)
        drained: list[Any] = []
        # So long that uploads know before whether there is room: what two timers of one
        # moment do is in no order.
        self._server.drain(2 * WAIT_SECONDS).addCallback(drained.append)
        self._reactor.settle()
        for _ in range(2):
            self._wait_for_room()
        for number in range(len(self._clients)):
            self._receive(number)
        ended = [client.ended for client in self._clients]
        for client in self._clients:
            client.socket.close()
        self._reactor.settle()
        assert drained
        self._server.stop()
        if self._listener is not None:
            self._listener.close()
        self.dispose()
        words = self._row.words.tolist()
        _, _, begun, done, bytes_in, bytes_out, uploads = WORDS_OF_REQUESTS
        if self.secure:
            # What is thrown away behind the last request is not decrypted, and so it
            # is counted otherwise.
            bytes_in = bytes_out
        return Outcome(
            self.replies(),
            ended,
            self._files(),
            # Connections that time out in one moment are in no order.
            sorted(_without_times(line) for line in self._lines("log")),
            self._record(),
            [
                *(words[word] for word in (0, 1, begun, done, bytes_in, bytes_out)),
                words[uploads],
            ],
            counted(words),
            self._maker.taken(),
        )

    def dispose(self) -> None:
        """
        End its reactor.
        """
        self._reactor.dispose()

    def clean_up(self) -> None:
        """
        Leave nothing.
        """
        self._maker.close()
        shutil.rmtree(self.folder)

    def _record(self) -> list[tuple[int, int]]:
        path = os.path.join(self.folder, "record")
        if not os.path.exists(path):
            return []
        return sorted(
            (0 if self.secure else one.bytes, one.requests) for one in read_record(path)
        )

    def _lines(self, name: str) -> list[str]:
        path = Path(self.folder, name)
        return path.read_text().splitlines() if path.exists() else []

    def _files(self) -> dict[str, tuple[bytes, bytes]]:
        hidden = set(os.listdir(os.path.join(self.root, ".kvd")))
        assert {"attributes", "lock"} == hidden - {RESUMABLE_NAME}, hidden
        return self._stored()

    def _stored(self) -> dict[str, tuple[bytes, bytes]]:
        files: dict[str, tuple[bytes, bytes]] = {}
        for folder, folders, names in os.walk(self.root):
            for name in (*folders, *names):
                path = os.path.join(folder, name)
                if path.endswith("/.kvd") or "/.kvd/" in path:
                    continue
                body = b"no file"
                if os.path.isfile(path) and not os.path.islink(path):
                    # A request with a tag may have become a part of a body.
                    body = _without_moments(Path(path).read_bytes())
                said = _without_id(attribute_of(path) or b"")
                files[os.path.relpath(path, self.root)] = body, said
        return files


def _without_moments(said: bytes) -> bytes:
    """
    A time becomes the word for it; so do an entity tag and what is left of one where a
    body or a sentence has cut it: the digits beside a quote, whatever they are.
    """
    said = re.sub(rb"[A-Z][a-z]{2}, \d\d \w{3} \d{4} [\d:]{8} GMT", b"(date)", said)
    said = re.sub(rb"\d{4}-\d\d-\d\dT[\d:.]+Z", b"(date)", said)
    # In one of another's file are three numbers, not always of the same length.
    said = re.sub(rb'"[0-9a-f-]+', b'"(id)', said)
    return re.sub(rb'(?<![0-9a-f-])[0-9a-f-]+(?=\\*")', b"(id)", said)


def _without_id(attribute: bytes) -> bytes:
    said = re.sub(rb"^([12]) [0-9a-f]{32} ", rb"\1 (id) ", attribute)
    return re.sub(rb"^(2 \(id\) \d+) \d+\.\d{6}\n", rb"\1 (date)\n", said)


def _without_times(line: str) -> str:
    entry = json.loads(line)
    del entry["time"], entry["seconds"]
    return json.dumps(entry)
