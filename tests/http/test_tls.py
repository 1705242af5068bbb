"""
Connections over TLS: what holds of every connection holds of these; and how they begin
and end.
"""

import contextlib
import socket
import ssl
import sys
import tempfile
import time
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import pytest
from cryptography import x509
from OpenSSL import SSL
from twisted.logger import LogEvent, capturedLogs, formatEvent

from kvd.http import half_handshakes, run_queue
from kvd.http.connection import HttpConnection
from kvd.http.timeouts import LINGER_SILENT_SECONDS
from kvd.net.secure_socket import (
    MOST_WITHOUT_DATA,
    RECORD_BYTES,
    WITHOUT_DATA_SECONDS,
    SecureSocket,
)
from kvd.net.sockets import bytes_unread
from kvd.net.tls import make_context
from kvd.net.tls_transport import TLSTransport
from kvd.settings import TLS, NamedCertificate
from tests import tls
from tests.certificates import (
    HOUR,
    Certificate,
    authority,
    credentials,
    make_certificate,
    revoked_by,
)
from tests.http import test_body_sender, test_connection, test_moving
from tests.http.test_connection import (
    HOST,
    LIMITS,
    ConnectionCase,
    body,
    detail,
    status,
)
from tests.stepped import Client, tcp_pair


def put_head(size: int) -> bytes:
    """
    Of a request.
    """
    return b"PUT /put HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % size


GET = b"GET /k HTTP/1.1\r\n" + HOST + b"\r\n"


class TLSCase(ConnectionCase):
    """
    A connection over TLS.
    """

    def connect(self) -> Client:
        client = tls.connect(self.reactor, HttpConnection(self.process), self.over_tcp)
        self.addCleanup(client.socket.close)
        return client

    def connect_over_tcp(self, window: int | None = None) -> Client:
        client = tls.connect(self.reactor, HttpConnection(self.process), True, window)
        self.addCleanup(client.socket.close)
        return client


class PutTests(TLSCase, test_moving.PutTests):
    """
    See there.
    """


class GetTests(TLSCase, test_moving.GetTests):
    """
    See there.
    """


class ColdGetTests(TLSCase, test_body_sender.ColdGetTests):
    """
    See there.
    """


class SmallLimitsTests(TLSCase, test_connection.SmallLimitsTests):
    """
    See there.
    """


class ConnectionTests(TLSCase, test_connection.ConnectionTests):
    """
    See there.
    """

    def test_a_client_that_has_all_of_the_reply_is_closed_at_once(self) -> None:
        """
        Or when it closes: after a handshake, a kernel acknowledges what comes some
        milliseconds later.
        """
        self.put(b"k", b"v")
        client = self.connect_over_tcp()
        client.send(b"GET /k HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")

        assert b"v" == body(client.receive())
        assert client.ended
        client.close()
        assert 1 == len(self.process.connections)


class TimeTests(TLSCase, test_connection.TimeTests):
    """
    See there.
    """


class DrainTests(TLSCase, test_connection.DrainTests):
    """
    See there.
    """


class LogTests(TLSCase, test_connection.LogTests):
    """
    See there.
    """


class RecordTests(TLSCase, test_connection.RecordTests):
    """
    See there.
    """


