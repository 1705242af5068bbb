"""
Tests for `kvd.http.fast_path`: many requests leave nothing behind.
"""

from __future__ import annotations

import gc
import itertools
import os
import select
import socket
import tracemalloc
import weakref
from collections.abc import Callable
from functools import partial
from itertools import count

import pytest
from twisted.internet.defer import execute

from kvd.http.commits import Commits
from kvd.http.fast_path import NOTHING, QUEUED, REMAINS, SERVED, Joined
from kvd.http.wire.heads import MEMO_HEADS
from kvd.ipc.messages import Batch, send
from kvd.ipc.row import BATCH_WORD
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.store.file import FileStore
from kvd.store.folders import open_folder, prune
from tests.descriptors import Descriptors
from tests.http.fast_path.cases import FastPathCase, get, head, put

REQUESTS = 1024
"""
As often as that, what is remembered up to a number is forgotten a whole number of
times.
"""

SYNC_SECONDS = 30
"""
No disk takes as long for a file.
"""

SLACK_BYTES = 20_000
"""
Less than a short object for each request.
"""


class LeakCase(FastPathCase):
    """
    Does things often.
    """

    def assert_steady(self, act: Callable[[int], object]) -> None:
        """
        Doing something often holds no more descriptors and memory than doing it
        seldom.
        """
        self._descriptors = Descriptors(self.path, "socket:")
        tracemalloc.start()
        try:
            before, after = self._held_after(act), self._held_after(act)
        finally:
            tracemalloc.stop()
        assert before[0] == after[0]
        assert after[1] < before[1] + SLACK_BYTES

    def _held_after(self, act: Callable[[int], object]) -> tuple[int, int]:
        for number in range(REQUESTS):
            act(number)
        gc.collect()
        return self._descriptors.more, tracemalloc.get_traced_memory()[0]


