"""
TLS by the ``ssl`` module of Python, which uses the OpenSSL of the system: what the
connections to an address share, and what certificates and failures mean.
`kvd.net.secure_socket` has the connections themselves.
"""

from __future__ import annotations

import os
import ssl
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from kvd.errors import CredentialsUnusable, HandshakeFailed
from kvd.net.tls_groups import leave_out_fields
from kvd.settings import Credentials

CIPHERS: Final = ":".join(
    f"ECDHE-{signature}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for signature in ("ECDSA", "RSA")
)
"""
For TLS 1.2: those of Mozilla's "intermediate" recommendation, except for the ones with
finite-field Diffie-Hellman. These cost the server several milliseconds for each
handshake, and every client that knows one of them knows one of these too. For TLS 1.3,
OpenSSL's own, which are all good.
"""


def make_context(credentials: Credentials) -> ssl.SSLContext:
    """
    Make what all connections to an address share. Processes that are forked afterwards
    share the keys of session tickets too, so a client may resume its session with any
    of them.

    Raises:
        CredentialsUnusable: The certificate, the key or the authorities cannot be used.
    """
    leave_out_fields()
    tls = credentials.tls
    context = _make_context(
        credentials, (tls.cert, tls.key), (credentials.cert, credentials.key)
    )
    by_name: dict[str, ssl.SSLContext] = {}
    for each in credentials.named:
        paths = each.path, each.key_path
        own = _make_context(credentials, paths, (each.cert, each.key))
        by_name |= dict.fromkeys(each.names, own)
    if by_name:
        _leave_bad_names_to_clients()
        context.sni_callback = partial(_choose, by_name)
    return context


def _leave_bad_names_to_clients() -> None:
    """
    Have this process ignore what Python's module reports, with a traceback, of each
    client that asks for a name with other letters than those of ASCII: whoever likes
    could fill the log. The handshake fails all the same.
    """
    report = sys.unraisablehook
    if isinstance(report, partial) and report.func is _report_unless_name:
        return
    sys.unraisablehook = partial(_report_unless_name, report)


def _report_unless_name(report: Callable[[Any], None], unraisable: Any) -> None:
    is_name = getattr(unraisable, "exc_type", None) is UnicodeDecodeError
    if not (is_name and isinstance(unraisable.object, bytes)):
        report(unraisable)


def _choose(
    by_name: Mapping[str, ssl.SSLContext],
    connection: ssl.SSLObject,
    name: str | None,
    _: ssl.SSLContext,
) -> None:
    """
    Answer with the certificate for a name; with the address's own if there is none, as
    for a client that asks for no name.
    """
    if name is not None:
        name = name.lower()
        own = by_name.get(name) or by_name.get("*." + name.partition(".")[2])
        if own is not None:
            connection.context = own


def _make_context(
    credentials: Credentials, paths: tuple[str, str], texts: tuple[str, str]
) -> ssl.SSLContext:
    """
    Args:
        paths: Of a certificate and its private key.
        texts: What is in them.
    """
    tls = credentials.tls
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    # Each handshake brings a ticket, and so does each that resumes a session. A second
    # one takes 20 microseconds, and is for browsers, which connect twice at once.
    context.num_tickets = 1
    context.options |= (
        ssl.OP_CIPHER_SERVER_PREFERENCE
        | ssl.OP_NO_COMPRESSION
        | ssl.OP_NO_RENEGOTIATION
        # A client that closes its half without close_notify gets its reply all the
        # same. Whether a body is complete, its length or its last chunk tells.
        | ssl.OP_IGNORE_UNEXPECTED_EOF
    )
    # A client that offers other protocols only is told of none (it may be one that
    # ignores the answer); h2 would be refused as malformed HTTP/1.1.
    context.set_alpn_protocols(["http/1.1"])
    try:
        _load_chain(context, *texts)
    except ssl.SSLError as error:
        raise CredentialsUnusable(_unusable(*paths, error)) from error
    if tls.ca is not None:
        try:
            # Comments between the blocks may be in any encoding; Python takes ASCII.
            ascii_only = credentials.ca.encode("ascii", "replace").decode("ascii")
            context.load_verify_locations(cadata=ascii_only)
        except ssl.SSLError as error:
            raise CredentialsUnusable(
                f"the authorities in {tls.ca} cannot be used: {reason_of(error)}"
            ) from error
        context.verify_mode = (
            ssl.CERT_REQUIRED if tls.clients == "required" else ssl.CERT_OPTIONAL
        )
    if tls.crl is not None:
        try:
            with _in_memory(credentials.crl) as path:
                context.load_verify_locations(path)
        except ssl.SSLError as error:
            raise CredentialsUnusable(
                f"the list of revoked certificates in {tls.crl} cannot be used:"
                f" {reason_of(error)}"
            ) from error
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return context