class BeginningTests(TLSCase):
    """
    A connection over TLS begins with a handshake.
    """

    def setUp(self) -> None:
        super().setUp()
        self.client.close()
        self.put(b"k", b"value")

    def accept(self, *, over_tcp: bool = True) -> socket.socket:
        """
        A connection that has just been made; the client's end.
        """
        near, far = tcp_pair() if over_tcp else socket.socketpair()
        self.addCleanup(far.close)
        far.setblocking(False)
        tls.serve(self.reactor, HttpConnection(self.process), near)
        return far

    def wrap(
        self, far: socket.socket, context: ssl.SSLContext | None = None
    ) -> ssl.SSLSocket:
        """
        A client that has not begun the handshake.
        """
        wrapped = (context or tls.client_context()).wrap_socket(
            far, do_handshake_on_connect=False, server_hostname="localhost"
        )
        self.addCleanup(wrapped.close)
        return wrapped

    def logged(self, *clients: socket.socket) -> list[str]:
        """
        What is logged until the handshakes should be over and clients have gone.
        """
        events: list[LogEvent]
        with capturedLogs() as captured:
            self.later(LIMITS.head_seconds - 1)
            self.later(1)
            for client in clients:
                client.close()
            # What had come is thrown away, and then there is silence.
            for _ in range(4):
                self.later(LINGER_SILENT_SECONDS)
        events = list(captured)
        assert set() == self.process.connections
        return [formatEvent(event) for event in events]

    def test_a_client_that_speaks_plain_http_gets_a_sentence(self) -> None:
        """
        In plain HTTP, with notice of the end, and without a reset that overtakes it.
        """
        for request in (GET, b"PUT /k HTTP/1.1\r\n", b"nonsense"):
            client = Client(self.reactor, self.accept())
            reply = client.send(request).receive()

            assert 400 == status(reply)
            assert detail(reply).startswith("This address speaks TLS")
            assert b"Connection: close" in reply
            assert (True, False) == (client.ended, client.reset)
            client.close()
        assert set() == self.process.connections
        assert [400] * 3 == [entry.status for entry in self.notes.entries]

    def test_what_is_neither_is_closed(self) -> None:
        """
        Nobody would understand an answer.
        """
        client = Client(self.reactor, self.accept())
        with capturedLogs() as captured:
            client.send(b"\0\1\2")

        assert b"" == client.receive()
        assert client.ended
        (event,) = captured
        assert "neither TLS nor HTTP" in formatEvent(event)

    def test_an_old_version_is_refused_in_words(self) -> None:
        """
        The client gets an alert, and the log a sentence.
        """
        context = tls.client_context()
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1 is deprecated"):
            context.minimum_version = ssl.TLSVersion.TLSv1
        with pytest.warns(DeprecationWarning, match=r"TLSv1_1 is deprecated"):
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        client = self.wrap(self.accept(), context)
        with capturedLogs() as captured, pytest.raises(ssl.SSLError) as caught:
            tls.shake_hands(self.reactor, client)

        assert "ALERT_PROTOCOL_VERSION" in str(caught.value)
        (event,) = captured
        assert "only versions before TLS 1.2" in formatEvent(event)
        assert [] == self.logged(client)

    def test_a_cipher_that_is_not_good_enough_is_refused_in_words(self) -> None:
        """
        One without authenticated encryption.
        """
        context = tls.client_context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ECDHE-ECDSA-AES128-SHA")
        client = self.wrap(self.accept(), context)
        with capturedLogs() as captured, pytest.raises(ssl.SSLError) as caught:
            tls.shake_hands(self.reactor, client)

        assert "HANDSHAKE_FAILURE" in str(caught.value)
        (event,) = captured
        assert "no cipher in common" in formatEvent(event)

    def test_a_client_that_does_not_know_the_authority_is_reported(self) -> None:
        """
        It says so in an alert.
        """
        context = ssl.create_default_context()
        client = self.wrap(self.accept(), context)
        with capturedLogs() as captured:
            with pytest.raises(ssl.SSLCertVerificationError):
                tls.shake_hands(self.reactor, client)
            self.reactor.settle()

        (event,) = captured
        assert "does not know the authority" in formatEvent(event)
        assert [] == self.logged(client)

    def test_a_handshake_has_its_time(self) -> None:
        """
        From the beginning of the connection, whatever comes of it meanwhile.
        """
        silent = self.accept()
        slow = self.accept()
        slow.send(b"\x16\x03\x01\x02\x00\x01")
        self.reactor.settle()

        lines = self.logged()

        assert ["the handshake was not complete after 10 seconds"] * 2 == [
            line.partition(": ")[2] for line in lines
        ]
        assert b"" == silent.recv(1)
        assert b"" == slow.recv(1)

    def test_a_client_that_leaves_during_it_is_ordinary(self) -> None:
        """
        A scan of ports, or a load balancer that looks whether somebody listens.
        """
        self.accept().close()
        begun = self.accept()
        begun.send(b"\x16\x03\x01")
        self.reactor.settle()
        begun.close()
        self.reactor.settle()

        assert [] == self.logged()

    def test_it_may_come_byte_by_byte(self) -> None:
        """
        As a network cuts it.
        """
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = tls.client_context().wrap_bio(
            incoming, outgoing, server_hostname="localhost"
        )
        far = self.accept(over_tcp=False)

        def exchange() -> None:
            for byte in outgoing.read():
                far.send(bytes((byte,)))
                self.reactor.settle(2)
            try:
                incoming.write(far.recv(65536))
            except BlockingIOError:
                pass

        def read() -> bytes:
            try:
                return client.read(1000)
            except ssl.SSLWantReadError:
                return b""

        for _ in range(4):
            try:
                client.do_handshake()
            except ssl.SSLWantReadError:
                pass
            exchange()
        client.write(GET)
        reply = b""
        for _ in range(4):
            exchange()
            reply += read()

        assert b"value" == body(reply)

    def test_nobody_wakes_for_a_part_of_the_first_record(self) -> None:
        """
        Nor is there anything of OpenSSL's for it. The rest wakes the reactor, and so
        does the end.
        """
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = tls.client_context().wrap_bio(
            incoming, outgoing, server_hostname="localhost"
        )
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        hello = outgoing.read()
        far = self.accept()
        steps: list[None] = []
        step = TLSTransport.handshake

        def counted(transport: TLSTransport) -> bool:
            steps.append(None)
            return step(transport)

        self.patch(TLSTransport, "handshake", counted)
        for at in range(0, len(hello) - 1, 20):
            far.send(hello[at : min(at + 20, len(hello) - 1)])
            self.reactor.settle(1)
        (connection,) = self.process.connections
        transport = connection.transport
        assert type(transport.socket) is socket.socket
        assert len(steps) <= 2

        far.send(hello[-1:])
        self.reactor.settle()
        assert isinstance(transport.socket, SecureSocket)
        assert len(far.recv(65536)) > 100

        leaving = self.accept()
        leaving.send(hello[:100])
        self.reactor.settle()
        leaving.close()
        self.reactor.settle()
        assert {connection} == self.process.connections

    def test_many_at_once_take_turns(self) -> None:
        """
        A turn of the reactor has little time for them, so others are served meanwhile.
        """
        served = self.connect()
        self.patch(run_queue, "QUEUE_SECONDS", 0.0)
        clients = [self.wrap(self.accept()) for _ in range(5)]
        for client in clients:
            with pytest.raises(ssl.SSLWantReadError):
                client.do_handshake()
        self.reactor.settle(1)
        waiting = [self.process.run_queue.has_time()]
        self.reactor.settle(2)
        assert [False] == waiting
        assert b"value" == body(served.send(GET).receive())
        for client in clients:
            tls.shake_hands(self.reactor, client)

        assert [b"value"] * 5 == [
            body(Client(self.reactor, client).send(GET).receive()) for client in clients
        ]

    def test_all_may_come_at_once(self) -> None:
        """
        The end of the handshake, a request, and the end of the connection; also where
        the handshake had to wait for its turn.
        """
        for seconds in (run_queue.QUEUE_SECONDS, 0.0):
            self.patch(run_queue, "QUEUE_SECONDS", seconds)
            far = self.accept(over_tcp=False)
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = tls.client_context().wrap_bio(
                incoming, outgoing, server_hostname="localhost"
            )
            with pytest.raises(ssl.SSLWantReadError):
                client.do_handshake()
            far.send(outgoing.read())
            self.reactor.settle()
            incoming.write(far.recv(65536))
            client.do_handshake()
            client.write(put_head(5) + b"hello")
            with pytest.raises(ssl.SSLWantReadError):
                client.unwrap()
            far.send(outgoing.read())
            self.reactor.settle()
            assert set() == self.process.connections
            assert b"hello" == self.value(b"put")
            incoming.write(far.recv(65536))
            assert client.read(1000).startswith(b"HTTP/1.1 201 ")
            self.store.values.clear()

    def test_a_ticket_comes_with_the_first_reply(self) -> None:
        """
        Of a request that came with the end of the handshake; else by itself, at once.
        """
        sends: list[int] = []
        send = SecureSocket._send

        def counted(secure: SecureSocket, more: bytes) -> bool:
            sends.append(len(secure.unsent) + len(more))
            return send(secure, more)

        for is_together in (True, False):
            sends.clear()
            far = self.accept(over_tcp=False)
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = tls.client_context().wrap_bio(
                incoming, outgoing, server_hostname="localhost"
            )
            with pytest.raises(ssl.SSLWantReadError):
                client.do_handshake()
            far.send(outgoing.read())
            self.reactor.settle()
            incoming.write(far.recv(65536))
            client.do_handshake()
            with patch.object(SecureSocket, "_send", counted):
                if is_together:
                    client.write(GET)
                far.send(outgoing.read())
                self.reactor.settle()
                assert 1 == len(sends)
                if not is_together:
                    client.write(GET)
                    far.send(outgoing.read())
                    self.reactor.settle()
            assert (1 if is_together else 2) == len(sends)
            incoming.write(far.recv(65536))
            assert client.read(1000).endswith(b"value")
            assert client.session is not None
            assert client.session.has_ticket

    def test_few_are_half_done(self) -> None:
        """
        The oldest one makes room for a new one; those that are complete do not count.
        """
        self.patch(half_handshakes, "MOST_HALF_DONE", 3)
        complete = [self.connect() for _ in range(5)]
        clients = [self.wrap(self.accept()) for _ in range(5)]
        with capturedLogs() as events:
            for client in clients:
                with pytest.raises(ssl.SSLWantReadError):
                    client.do_handshake()
                self.reactor.settle()

        assert 5 + 3 == len(self.process.connections)
        assert 3 == len(self.process.half_handshakes)
        assert 2 == sum("half done" in str(formatEvent(event)) for event in events)
        for client in clients[2:]:
            tls.shake_hands(self.reactor, client)
            assert b"value" == body(Client(self.reactor, client).send(GET).receive())
        for served in complete:
            assert b"value" == body(served.send(GET).receive())
        assert 0 == len(self.process.half_handshakes)

    def test_a_client_that_leaves_is_not_half_done(self) -> None:
        """
        Nor whose handshake has failed.
        """
        for _ in range(5):
            client = self.wrap(self.accept())
            with pytest.raises(ssl.SSLWantReadError):
                client.do_handshake()
            self.reactor.settle()
            assert 1 == len(self.process.half_handshakes)
            client.close()
            self.reactor.settle()
            assert 0 == len(self.process.half_handshakes)

    def test_draining_lets_it_end(self) -> None:
        """
        And one request follow.
        """
        client = self.wrap(self.accept())
        self.process.draining = True
        for connection in self.process.connections:
            connection.drain(1.0)

        tls.shake_hands(self.reactor, client)
        reply = Client(self.reactor, client).send(GET).receive()

        assert b"value" == body(reply)
        assert b"Connection: close" in reply


