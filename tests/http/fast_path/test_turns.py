"""
Tests for `kvd.http.fast_path`: what the requests of one turn of the reactor share
(``kvd/native/turn.c``).
"""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

from kvd.http.fast_path import SERVED
from kvd.ipc.row import AWAKE
from kvd.store.file import FileStore
from tests.http.fast_path.cases import FastPathCase, put
from tests.integration.small_disk import tmpfs
from tests.store.bounded import BoundedCase

MIB = 1 << 20


class TurnCase(FastPathCase):
    """
    A client whose connection stays, and a reactor whose turns are told.
    """

    def setUp(self) -> None:
        super().setUp()
        self.turn = 0
        self.joined = self.fast_path.join(self.near.fileno())

    def next_turn(self) -> None:
        """
        The reactor has waited, and wakes.
        """
        self.turn += 1
        self.process.row.words[AWAKE] = self.turn

    def is_served(self, request: bytes) -> bool:
        """
        Whether the fast path serves a request that has come with an event of the turn.
        """
        self.far.sendall(request)
        done = self.fast_path.serve_idle(self.near.fileno())
        if done:
            assert self.reply().startswith(b"HTTP/1.1 20")
        else:
            assert request == self.fast_path.serve(self.near.fileno())
        return done

    def at(self, name: str) -> str:
        """
        The path of something in the store.
        """
        return os.path.join(self.path, name)

    def replace_folder(self) -> None:
        """
        Another program moves a folder away, and makes a new one.
        """
        os.rename(self.at("a"), self.at("moved"))
        os.mkdir(self.at("a"))


class FolderTests(TurnCase):
    """
    The folder of a key.
    """

    def setUp(self) -> None:
        super().setUp()
        os.mkdir(self.at("a"))
        self.next_turn()
        assert self.is_served(put("a/first", b"v"))

    def test_look_is_shared_in_a_turn(self) -> None:
        """
        A request that had come when the turn began may be done before another program
        replaces the folder, or behind it.
        """
        self.replace_folder()
        assert self.is_served(put("a/k", b"v"))
        assert ["a", "moved/first", "moved/k"] == self.found()

    def test_next_turn_looks_again(self) -> None:
        """
        Its requests may have begun behind the change.
        """
        self.replace_folder()
        self.next_turn()
        assert self.is_served(put("a/k", b"v"))
        assert ["a/k", "moved/first"] == self.found()

    def test_request_without_an_event_looks_itself(self) -> None:
        """
        It may have begun behind the change, too: on a new connection, or one that
        Python serves.
        """
        self.replace_folder()
        near, far = self.pair()
        far.sendall(put("a/new", b"v", b"Connection: close\r\n"))
        assert 1 == self.fast_path.serve_new([near.detach()])
        assert SERVED == self.serve(put("a/k", b"v"))
        assert ["a/k", "a/new", "moved/first"] == self.found()

    def test_what_was_seen_is_forgotten_behind_a_request(self) -> None:
        """
        No later request takes the turn of an earlier one for its own, where nobody
        counts turns.
        """
        self.process.row.words[AWAKE] = 0
        assert self.is_served(put("a/second", b"v"))
        self.replace_folder()
        assert self.is_served(put("a/k", b"v"))
        assert ["a/k", "moved/first", "moved/second"] == self.found()


class ConferringTests(TurnCase):
    """
    What a folder confers.
    """

    def test_next_turn_looks_again(self) -> None:
        """
        A folder that confers its group has it conferred, from the next turn on.
        """
        os.mkdir(self.at("a"))
        for key, folder in (("k", ""), ("a/k", "a")):
            self.next_turn()
            assert self.is_served(put(key, b"v"))
            os.chmod(self.at(folder), 0o2755)
            assert self.is_served(put(key, b"v"))
            self.next_turn()
            assert not self.is_served(put(key, b"v"))
            os.chmod(self.at(folder), 0o755)


class RoomTests(TurnCase, BoundedCase):
    """
    Room on a disk that is nearly full.
    """

    min_free = 8 * MIB

    def setUp(self) -> None:
        self.disk = Path(tempfile.mkdtemp(prefix="kvd-test-"))
        self.addCleanup(os.rmdir, self.disk)
        mounted = ExitStack()
        self.addCleanup(mounted.close)
        mounted.enter_context(tmpfs(self.disk, "size=16m"))
        super().setUp()

    def open_store(self) -> FileStore:  # type: ignore[override]
        self.path = str(self.disk)
        return self.open_bounded()

    def is_stored(self, key: str, body_bytes: int) -> bool:
        """
        Whether a value is stored.
        """
        return self.is_served(put(key, bytes(body_bytes)))

    def test_room_that_another_takes_in_the_turn_is_missed(self) -> None:
        """
        Near the limit, each request looks itself.
        """
        self.next_turn()
        assert self.is_stored("k", 1000)
        with open(self.disk / "other", "xb") as file:
            os.posix_fallocate(file.fileno(), 0, 8 * MIB)
        assert not self.is_stored("k", 1000)

    def test_limit_is_not_passed_in_a_turn(self) -> None:
        """
        By what the requests of the turn write themselves.
        """
        self.next_turn()
        numbers = range(1000)
        stored = next(n for n in numbers if not self.is_stored(f"{n}", 100_000))
        assert 8 * MIB // 110_000 < stored <= 8 * MIB // 100_000