@contextmanager
def _in_memory(text: str) -> Iterator[str]:
    """
    A path for OpenSSL, which reads files only; the true ones may have changed.
    """
    with open(os.memfd_create("kvd-pem"), "wb") as file:
        file.write(text.encode("latin-1"))
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"


def _load_chain(context: ssl.SSLContext, cert: str, key: str) -> None:
    with _in_memory(cert) as cert_path, _in_memory(key) as key_path:
        # Without a password, OpenSSL would ask for one at the terminal.
        context.load_cert_chain(cert_path, key_path, password=lambda: "")


def _unusable(cert: str, key: str, error: ssl.SSLError) -> str:
    if error.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
        return (
            f"the private key in {key} does not belong to the certificate in {cert}:"
            " one of them may be of another time, or in the wrong order (the address's"
            " own certificate comes first)"
        )
    return (
        f"the certificate in {cert} and its private key in {key} cannot be used:"
        f" {reason_of(error)}"
    )


def user_of(certificate: Mapping[str, Any] | None) -> str | None:
    """
    The user that a client's certificate names: by the common name of its subject, or,
    where it has none, by its first alternative name that is an address of e-mail, a
    host, or a URI.

    Args:
        certificate: As `ssl.SSLObject.getpeercert` gives it.

    Returns:
        None if there is no certificate, or it names nobody in printable characters.
    """
    if not certificate:
        return None
    names = [
        value
        for parts in certificate.get("subject", ())
        for name, value in parts
        if name == "commonName"
    ] or [
        value
        for kind, value in certificate.get("subjectAltName", ())
        if kind in ("email", "DNS", "URI")
    ]
    name = names[0] if names else ""
    return name if name.isprintable() and name else None


def end_of(certificate: Mapping[str, Any]) -> float:
    """
    Check that a client's certificate has not expired. OpenSSL does so only when the
    client shows it; a session that is resumed has it from before, and each resumption
    brings a new ticket.

    Args:
        certificate: As `ssl.SSLObject.getpeercert` gives it.

    Returns:
        When it expires, in seconds since the epoch.

    Raises:
        HandshakeFailed: It has expired.
    """
    end = ssl.cert_time_to_seconds(certificate["notAfter"])
    if time.time() > end:
        raise HandshakeFailed(_not_accepted("certificate has expired"))
    return end


def _not_accepted(reason: str) -> str:
    return f"the certificate of the client is not accepted: {reason}"


def reason_of(error: ssl.SSLError) -> str:
    """
    What OpenSSL says of a failure, in its own words.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return (error.reason or str(error)).lower().replace("_", " ")


_REASONS: Final[Mapping[str, str]] = {
    "CALLBACK_FAILED": "the name that the client asks for (SNI) is none",
    "NO_SHARED_CIPHER": "they have no cipher in common",
    "UNSUPPORTED_PROTOCOL": "the client speaks only versions before TLS 1.2",
    "VERSION_TOO_LOW": "the client speaks only versions before TLS 1.2",
    "WRONG_VERSION_NUMBER": "what the client sends is not TLS",
    "NO_SUITABLE_KEY_SHARE": "they have no group for the key exchange in common",
    "NO_SUITABLE_GROUPS": "they have no group for the key exchange in common",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client shows no certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "the client does not know the authority of kvd's"
    " certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the client does not accept kvd's certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "to the client, kvd's certificate has expired",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the client does not accept kvd's certificate",
}


def handshake_failure(error: ssl.SSLError) -> HandshakeFailed:
    """
    Why a handshake failed, as a sentence for the log.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return HandshakeFailed(_not_accepted(error.verify_message))
    return HandshakeFailed(_REASONS.get(error.reason or "", reason_of(error)))