class UserTests(TLSCase):
    """
    The certificate of a client names its user.
    """

    def user_of(self, shown: Certificate | None) -> str | None:
        """
        The user of a client, as its connection has it.
        """
        others = set(self.process.connections)
        near, far = socket.socketpair()
        self.addCleanup(far.close)
        far.setblocking(False)
        files = TLS("/c", "/k", "/ca", "optional")
        context = make_context(credentials(ca=authority(), tls=files))
        tls.serve(self.reactor, HttpConnection(self.process), near, context)
        client_context = tls.client_context()
        with tempfile.TemporaryDirectory() as folder:
            if shown is not None:
                written = shown.write(Path(folder), "client")
                client_context.load_cert_chain(written.cert, written.key)
        client = client_context.wrap_socket(
            far, do_handshake_on_connect=False, server_hostname="localhost"
        )
        self.addCleanup(client.close)
        tls.shake_hands(self.reactor, client)
        (connection,) = self.process.connections - others
        user = connection.transport.peer_user
        assert 404 == status(Client(self.reactor, client).send(GET).receive())
        # The access log has it.
        assert user == self.notes.entries[-1].sender.user
        return user

    def test_users_are_named(self) -> None:
        """
        By the subject first; by no name that a log could not show.
        """
        mail, host = x509.RFC822Name("ci@example.org"), x509.DNSName("ci.example.org")
        address = x509.IPAddress(ip_address("127.0.0.1"))
        table: list[tuple[str | None, str | None, list[x509.GeneralName]]] = [
            ("ci", "ci", []),
            ("ci", "ci", [mail, host]),
            ("ci@example.org", None, [mail, host]),
            ("ci.example.org", None, [address, host, mail]),
            (None, None, [address]),
            (None, "ci\nroot", [mail]),
        ]
        for user, name, names in table:
            shown = make_certificate(name, authority(), names)

            assert (user, name, names) == (self.user_of(shown), name, names)

    def test_a_client_without_a_certificate_is_anonymous(self) -> None:
        """
        Where none is required.
        """
        assert self.user_of(None) is None


