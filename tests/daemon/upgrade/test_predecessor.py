"""
Tests for `kvd.daemon.upgrade.predecessor`: the messages, over a pair of sockets.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import replace
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kvd.daemon.opening import Sockets
from kvd.daemon.upgrade.manifest import make_manifest
from kvd.daemon.upgrade.predecessor import Predecessor, take_predecessor
from kvd.daemon.upgrade.successor import LOOK_SECONDS
from kvd.errors import BadSetting
from kvd.settings import Settings, StoreLocation, TCPAddress
from kvd.store.totals import Total
from kvd.system.inherited import VARIABLE

SETTINGS = Settings(procs=2, listen=(TCPAddress("127.0.0.1", 80),))
MANIFEST = make_manifest(SETTINGS, Sockets([], None, None), None, None)


class PredecessorTests(SynchronousTestCase):
    """
    The new daemon does what the old one says, and replaces it if it dies.
    """

    def setUp(self) -> None:
        self.old, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(self.old.close)
        self.addCleanup(far.close)
        self.old.setblocking(False)
        self.clock = Clock()
        self.predecessor = Predecessor(far, MANIFEST)
        self.ready = False
        self.failure = ""
        self.is_ending = False

    def begin(self) -> Deferred[bool]:
        """
        Wait until it may serve.
        """
        return Deferred.fromCoroutine(
            self.predecessor.allowed(
                lambda: self.ready,
                lambda: self.failure,
                self.clock,
            )
        )

    def told(self) -> list[str]:
        """
        What the old daemon was told, each by its first word.
        """
        words = []
        while True:
            try:
                words.append(next(iter(json.loads(self.old.recv(4096)))))
            except BlockingIOError:
                return words

    def tell(self, message: dict[str, Any]) -> None:
        """
        The old daemon says something.
        """
        self.old.send(json.dumps(message).encode())
        self.clock.advance(LOOK_SECONDS)

    def serve(self) -> Deferred[bool]:
        """
        Wait until it is the only one that serves.
        """
        return Deferred.fromCoroutine(
            self.predecessor.accepts_no_more(lambda: self.is_ending, self.clock)
        )

    def await_end(self, heeded: list[int]) -> Deferred[None]:
        """
        Wait until the old daemon has ended.
        """
        return Deferred.fromCoroutine(self.predecessor.ended(heeded.append, self.clock))

    def test_it_waits_for_permission(self) -> None:
        """
        It says once that it is ready, and is told what the values take.
        """
        allowed = self.begin()
        assert ["started"] == self.told()
        self.ready = True
        self.clock.pump([LOOK_SECONDS] * 3)
        assert ["ready"] == self.told()
        self.assertNoResult(allowed)
        self.tell({"take": {"totals": [[8, 2]]}})
        assert self.successResultOf(allowed)
        assert [Total(8, 2)] == self.predecessor.totals

    def test_a_failure_is_told(self) -> None:
        """
        As of a store that workers cannot open.
        """
        allowed = self.begin()
        self.failure = "worker 0: no such folder"
        self.clock.advance(LOOK_SECONDS)
        assert ["started", "error"] == self.told()
        assert not self.successResultOf(allowed)

    def test_it_is_stopped(self) -> None:
        """
        Ready or not.
        """
        allowed = self.begin()
        self.tell({"stop": True})
        assert not self.successResultOf(allowed)

    def test_it_replaces_one_that_died(self) -> None:
        """
        As soon as it is ready; a failure then is one as at any start.
        """
        allowed = self.begin()
        self.old.close()
        self.failure = "worker 0: no room"
        self.clock.advance(LOOK_SECONDS)
        self.assertNoResult(allowed)
        self.ready = True
        self.clock.advance(LOOK_SECONDS)
        assert self.successResultOf(allowed)
        more = self.serve()
        assert self.successResultOf(more)

    def test_it_is_the_only_one_when_the_old_one_says_so(self) -> None:
        """
        And knows when that has ended.
        """
        only = self.serve()
        assert ["serves"] == self.told()
        self.clock.advance(LOOK_SECONDS)
        self.assertNoResult(only)
        self.tell({"main": True})
        assert self.successResultOf(only)
        ended = self.await_end([])
        self.clock.advance(LOOK_SECONDS)
        self.assertNoResult(ended)
        self.old.close()
        self.clock.advance(LOOK_SECONDS)
        self.successResultOf(ended)

    def test_signals_are_heeded_once_it_serves(self) -> None:
        """
        Those that the old daemon passes on, whenever it got them, to its last breath;
        and those that came here too early.
        """
        allowed = self.begin()
        self.tell({"signal": 1})
        self.predecessor.remember(2)
        self.tell({"take": {"totals": []}})
        assert self.successResultOf(allowed)
        only = self.serve()
        self.tell({"signal": 3})
        self.tell({"main": True})
        assert self.successResultOf(only)
        heeded: list[int] = []
        ended = self.await_end(heeded)
        assert [1, 2, 3] == heeded
        self.tell({"signal": 4})
        assert [1, 2, 3, 4] == heeded
        self.old.send(b'{"signal": 5}')
        self.old.close()
        self.clock.pump([LOOK_SECONDS] * 2)
        self.successResultOf(ended)
        assert [1, 2, 3, 4, 5] == heeded

    def test_it_may_be_stopped_to_the_last(self) -> None:
        """
        The old daemon was asked to end just then.
        """
        only = self.serve()
        self.tell({"stop": True})
        assert not self.successResultOf(only)

    def test_one_that_is_asked_to_end_does_not_take_the_place(self) -> None:
        """
        Neither before it has said that it serves, nor until the old one has left.
        """
        self.is_ending = True
        assert not self.successResultOf(self.serve())
        assert ["error"] == self.told()
        self.is_ending = False
        only = self.serve()
        assert ["serves"] == self.told()
        self.is_ending = True
        self.clock.advance(LOOK_SECONDS)
        assert ["error"] == self.told()
        assert not self.successResultOf(only)

    def test_one_that_is_asked_to_end_too_late_has_the_place(self) -> None:
        """
        The old one has left already.
        """
        only = self.serve()
        self.is_ending = True
        self.tell({"main": True})
        assert self.successResultOf(only)

    def test_permission_may_be_withdrawn_before_it_is_read(self) -> None:
        """
        As where this process was slow: it must not write the PID file of the other.
        """
        allowed = self.begin()
        self.old.send(b'{"take": {"totals": []}}')
        self.tell({"stop": True})
        assert not self.successResultOf(allowed)

    def test_the_same_settings_fit(self) -> None:
        """
        And what workers alone need may change.
        """
        self.predecessor.check(replace(SETTINGS, procs=5, policy="shared"))

    def test_other_settings_do_not_fit(self) -> None:
        """
        The sentence has both.
        """
        for other, sentence in (
            (
                replace(SETTINGS, store=StoreLocation("null", "")),
                r"store is 'null:', and the running kvd has 'file:.*'",
            ),
            (
                replace(SETTINGS, listen=(TCPAddress("127.0.0.1", 81),)),
                "listen is 'http://127.0.0.1:81:backlog=4096', and the running kvd has"
                " 'http://127.0.0.1:80:backlog=4096'",
            ),
            (
                replace(SETTINGS, max_size=5),
                "max_size is '5', and the running kvd has 'None'",
            ),
            (replace(SETTINGS, procs=0), "procs is 0, and the running kvd has workers"),
        ):
            with pytest.raises(BadSetting, match=sentence):
                self.predecessor.check(other)


@pytest.mark.parametrize("text", ["", "x", "99999"])
def test_a_variable_that_no_kvd_has_set_is_refused(text: str) -> None:
    """
    The sentence names it.
    """
    environ = {VARIABLE: text}
    with pytest.raises(BadSetting, match=f"{VARIABLE}={text} in the environment"):
        take_predecessor(environ)
    assert {} == environ


def test_what_is_inherited_goes_to_no_child() -> None:
    """
    The channel, and every descriptor of the manifest.
    """
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pipe = os.pipe()
    with near:
        os.set_inheritable(far.fileno(), True)
        os.set_inheritable(pipe[1], True)
        manifest = replace(MANIFEST, stand_in=pipe[1])
        near.send(manifest.encode())
        environ = {VARIABLE: str(far.detach())}
        number = int(environ[VARIABLE])
        predecessor = take_predecessor(environ)

        assert {} == environ
        assert manifest.encode() == predecessor.manifest.encode()
        assert not os.get_inheritable(number)
        assert not os.get_inheritable(pipe[1])
        predecessor.close()
    for descriptor in pipe:
        os.close(descriptor)
