"""
Certificates for tests: an authority, and what it signs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from kvd.settings import TLS, Credentials

HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Certificate:
    """
    A certificate and its private key.
    """

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def cert_pem(self) -> str:
        """
        The certificate as a file has it.
        """
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def key_pem(self) -> str:
        """
        The key as a file has it.
        """
        return self.key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        ).decode()

    def write(self, folder: Path, name: str) -> TLS:
        """
        Write both into a folder, the key for the user of this process only.
        """
        cert, key = folder / f"{name}.pem", folder / f"{name}.key"
        cert.write_text(self.cert_pem)
        key.touch(0o600)
        key.write_text(self.key_pem)
        return TLS(str(cert), str(key))


def make_certificate(
    name: str | None,
    authority: Certificate | None = None,
    names: Sequence[x509.GeneralName] = (),
    since: timedelta = -HOUR,
    until: timedelta = HOUR,
) -> Certificate:
    """
    Make a certificate.

    Args:
        name: The common name of its subject, if it has one.
        authority: Signs it; None: it is one itself.
        names: Its alternative names.
        since: When it is valid, from now.
        until: Up to when.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    attributes = [] if name is None else [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    subject = x509.Name(attributes)
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if authority is None else authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + since)
        .not_valid_after(now + until)
        .add_extension(x509.BasicConstraints(authority is None, None), critical=True)
    )
    if names:
        extension = x509.SubjectAlternativeName(names)
        builder = builder.add_extension(extension, critical=name is None)
    signer = key if authority is None else authority.key
    return Certificate(builder.sign(signer, SHA256()), key)


def revoked_by(
    authority: Certificate, *revoked: Certificate, until: timedelta = HOUR
) -> str:
    """
    The list of certificates that an authority has revoked, as a file has it.

    Args:
        until: When the next list is due, from now.
    """
    now = datetime.now(UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(now - 3 * HOUR)
        .next_update(now + until)
    )
    for each in revoked:
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder()
            .serial_number(each.certificate.serial_number)
            .revocation_date(now - HOUR)
            .build()
        )
    return builder.sign(authority.key, SHA256()).public_bytes(Encoding.PEM).decode()


@cache
def authority() -> Certificate:
    """
    The authority of this process's certificates.
    """
    return make_certificate("an authority")


@cache
def localhost() -> Certificate:
    """
    The certificate of a server on this machine.
    """
    return make_certificate("localhost", authority(), [x509.DNSName("localhost")])


def credentials(
    own: Certificate | None = None,
    ca: Certificate | None = None,
    tls: TLS | None = None,
) -> Credentials:
    """
    What files with these would contain.

    Args:
        own: The server's; None: `localhost`.
        ca: Whose certificates clients show, if they do.
        tls: How they do.
    """
    own = own or localhost()
    tls = tls or TLS("/cert.pem", "/key.pem", None if ca is None else "/ca.pem")
    return Credentials(
        tls, own.cert_pem, own.key_pem, "" if ca is None else ca.cert_pem, 0.0
    )