class NamedTests(TLSCase):
    """
    A client gets the certificate for the name that it asks for.
    """

    def setUp(self) -> None:
        super().setUp()
        named = []
        for names in (("one.test", "Two.test"), ("*.wild.test",)):
            own = make_certificate("x", authority(), [*map(x509.DNSName, names)])
            small = tuple(name.lower() for name in names)
            named.append(
                NamedCertificate("/x.pem", small, own.cert_pem, own.key_pem),
            )
        self.credentials = replace(credentials(), named=tuple(named))
        self.context = make_context(self.credentials)
        self.client_context = tls.client_context()
        self.client_context.check_hostname = False

    def ask_for(
        self, name: str | None, session: ssl.SSLSession | None = None
    ) -> ssl.SSLSocket:
        """
        The client's end after a request.
        """
        near, far = socket.socketpair()
        self.addCleanup(far.close)
        far.setblocking(False)
        tls.serve(self.reactor, HttpConnection(self.process), near, self.context)
        client = self.client_context.wrap_socket(
            far, do_handshake_on_connect=False, server_hostname=name, session=session
        )
        self.addCleanup(client.close)
        tls.shake_hands(self.reactor, client)
        assert 404 == status(Client(self.reactor, client).send(GET).receive())
        return client

    def test_the_names_of_the_certificate(self) -> None:
        """
        In letters of any size; a star is one label. Whoever asks for another name, or
        for none, gets the address's own.
        """
        for expected, name in (
            ("one.test", "one.test"),
            ("one.test", "ONE.test"),
            ("one.test", "two.test"),
            ("*.wild.test", "a.wild.test"),
            ("localhost", "a.a.wild.test"),
            ("localhost", "wild.test"),
            ("localhost", "localhost"),
            ("localhost", "other"),
            ("localhost", None),
        ):
            shown = self.ask_for(name).getpeercert()
            assert shown is not None
            assert ("DNS", expected) == shown["subjectAltName"][0], name

    def test_sessions_are_resumed(self) -> None:
        """
        For the same name.
        """
        first = self.ask_for("one.test")
        assert self.ask_for("one.test", first.session).session_reused

    def test_a_name_that_is_none(self) -> None:
        """
        Ends the handshake with one line, as all that clients do wrong: nothing is
        reported as a fault of kvd's, however often it comes.
        """
        near, far = socket.socketpair()
        self.addCleanup(far.close)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = self.client_context.wrap_bio(
            incoming, outgoing, server_hostname="one.test"
        )
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        far.send(outgoing.read().replace(b"one.test", b"\xffne.test"))
        with patch("sys.unraisablehook") as hook, capturedLogs() as logged:
            context = make_context(self.credentials)
            tls.serve(self.reactor, HttpConnection(self.process), near, context)

            hook.assert_not_called()
            sys.unraisablehook("something else")  # type: ignore[arg-type]
            hook.assert_called_once_with("something else")
        (event,) = logged
        assert "the name that the client asks for" in formatEvent(event)


