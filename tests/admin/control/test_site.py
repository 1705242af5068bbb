"""
Tests for `kvd.admin.control.site`, over a true socket in a stepped reactor.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
import warnings
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from kvd.admin.control.site import MAX_BODY_BYTES, ControlSite
from kvd.errors import ChangeImpossible
from kvd.net.listening import open_group
from kvd.settings import UNIXAddress
from tests.stepped import Client, SteppedReactor


class ControlSiteTests(SynchronousTestCase):
    """
    `ControlSite` returns the status and makes changes.
    """

    def setUp(self) -> None:
        self.reactor = SteppedReactor()
        self.addCleanup(self.reactor.dispose)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "control")
        group = open_group(UNIXAddress(self.path), 1)
        self.addCleanup(group.close)
        self.asked: list[dict[str, Any]] = []
        self.answer: Deferred[None] = succeed(None)
        self.site = ControlSite(
            group.members[0].dup(),
            lambda: {"workers": []},
            {"policy": self.change},
            self.reactor,
        )
        self.addCleanup(self.site.close)

    def change(self, said: dict[str, Any]) -> Deferred[None]:
        """
        Note a requested change.
        """
        self.asked.append(said)
        return self.answer

    def connect(self) -> Client:
        """
        Connect to the control socket.
        """
        sock = socket.socket(socket.AF_UNIX)
        self.addCleanup(sock.close)
        sock.connect(self.path)
        return Client(self.reactor, sock)

    def post(self, body: bytes, path: bytes = b"policy") -> Client:
        """
        Request a change.
        """
        return self.connect().send(
            b"POST /%b HTTP/1.1\r\nHost: kvd\r\nContent-Length: %d\r\n\r\n%b"
            % (path, len(body), body)
        )

    def reply(self, client: Client) -> tuple[int, Any]:
        """
        The status and the content of the reply, for a client that then disconnects.
        """
        head, _, body = client.receive().partition(b"\r\n\r\n")
        client.close()
        return int(head.split()[1]), json.loads(body)

    def test_the_status_is_returned(self) -> None:
        """
        As JSON.
        """
        client = self.connect().send(b"GET /status HTTP/1.1\r\nHost: kvd\r\n\r\n")

        assert (200, {"workers": []}) == self.reply(client)

    def test_a_change_is_answered_when_it_is_done(self) -> None:
        """
        However long that takes.
        """
        self.answer = Deferred()
        client = self.post(b'{"policy": "shared"}')
        self.reactor.advance(600)
        assert b"" == client.receive()
        assert [{"policy": "shared"}] == self.asked

        self.answer.callback(None)
        assert (200, {}) == self.reply(client)

    def test_a_change_may_have_no_arguments(self) -> None:
        """
        If its path says everything.
        """
        assert (200, {}) == self.reply(self.post(b""))
        assert [{}] == self.asked

    def test_an_impossible_change_is_refused_with_its_reason(self) -> None:
        """
        At whatever time the reason is found.
        """
        self.answer = Deferred()
        client = self.post(b"{}")
        self.answer.errback(ChangeImpossible("not now"))

        assert (409, {"error": "not now"}) == self.reply(client)

    def test_an_invalid_body_is_refused(self) -> None:
        """
        And no change is made.
        """
        for body, words in [
            (b"policy", "not JSON"),
            (b"\xff", "not JSON"),
            (b"[" * MAX_BODY_BYTES, "not JSON"),
            (b'{"policy": "%b"}' % (b"x" * MAX_BODY_BYTES), "not JSON"),
            (b'["shared"]', "not a JSON object"),
        ]:
            status, content = self.reply(self.post(body))
            assert 409 == status
            assert words in content["error"]

        assert [] == self.asked

    def test_a_mistake_is_logged(self) -> None:
        """
        The reply says that the log describes it.
        """
        self.answer = Deferred()
        client = self.post(b"{}")
        self.answer.errback(ZeroDivisionError())
        status, content = self.reply(client)

        assert 500 == status
        assert "its log" in content["error"]
        assert 1 == len(self.flushLoggedErrors(ZeroDivisionError))

    def test_the_client_may_disconnect(self) -> None:
        """
        The change is made all the same, and a mistake is logged.
        """
        for result in (None, ChangeImpossible("not now"), ZeroDivisionError()):
            self.answer = Deferred()
            self.post(b"{}").close()
            if result is None:
                self.answer.callback(None)
            else:
                self.answer.errback(result)
            self.reactor.settle()

        assert 3 == len(self.asked)
        assert 1 == len(self.flushLoggedErrors())

    def test_the_status_cannot_be_changed(self) -> None:
        """
        Nor can a change be read.
        """
        for request in (b"GET /policy", b"POST /status"):
            with warnings.catch_warnings():
                # Of Twisted about itself, when it makes the page that is the reply.
                warnings.simplefilter("ignore", DeprecationWarning)
                client = self.connect()
                client.send(request + b" HTTP/1.1\r\nHost: kvd\r\n\r\n")
            assert client.receive().startswith(b"HTTP/1.1 405 ")
            client.close()

        assert [] == self.asked

    def test_a_connection_waits_while_it_is_paused(self) -> None:
        """
        As that of a new daemon until the old one has left its place.
        """
        self.site.answering.pause()
        client = self.connect()
        client.send(b"GET /status HTTP/1.1\r\nHost: kvd\r\n\r\n")
        assert b"" == client.receive()

        self.site.answering.resume()
        assert client.receive().startswith(b"HTTP/1.1 200 ")
        client.close()