@pytest.mark.untraced
class LeakTests(LeakCase):
    """
    Nothing grows with the number of requests.
    """

    def test_gets(self) -> None:
        """
        Of a value in memory, however it changes; of many values, and of none.
        """
        body = bytes(1000)
        self.keep("a/k", body)
        self.assert_steady(lambda _: self.served(get("a/k")))
        for key in range(REQUESTS):
            self.keep(f"b/{key}", body)
        for _ in range(2):
            # Then all that will be kept in memory is.
            self._held_after(lambda n: self.served(get(f"b/{n}")))
        for request in (get, head):
            self.assert_steady(lambda n: self.served(request(f"b/{n}")))  # noqa: B023
            self.assert_steady(lambda _: self.served(request("none")))  # noqa: B023

        def changing(_: int) -> None:
            self.keep("a/k", body)
            self.served(get("a/k"))

        self.assert_steady(changing)

    def test_puts(self) -> None:
        """
        Into a folder, or not.
        """
        self.publish(self.store, Key(b"a/b/first"), b"v")
        for key in ("k", "a/b/k"):
            self.assert_steady(partial(self.put_at, key))

    def put_at(self, key: str, _: int) -> None:
        """
        Store something.
        """
        self.served(put(key, bytes(1000)))

    def test_what_is_left_alone(self) -> None:
        """
        For whatever reason.
        """
        self.place("others")
        os.mkdir(os.path.join(self.path, "folder"))
        whole = put("k", b"value")
        requests = [
            *(whole[:-1], whole + b"x", get("k", b"Range: bytes=9999-\r\n")),
            *(get("others"), get("folder"), get("none:")),
            *(put("others", bytes(1000)), put("folder", b"v"), put("none/k", b"v")),
            *(b"garbage\r\n\r\n", get("%6b"), get("k", b"X: " + bytes(8) + b"\r\n")),
        ]
        self.assert_steady(lambda n: self.serve(requests[n % len(requests)]))

    def test_bodies_in_pieces(self) -> None:
        """
        Whether the rest comes, or somebody takes the upload, or nobody does.
        """
        whole = put("a/k", bytes(100_000))

        def begin(number: int) -> None:
            near, far = socket.socketpair()
            far.sendall(whole[:-1])
            assert NOTHING == self.fast_path.serve(near.fileno())
            joined = self.fast_path.join(near.fileno()) if number % 3 else None
            if number % 3 == 1:
                far.sendall(b"x")
                assert SERVED == self.fast_path.serve(near.fileno())
            elif joined is not None:
                upload = joined.take_upload()
                assert upload is not None
                os.close(upload.descriptor)
                self.store.fast_path_state.uploads.remove(upload.name)
            if joined is not None:
                joined.leave()
            near.close()
            far.close()

        self.assert_steady(begin)

    def test_forms(self) -> None:
        """
        Of which there are more and more, up to what is remembered.
        """
        self.place("none")
        numbers = count()

        # Below a file: they are left alone late.
        def forms(_: int) -> None:
            for _ in range(MEMO_HEADS // REQUESTS):
                fields = b"User-Agent: %d\r\n" % next(numbers)
                self.serve(put("none/k", b"v", fields))

        self.assert_steady(forms)

    def test_folders_that_are_made(self) -> None:
        """
        And pruned.
        """
        root = self.folder()

        def make(_: int) -> None:
            self.served(put("a/b/k", b"v"))
            self.result(self.store.remove(Key(b"a/b/k"), UNCONDITIONAL))
            os.close(open_folder(root, [b"c", b"d"], make=True))
            prune(root, [b"c", b"d"])

        self.assert_steady(make)

    def test_rests_of_replies(self) -> None:
        """
        Whether somebody takes them or not.
        """
        self.keep("k", bytes(1000))

        def to_nobody(number: int) -> None:
            near, far = socket.socketpair()
            far.sendall(get("k"))
            far.close()
            assert SERVED | QUEUED == self.fast_path.serve(near.fileno())
            if number % 2:
                self.fast_path.take_unsent()
            near.close()

        self.assert_steady(to_nobody)

    def test_files_that_remain(self) -> None:
        """
        Whether somebody takes them or not.
        """
        self.keep("k", bytes(100_000))

        def to_nobody(number: int) -> None:
            near, far = socket.socketpair()
            far.sendall(get("k"))
            far.close()
            assert SERVED | REMAINS == self.fast_path.serve(near.fileno())
            if number % 2:
                os.close(self.fast_path.take_remainder().descriptor)
            near.close()

        self.assert_steady(to_nobody)

    def test_metadata(self) -> None:
        """
        Of which there is more and more, up to what is remembered.
        """
        numbers = count()

        def other(_: int) -> None:
            fields = b"Content-Type: %d\r\n" % next(numbers)
            self.served(put("k", b"v", fields))
            self.served(get("k"))

        self.assert_steady(other)

    def test_connections_that_stay(self) -> None:
        """
        Whether their requests are served at once, or left to whoever asks or to nobody.
        """
        self.keep("k", b"v")
        unusual = get("%6b")

        def stay(number: int) -> None:
            near, far = socket.socketpair()
            joined = self.fast_path.join(near.fileno())
            far.sendall(get("k"))
            assert self.fast_path.serve_idle(near.fileno())
            far.sendall(unusual)
            assert not self.fast_path.serve_idle(near.fileno())
            if number % 2:
                assert unusual == self.fast_path.serve(near.fileno())
            joined.leave()
            near.close()
            far.close()

        self.assert_steady(stay)

    def test_connections_that_are_handed_over(self) -> None:
        """
        Whether they are served, adopted, or left with the whole batch.
        """
        self.keep("k", b"v")
        flags = os.EFD_SEMAPHORE | os.EFD_NONBLOCK
        channel, supervisor = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        credits = os.eventfd(0, flags)
        for close in (channel.close, supervisor.close, partial(os.close, credits)):
            self.addCleanup(close)

        def leave(data: bytes, descriptors: list[int], flags: int) -> None:
            for descriptor in descriptors:
                os.close(descriptor)
            assert 1 == os.eventfd_read(credits)

        self.fast_path.take_batches(
            channel.fileno(),
            credits,
            BATCH_WORD,
            b"\1",
            lambda one, _: os.close(one),
            leave,
        )

        def hand_over(number: int) -> None:
            batch = [socket.socketpair() for _ in range(2)]
            descriptors = [near.fileno() for near, _ in batch]
            batch[0][1].sendall(get("k", b"Connection: close\r\n"))
            os.eventfd_write(credits, 1)
            asks = number % 2 == 1
            send(supervisor, Batch(number, 2, 0, asks), descriptors)
            assert self.fast_path.serve_idle(channel.fileno())
            for connection in itertools.chain(*batch):
                connection.close()

        self.assert_steady(hand_over)

    def test_what_is_reported(self) -> None:
        """
        Of each request.
        """
        self.keep("k", b"v")
        self.report()

        def report(number: int) -> None:
            self.served(get("k"))
            if number % 3 == 0:
                assert self.reported()
            elif number % 3 == 1:
                self.report()

        self.assert_steady(report)

    def test_all_of_it_ends(self) -> None:
        """
        A store that nobody has any more takes its fast path with it, and what that
        holds open.
        """
        files = Descriptors(self.path)
        store = FileStore(self.path, "process", self.clock, execute)
        process = self.make_process(store)
        self.fast_path = self.make_fast_path(process)
        self.publish(store, Key(b"a/first"), b"v")
        self.served(put("a/k", b"v"))
        store.close()
        ended = weakref.ref(store)
        del store, process
        self.fast_path = None  # type: ignore[assignment]
        gc.collect()

        assert None is ended()
        assert 0 == files.more


class Waiting:
    """
    Waits for the reply to a PUT at durability ``disk``, as long as it does not learn
    that the value takes the ordinary way.
    """

    def __init__(self, joined: Joined, commits: Commits) -> None:
        self._joined = joined
        self._commits = commits
        self.knows = False
        joined.connection = self

    def learn_of_commit(self) -> None:
        """
        See `HttpConnection`.
        """
        assert self._joined.take_commit(self) is not None
        self._commits.begun()
        self.knows = True

    def assert_served(self, client: socket.socket) -> None:
        """
        The value is stored, or takes the ordinary way. Where the second has changed
        since its date was set, it is synced twice.
        """
        waits: list[socket.socket | Commits] = [client, self._commits]
        while not self.knows:
            ready, _, _ = select.select(waits, [], [], SYNC_SECONDS)
            assert ready
            if client in ready:
                assert client.recv(4096).startswith(b"HTTP/1.1 20")
                return
            self._commits.doRead()

    def answered(self) -> bool:
        """
        See `HttpConnection`: it goes no further.
        """
        return False


@pytest.mark.untraced
class CommitLeakTests(LeakCase):
    """
    Nor does it at durability ``disk``.
    """

    durability = "disk"

    def test_commits(self) -> None:
        """
        Whether a connection waits for the reply, leaves meanwhile, or learns of it, or
        nobody cares.
        """
        commits = self.process.commits
        assert isinstance(commits, Commits)

        def commit(number: int) -> None:
            near, far = socket.socketpair()
            joined = self.fast_path.join(near.fileno())
            case = number % 4
            waiting = Waiting(joined, commits) if case else None
            far.sendall(put(f"{number % 8}/k", b"value"))
            assert bool(case) == self.fast_path.serve_idle(near.fileno())
            if case == 1:
                joined.leave()
            elif case == 2:
                assert joined.take_commit(None) is not None
            commits.doRead()
            if case == 3:
                assert waiting is not None
                waiting.assert_served(far)
            joined.leave()
            near.close()
            far.close()

        self.assert_steady(commit)

    def test_bodies_in_pieces(self) -> None:
        """
        Of which some are taken.
        """
        commits = self.process.commits
        assert isinstance(commits, Commits)
        whole = put("a/k", bytes(100_000))

        def commit(number: int) -> None:
            near, far = socket.socketpair()
            joined = self.fast_path.join(near.fileno())
            waiting = Waiting(joined, commits)
            far.sendall(whole[:-1])
            assert self.fast_path.serve_idle(near.fileno())
            if number % 2:
                upload = joined.take_upload()
                assert upload is not None
                os.close(upload.descriptor)
                self.store.fast_path_state.uploads.remove(upload.name)
            else:
                far.sendall(b"x")
                assert self.fast_path.serve_idle(near.fileno())
                commits.doRead()
                waiting.assert_served(far)
            joined.leave()
            near.close()
            far.close()

        self.assert_steady(commit)