class RevokedTests(TLSCase):
    """
    Who shows a certificate that was revoked is not served.
    """

    def reply_to(self, shown: Certificate, revoked: str) -> tuple[bytes, list[str]]:
        """
        What it gets, and what is logged.
        """
        near, far = socket.socketpair()
        self.addCleanup(far.close)
        far.setblocking(False)
        files = TLS("/c", "/k", "/ca", crl="/crl")
        context = make_context(
            replace(credentials(ca=authority(), tls=files), crl=revoked)
        )
        client_context = tls.client_context()
        with tempfile.TemporaryDirectory() as folder:
            written = shown.write(Path(folder), "client")
            client_context.load_cert_chain(written.cert, written.key)
        client = client_context.wrap_socket(
            far, do_handshake_on_connect=False, server_hostname="localhost"
        )
        self.addCleanup(client.close)
        with capturedLogs() as events:
            tls.serve(self.reactor, HttpConnection(self.process), near, context)
            tls.shake_hands(self.reactor, client)
            try:
                reply = Client(self.reactor, client).send(GET).receive()
            except OSError:
                reply = b""
        return reply, [formatEvent(event) for event in events]

    def test_what_is_on_the_list(self) -> None:
        """
        Is refused, in words; what is not is served.
        """
        good, bad = (make_certificate(name, authority()) for name in ("good", "bad"))
        revoked = revoked_by(authority(), bad)

        reply, logged = self.reply_to(good, revoked)
        assert (404, []) == (status(reply), logged)
        reply, (logged_bad,) = self.reply_to(bad, revoked)
        assert b"" == reply
        assert "not accepted: certificate revoked" in logged_bad

    def test_a_list_that_is_out_of_date(self) -> None:
        """
        Says nothing of anybody, so nobody is served.
        """
        good = make_certificate("good", authority())
        reply, (logged,) = self.reply_to(good, revoked_by(authority(), until=-HOUR))
        assert b"" == reply
        assert "not accepted: CRL has expired" in logged


