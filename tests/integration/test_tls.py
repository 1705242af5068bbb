"""
The true daemon over TLS: under each way to a worker, and with new certificates.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509

from tests.certificates import (
    HOUR,
    Certificate,
    authority,
    localhost,
    make_certificate,
    revoked_by,
)
from tests.integration.commands import run_kvd
from tests.integration.http import TIMEOUT_SECONDS, ask
from tests.integration.test_hangup import read_until
from tests.integration.test_status import status_of
from tests.integration.twistd import Twistd

pytestmark = pytest.mark.integration

GET = b"GET /k HTTP/1.1\r\nHost: localhost\r\n"
CLOSE = b"Connection: close\r\n\r\n"


def client_context(ca: Certificate | None = None) -> ssl.SSLContext:
    """
    A client that knows an authority, or that of `localhost`.
    """
    return ssl.create_default_context(cadata=(ca or authority()).cert_pem)


@contextmanager
def secure(
    port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> Iterator[ssl.SSLSocket]:
    """
    A connection over TLS.
    """
    with (
        socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS) as sock,
        context.wrap_socket(
            sock, server_hostname="localhost", session=session
        ) as connection,
    ):
        yield connection


def read_to_end(connection: socket.socket) -> bytes:
    """
    Everything that comes. Over TLS, an end without ``close_notify`` is an error.
    """
    pieces = []
    while piece := connection.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def over_tls(port: int, request: bytes, context: ssl.SSLContext | None = None) -> bytes:
    """
    The reply to a request on a connection of its own, up to its end.
    """
    with secure(port, context or client_context()) as connection:
        connection.sendall(request)
        return read_to_end(connection)


def serving(folder: Path, *options: str) -> list[str]:
    """
    A daemon that serves the same values in plain and over TLS.
    """
    tls = localhost().write(folder, "cert")
    return [
        *["--store", f"file:{folder}/values", "--durability=process", "--control=off"],
        *["--listen=tcp:0:interface=127.0.0.1"],
        f"--listen=tls:0:interface=127.0.0.1:cert={tls.cert}:key={tls.key}",
        *options,
    ]


@pytest.mark.parametrize(
    "options",
    [
        ["--procs=0"],
        ["--procs=2", "--policy=reuseport"],
        ["--procs=2", "--policy=gated"],
        ["--procs=2", "--policy=roundrobin"],
    ],
    ids=" ".join,
)
def test_each_address_speaks_what_it_is_for(options: list[str], tmp_path: Path) -> None:
    """
    Whoever accepts. A large value comes back whole, and with an end that the client
    can believe; plain HTTP at the address for TLS gets a sentence; TLS at the other is
    closed.
    """
    value = os.urandom(3_000_000)
    with Twistd(serving(tmp_path, *options), tmp_path) as daemon:
        plain, tls = daemon.ports
        head = b"PUT /k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000000\r\n"
        put = over_tls(tls, head + CLOSE + value)
        replies = [over_tls(tls, GET + CLOSE) for _ in range(4)]
        in_plain = ask(plain, "GET", "/k")
        with socket.create_connection(("127.0.0.1", tls), TIMEOUT_SECONDS) as sock:
            sock.sendall(GET + CLOSE)
            refused = read_to_end(sock)
        with pytest.raises(OSError, match=r"WRONG_VERSION|RECORD_LAYER"):
            over_tls(plain, GET + CLOSE)

    assert put.startswith(b"HTTP/1.1 201 ")
    assert [True] * 4 == [reply.endswith(b"\r\n\r\n" + value) for reply in replies]
    assert value == in_plain.body
    assert refused.startswith(b"HTTP/1.1 400 ")
    assert b"This address speaks TLS" in refused


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_is_resumed_with_another_worker(
    version: ssl.TLSVersion, tmp_path: Path
) -> None:
    """
    Workers take turns, and all of them have the keys of session tickets.
    """
    context = client_context()
    context.minimum_version = context.maximum_version = version
    reused = []
    session = None
    options = serving(tmp_path, "--procs=2", "--policy=roundrobin", "--access-log=log")
    with Twistd(options, tmp_path) as daemon:
        for _ in range(6):
            with secure(daemon.ports[1], context, session) as connection:
                connection.sendall(GET + CLOSE)
                read_to_end(connection)
                reused.append(connection.session_reused)
                session = connection.session
        daemon.stop()

    assert [False, *[True] * 5] == reused
    workers = [line.split()[1] for line in (tmp_path / "log").read_text().splitlines()]
    assert {"worker=0", "worker=1"} == set(workers)


def serial(port: int, context: ssl.SSLContext) -> int:
    """
    Of the certificate that a server shows.
    """
    with secure(port, context) as connection:
        shown = connection.getpeercert()
        assert shown is not None
        return int(str(shown["serialNumber"]), 16)


def end_of(path: Path, certificate: Certificate) -> dict[str, object]:
    """
    When a certificate in a file expires, as the status has it.
    """
    at = certificate.certificate.not_valid_after_utc.timestamp()
    return {"path": str(path), "kind": "certificate", "at": at}


def test_certificates_are_renewed_without_losing_anybody(tmp_path: Path) -> None:
    """
    SIGHUP reads them again. An upload goes on meanwhile, on the connection that it has.
    A certificate without its key changes nothing, and the log names both; nor does it
    when workers die and are replaced. The status says when each expires.
    """
    context = client_context()
    renewed = make_certificate(
        "localhost", authority(), [x509.DNSName("localhost")], until=2 * HOUR
    )
    control = tmp_path / "control"
    options = serving(
        tmp_path, "--procs=2", "--policy=reuseport", f"--control={control}"
    )
    cert, key = tmp_path / "cert.pem", tmp_path / "cert.key"
    with Twistd(options, tmp_path) as daemon, secure(daemon.ports[1], context) as old:
        port = daemon.ports[1]
        old.sendall(
            b"PUT /k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\nold"
        )
        session = old.session
        assert localhost().certificate.serial_number == serial(port, context)
        assert [end_of(cert, localhost())] == status_of(control)["expiries"]

        cert.write_text(renewed.cert_pem)
        daemon.process.send_signal(signal.SIGHUP)
        read_until(
            daemon,
            f"not applied: the private key in {key} does not belong to the certificate"
            f" in {cert}",
        )
        assert localhost().certificate.serial_number == serial(port, context)

        key.write_text(renewed.key_pem)
        daemon.process.send_signal(signal.SIGHUP)
        old.sendall(b"new")
        assert old.recv(1000).startswith(b"HTTP/1.1 201 ")
        read_until(daemon, "settings: done")
        serials = {serial(port, context) for _ in range(8)}
        assert {renewed.certificate.serial_number} == serials
        assert [end_of(cert, renewed)] == status_of(control)["expiries"]
        # Keys of session tickets are new too.
        with secure(port, context, session) as connection:
            assert not connection.session_reused
        assert b"oldnew" == ask(daemon.ports[0], "GET", "/k").body


def test_clients_show_certificates(tmp_path: Path) -> None:
    """
    Of an authority that is theirs. Who shows none, or one of another authority, or one
    that has expired, is not served, and the log says why.
    """
    clients = make_certificate("clients")
    ca = tmp_path / "ca.pem"
    ca.write_text(clients.cert_pem)
    tls = localhost().write(tmp_path, "cert")
    options = [
        *["--store=null:", "--procs=2", "--policy=roundrobin", "--control=off"],
        f"--listen=tls:0:interface=127.0.0.1:cert={tls.cert}:key={tls.key}:ca={ca}",
    ]
    known = make_certificate("ci", clients)
    with Twistd(options, tmp_path) as daemon:

        def reply_to(shown: Certificate | None) -> bytes:
            context = client_context()
            if shown is not None:
                files = shown.write(tmp_path, "client")
                context.load_cert_chain(files.cert, files.key)
            return over_tls(daemon.port, GET + CLOSE, context)

        assert reply_to(known).startswith(b"HTTP/1.1 404 ")
        for shown, words in [
            (None, "the client shows no certificate"),
            (
                make_certificate("ci", authority()),
                "accepted: self-signed certificate in certificate chain",
            ),
            (
                make_certificate("ci", clients, until=-HOUR / 2),
                "accepted: certificate has expired",
            ),
        ]:
            with pytest.raises(OSError, match=r"(?i)alert|reset"):
                reply_to(shown)
            read_until(daemon, words)


def test_certificates_of_clients_are_revoked(tmp_path: Path) -> None:
    """
    By a new list and SIGHUP. From then on a client whose certificate is on it is not
    served, nor if it resumes a session from before; others are. A list that cannot be
    read changes nothing.
    """
    clients = make_certificate("clients")
    (tmp_path / "ca.pem").write_text(clients.cert_pem)
    crl = tmp_path / "crl.pem"
    crl.write_text(revoked_by(clients))
    tls = localhost().write(tmp_path, "cert")
    listen = f"--listen=tls:0:interface=127.0.0.1:cert={tls.cert}:key={tls.key}"
    options = [
        *["--store=null:", "--procs=2", "--policy=roundrobin", "--control=off"],
        f"{listen}:ca={tmp_path}/ca.pem:crl={crl}",
    ]
    good, bad = make_certificate("good", clients), make_certificate("bad", clients)
    contexts = []
    for shown in good, bad:
        context = client_context()
        files = shown.write(tmp_path, "client")
        context.load_cert_chain(files.cert, files.key)
        contexts.append(context)
    served, revoked = contexts
    with Twistd(options, tmp_path) as daemon:

        def reply_to(
            context: ssl.SSLContext, session: ssl.SSLSession | None = None
        ) -> tuple[bytes, ssl.SSLSession | None]:
            with secure(daemon.port, context, session) as connection:
                connection.sendall(GET + CLOSE)
                return read_to_end(connection), connection.session

        _, session = reply_to(revoked)
        crl.write_text(revoked_by(clients, bad)[:-40])
        daemon.process.send_signal(signal.SIGHUP)
        read_until(daemon, f"not applied: {crl} has no list")
        assert reply_to(revoked)[0].startswith(b"HTTP/1.1 404 ")

        crl.write_text(revoked_by(clients, bad))
        daemon.process.send_signal(signal.SIGHUP)
        read_until(daemon, "settings: done")
        for kept in None, session:
            for _ in range(2):
                with pytest.raises(OSError, match=r"(?i)revoked|reset"):
                    reply_to(revoked, kept)
        read_until(daemon, "accepted: certificate revoked")
        assert {b"HTTP/1.1 404 "} == {reply_to(served)[0][:13] for _ in range(2)}


def test_a_certificate_that_has_expired_is_reported(tmp_path: Path) -> None:
    """
    kvd starts all the same: the clock may be wrong.
    """
    expired = make_certificate("localhost", None, since=-2 * HOUR, until=-HOUR)
    tls = expired.write(tmp_path, "cert")
    listen = f"--listen=tls:0:interface=127.0.0.1:cert={tls.cert}:key={tls.key}"
    options = ["--store=null:", "--procs=1", "--control=off", listen]
    with Twistd(options, tmp_path) as daemon:
        read_until(daemon, f"the certificate in {tls.cert} expired at ")


def test_credentials_that_cannot_be_used_end_the_start(tmp_path: Path) -> None:
    """
    With a sentence that names both files.
    """
    tls = localhost().write(tmp_path, "cert")
    other = make_certificate("other").write(tmp_path, "other")
    listen = f"--listen=tls:0:cert={tls.cert}:key={other.key}"
    with (
        pytest.raises(AssertionError) as caught,
        Twistd(["--store=null:", listen], tmp_path),
    ):
        pass

    assert f"the private key in {other.key} does not belong" in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_the_command_speaks_tls(tmp_path: Path) -> None:
    """
    To a server of an authority that it is told of, with a certificate that it shows.
    """
    clients = make_certificate("clients")
    (tmp_path / "clients.pem").write_text(clients.cert_pem)
    (tmp_path / "ca.pem").write_text(authority().cert_pem)
    own = make_certificate("ci", clients).write(tmp_path, "ci")
    both = tmp_path / "both.pem"
    both.write_text(Path(own.cert).read_text() + Path(own.key).read_text())
    tls = localhost().write(tmp_path, "cert")
    (tmp_path / "value").write_bytes(b"value")
    listen = f"--listen=tls:0:interface=127.0.0.1:cert={tls.cert}:key={tls.key}"
    options = [
        *[f"--store=file:{tmp_path}/values", "--procs=1", "--control=off"],
        f"{listen}:ca={tmp_path}/clients.pem",
    ]
    with Twistd(options, tmp_path) as daemon:
        url = f"--url=https://localhost:{daemon.port}"
        ca = f"--cacert={tmp_path}/ca.pem"

        def kvd(*arguments: str) -> tuple[int, str]:
            done = run_kvd(url, *arguments, folder=tmp_path)
            return done.returncode, done.stdout + done.stderr

        shown = f"--cert={own.cert}", f"--key={own.key}"
        put = kvd(ca, *shown, "put", "-q", "k", "value")
        got = kvd(ca, f"--cert={both}", "get", "k", "-")
        without = kvd(ca, "get", "k", "-")
        untrusted = kvd(*shown, "get", "k", "-")
        wrong = kvd(ca, f"--cert={own.cert}", f"--key={tls.key}", "get", "k", "-")
        alone = kvd(ca, f"--key={own.key}", "get", "k", "-")
        absent = kvd(ca, f"--cert={tmp_path}/none", "get", "k", "-")
        url = f"--url=https://127.0.0.1:{daemon.port}"
        other_name = kvd(ca, *shown, "get", "k", "-")

    assert (0, "") == put
    assert (0, "value") == got
    for (status, said), words in (
        (without, "asks for a certificate, and none was shown."),
        (untrusted, "shows a certificate that is not trusted here."),
        (other_name, "shows a certificate that is not for this name."),
    ):
        assert (5, True) == (status, words in said), said
    assert 2 == wrong[0]
    assert "the certificate, its key or the authorities cannot be used" in wrong[1]
    assert 2 == alone[0]
    assert 1 == absent[0]
    assert "No such file" in absent[1]


def test_a_certificate_names_a_user_of_the_rights_file(tmp_path: Path) -> None:
    """
    Who has its rights; others have those of everybody, also where a request of the one
    looks like one of the others.
    """
    clients = make_certificate("clients")
    (tmp_path / "clients.pem").write_text(clients.cert_pem)
    tls = localhost().write(tmp_path, "cert")
    rights = tmp_path / "users.toml"
    rights.touch(0o600)
    rights.write_text(
        '[anonymous.rights]\n"/" = ["read"]\n\n'
        '[users.ci.rights]\n"/" = ["read", "write"]\n'
    )
    files = f"cert={tls.cert}:key={tls.key}:ca={tmp_path}/clients.pem:clients=optional"
    options = [
        *[f"--store=file:{tmp_path}/values", "--durability=process", "--control=off"],
        *[f"--users={rights}", "--procs=1", f"--listen=tls:0:{files}"],
    ]
    put = b"PUT /k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nvalue"
    get = GET + b"\r\n"
    with Twistd(options, tmp_path) as daemon:

        def statuses(name: str | None) -> list[int]:
            context = client_context()
            if name is not None:
                shown = make_certificate(name, clients).write(tmp_path, name)
                context.load_cert_chain(shown.cert, shown.key)
            found = []
            with secure(daemon.port, context) as connection:
                for request in (put, put, get, get):
                    connection.sendall(request)
                    reply = b""
                    while not re.search(rb"\r\n\r\n(.+|$)", reply, re.DOTALL):
                        reply += connection.recv(65536)
                    found.append(int(reply[9:12]))
            return found

        for _ in range(2):
            assert statuses("ci")[1:] == [204, 200, 200]
            assert statuses(None) == [401, 401, 200, 200]
            assert statuses("stranger") == [401, 401, 200, 200]