class RenegotiationTests(TLSCase):
    """
    A client of TLS 1.2 may ask for another handshake on its connection, and gets none.
    """

    def test_it_is_refused(self) -> None:
        """
        In words of TLS. To kvd it is a record without data, of which there may be few.
        """
        near, far = socket.socketpair()
        self.addCleanup(far.close)
        far.setblocking(False)
        tls.serve(self.reactor, HttpConnection(self.process), near)
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        client = SSL.Connection(context, None)
        client.set_connect_state()

        def exchange() -> None:
            with contextlib.suppress(SSL.WantReadError):
                far.send(client.bio_read(65536))
            self.reactor.settle()
            with contextlib.suppress(BlockingIOError):
                client.bio_write(far.recv(65536))

        for _ in range(3):
            with contextlib.suppress(SSL.WantReadError):
                client.do_handshake()
            exchange()
        assert "TLSv1.2" == client.get_protocol_version_name()
        client.send(GET)
        exchange()
        assert client.recv(65536).startswith(b"HTTP/1.1 404 ")

        client.renegotiate()
        with pytest.raises(SSL.WantReadError):
            client.do_handshake()
        asked = client.bio_read(65536)
        with patch.object(SecureSocket, "shake_hands") as again:
            far.send(asked)
            self.reactor.settle()
        again.assert_not_called()
        client.bio_write(far.recv(65536))
        with pytest.raises(SSL.Error, match="no renegotiation"):
            client.do_handshake()
        assert 2 == len(self.process.connections)


class ResumedTests(TLSCase):
    """
    A client that comes back does not show its certificate again.
    """

    def setUp(self) -> None:
        super().setUp()
        files = TLS("/c", "/k", "/ca")
        self.context = make_context(credentials(ca=authority(), tls=files))
        self.client_context = tls.client_context()
        with tempfile.TemporaryDirectory() as folder:
            written = make_certificate("ci", authority()).write(Path(folder), "ci")
            self.client_context.load_cert_chain(written.cert, written.key)

    def get(self, session: ssl.SSLSession | None) -> tuple[bytes, Any]:
        """
        What a client gets, and its connection.
        """
        near, far = socket.socketpair()
        self.addCleanup(far.close)
        far.setblocking(False)
        tls.serve(self.reactor, HttpConnection(self.process), near, self.context)
        client = self.client_context.wrap_socket(
            far,
            do_handshake_on_connect=False,
            server_hostname="localhost",
            session=session,
        )
        self.addCleanup(client.close)
        tls.shake_hands(self.reactor, client)
        try:
            return Client(self.reactor, client).send(GET).receive(), client
        except BrokenPipeError:
            return b"", client

    def test_a_certificate_that_has_expired_meanwhile_is_refused(self) -> None:
        """
        Each ticket brings a new one, so the session would never end.
        """
        reply, first = self.get(None)
        assert 404 == status(reply)
        reply, second = self.get(first.session)
        assert 404 == status(reply)
        assert second.session_reused

        later = time.time() + 2 * HOUR.total_seconds()
        with (
            patch("time.time", return_value=later),
            capturedLogs() as logged,
        ):
            reply, third = self.get(second.session)

        assert third.session_reused
        assert b"" == reply
        (event,) = (event for event in logged if "reason" in event)
        assert "not accepted: certificate has expired" in formatEvent(event)

    def test_a_connection_ends_with_the_certificate(self) -> None:
        """
        With the reply to a request that begins before kvd has noticed; else within a
        moment, whatever the client sends.
        """
        for is_idle in (True, False):
            others = set(self.process.connections)
            _, raw = self.get(None)
            (connection,) = self.process.connections - others
            client = Client(self.reactor, raw)
            assert 404 == status(client.send(GET).receive())
            connection.check_time(self.reactor.seconds())
            assert connection in self.process.connections
            later = time.time() + 2 * HOUR.total_seconds()
            with patch("time.time", return_value=later):
                if is_idle:
                    connection.check_time(self.reactor.seconds())
                    self.reactor.settle()
                else:
                    assert b"Connection: close" in client.send(GET).receive()
            assert client.receive() == b""
            assert client.ended
            client.close()
            assert others == self.process.connections


class RecordsTests(TLSCase):
    """
    What a client puts into its records.
    """

    def setUp(self) -> None:
        super().setUp()
        self.put(b"k", b"value")
        near, far = socket.socketpair()
        self.addCleanup(far.close)
        far.setblocking(False)
        tls.serve(self.reactor, HttpConnection(self.process), near)
        self.raw = tls.RawClient(self.reactor, far)
        self.addCleanup(self.raw.socket.close)
        self.near = near.fileno()

    def send(self, *records: bytes) -> None:
        """
        Send records.
        """
        sent = socket.socket.send(self.raw.socket, b"".join(records))
        assert sum(map(len, records)) == sent

    def test_keys_may_be_updated(self) -> None:
        """
        Before a request, and within one.
        """
        raw, client = self.raw, Client(self.reactor, self.raw.socket)
        for _ in range(MOST_WITHOUT_DATA // 3):
            first, second = GET[:9], GET[9:]
            self.send(
                raw.key_update(),
                raw.key_update(),
                raw.record(tls.DATA, first),
                raw.key_update(),
                raw.record(tls.DATA, second),
            )
            self.reactor.settle()
            assert b"value" == body(client.receive())

    def test_key_updates_without_a_pause_end_the_connection(self) -> None:
        """
        After some of them, and all others stay unread: nobody else has to wait.
        """
        updates = [self.raw.key_update() for _ in range(2000)]
        self.send(*updates)
        taken: list[None] = []
        take = SecureSocket._take_record

        def counted(secure: SecureSocket) -> int | None:
            taken.append(None)
            return take(secure)

        self.patch(SecureSocket, "_take_record", counted)
        with capturedLogs() as captured:
            self.reactor.settle()

        assert len(taken) <= MOST_WITHOUT_DATA + 1
        (event,) = captured
        assert "records over TLS without data" in formatEvent(event)
        assert 1 == len(self.process.connections)
        assert Client(self.reactor, self.raw.socket).receive() == b""

    def test_what_comes_slowly_is_not_forgotten(self) -> None:
        """
        The count starts anew after a while.
        """
        raw, client = self.raw, Client(self.reactor, self.raw.socket)
        for minute in range(3):
            then = minute * (WITHOUT_DATA_SECONDS + 1)
            with patch("time.monotonic", return_value=1e6 + then):
                self.send(*[raw.key_update() for _ in range(MOST_WITHOUT_DATA)])
                self.reactor.settle()
        self.send(raw.record(tls.DATA, GET))
        self.reactor.settle()

        assert b"value" == body(client.receive())

    def test_a_record_may_have_a_byte(self) -> None:
        """
        Each turn of the reactor takes some, and others are served between.
        """
        client = Client(self.reactor, self.raw.socket)
        request = put_head(500) + bytes(500)
        self.send(*[self.raw.record(tls.DATA, bytes((byte,))) for byte in request])
        self.reactor.settle(1)

        assert b"value" == body(self.client.send(GET).receive())
        self.reactor.settle(len(request))
        assert 201 == status(client.receive())
        assert bytes(500) == self.value(b"put")

    def test_part_of_a_record_is_unread(self) -> None:
        """
        Although it was taken from the kernel, no byte of it was given out.
        """
        record = self.raw.record(tls.DATA, GET)
        self.send(record[:9])
        self.reactor.settle()

        (transport,) = [
            cast(HttpConnection, each).transport
            for each in self.process.connections
            if cast(HttpConnection, each).transport.fileno() == self.near
        ]
        assert 0 == bytes_unread(transport.socket)
        assert 9 == transport.most_unread()
        self.send(record[9:])
        self.reactor.settle()
        assert 0 == transport.most_unread()

    def test_empty_records_are_bounded_too(self) -> None:
        """
        They may hide how long data is, and bring none.
        """
        self.send(*[self.raw.record(tls.DATA, b"") for _ in range(1000)])
        self.reactor.settle()

        assert 1 == len(self.process.connections)


class EndTests(TLSCase):
    """
    The end of a connection over TLS is told, unless something is missing.
    """

    def setUp(self) -> None:
        context = tls.client_context()
        # Some builds of Python, as Debian's, have OpenSSL ignore what is missing.
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
        self.patch(tls, "client_context", lambda: context)
        super().setUp()
        self.client.socket.suppress_ragged_eofs = False  # type: ignore[attr-defined]

    def test_the_end_is_reported(self) -> None:
        """
        By ``close_notify``, so nobody can have cut anything off.
        """
        self.put(b"k", b"value")
        request = b"GET /k HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"

        assert b"value" == body(self.ask(request))
        assert self.client.ended

    def test_a_connection_that_is_broken_off_ends_without_it(self) -> None:
        """
        Else a client might believe that it has the whole value.
        """
        self.put(b"k", bytes(3_000_000))
        self.client.send(GET)
        for connection in list(self.process.connections):
            connection.abort()
        self.reactor.settle()

        def read_on() -> None:
            while self.client.socket.recv(65536):
                pass

        # Later versions of Python raise its kind SSLEOFError.
        with pytest.raises((ConnectionResetError, ssl.SSLError)):
            read_on()

    def test_a_client_may_say_that_it_sends_no_more(self) -> None:
        """
        In TLS only; it gets the replies to all that it has sent.
        """
        self.put(b"k", b"value")
        client = self.client.socket
        assert isinstance(client, ssl.SSLSocket)
        client.send(GET)
        with pytest.raises(ssl.SSLWantReadError):
            client.unwrap()

        assert b"value" == body(self.client.receive())
        assert set() == self.process.connections

    def test_an_end_right_behind_a_body_is_noticed(self) -> None:
        """
        It comes in the same read, and the reactor reports nothing more.
        """
        client = self.client.socket
        assert isinstance(client, ssl.SSLSocket)
        head = b"PUT /k HTTP/1.1\r\n" + HOST + b"Content-Length: 99999\r\n\r\n"
        self.client.send(head)
        client.send(bytes(2 * RECORD_BYTES))
        with pytest.raises(ssl.SSLWantReadError):
            client.unwrap()
        self.reactor.settle()

        assert set() == self.process.connections
        assert 0 == self.store.uploads


class SlowReaderTests(TLSCase, test_moving.MovingCase):
    """
    A file is read as it is sent.
    """

    def test_a_slow_reader_costs_a_record(self) -> None:
        """
        What it does not take stays in the file.
        """
        client = self.connect_over_tcp(window=4_096)
        self.put(b"k", bytes(9_000_000))
        client.socket.send(GET)
        received = 0
        for _ in range(50):
            # The kernel takes some mebibytes.
            self.reactor.settle()
            queued = [
                transport._tempDataLen + len(transport.dataBuffer)
                for transport in (each.transport for each in self.process.connections)
            ]
            assert sum(queued) <= RECORD_BYTES
            try:
                received += len(client.socket.recv(65536))
            except BlockingIOError:
                # It was faster.
                pass

        sent = sum(each.transport.bytes_sent for each in self.process.connections)
        assert received < sent < 9_000_000
        rest = client.receive_until(lambda rest: 9_000_000 < received + len(rest))
        assert 9_000_000 < received + len(rest)
