"""
The certificates, private keys and authorities of addresses that speak TLS.

They are read together with the settings, once, and checked at the same time. The
serving processes use what was read then: so a renewal that replaces one file before the
other does no harm, whichever process starts meanwhile.
"""

from __future__ import annotations

import json
import os
import re
import stat
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from twisted.logger import Logger

from kvd.errors import CredentialsUnusable
from kvd.settings import (
    TLS,
    Address,
    Credentials,
    NamedCertificate,
    SystemdAddress,
    UNIXAddress,
    User,
)
from kvd.system.privileges import acting_as

if TYPE_CHECKING:
    from cryptography.x509 import CertificateRevocationList

MAX_FILE_BYTES = 4 * 1024 * 1024
"""
The authorities of all browsers are a quarter of a mebibyte.
"""

_CERTIFICATE = "-----BEGIN CERTIFICATE-----"
_KEY = "PRIVATE KEY-----"
_LIST = re.compile("-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)
_ENCRYPTED = ("BEGIN ENCRYPTED PRIVATE KEY", "Proc-Type: 4,ENCRYPTED")

_log = Logger()


def credentials_of(
    addresses: Iterable[Address | SystemdAddress],
) -> tuple[Credentials, ...]:
    """
    Read the files of all addresses that speak TLS; see `read_credentials`.
    """
    files = [
        address.tls
        for address in addresses
        if not isinstance(address, UNIXAddress) and address.tls is not None
    ]
    return tuple(map(read_credentials, dict.fromkeys(files)))


def read_credentials(tls: TLS) -> Credentials:
    """
    Read the files of an address, and check that they can be used.

    Raises:
        CredentialsUnusable: They cannot; the sentence names the file.
    """
    # Only where there is TLS: nothing else of kvd uses it.
    from kvd.net.tls import make_context

    cert, key = _read_pair(tls.cert, tls.key)
    credentials = Credentials(
        tls,
        cert,
        key,
        ca="" if tls.ca is None else _read(tls.ca, "the authorities"),
        read=time.monotonic(),
        crl="" if tls.crl is None else _read(tls.crl, "the revoked certificates"),
        named=() if tls.names is None else _read_folder(tls.names),
    )
    if tls.ca is not None and _CERTIFICATE not in credentials.ca:
        raise CredentialsUnusable(f"{tls.ca} has no certificate: {_PEM}")
    if tls.crl is not None:
        _check_revoked(tls.crl, credentials)
    make_context(credentials)
    return credentials


_PEM = "a file in PEM, the form with BEGIN and END lines, would be right"


def _read_pair(cert_path: str, key_path: str) -> tuple[str, str]:
    cert = _read(cert_path, "the certificate")
    key = _read(key_path, "the private key", secret=True)
    if _CERTIFICATE not in cert:
        raise CredentialsUnusable(f"{cert_path} has no certificate: {_PEM}")
    if _KEY not in key:
        raise CredentialsUnusable(f"{key_path} has no private key: {_PEM}")
    if any(mark in key for mark in _ENCRYPTED):
        raise CredentialsUnusable(
            f"the private key in {key_path} is encrypted, and nobody is there to give"
            " the passphrase when kvd starts: decrypt it with openssl pkey -in OLD -out"
            " NEW, and let only kvd's user read it"
        )
    return cert, key


def _read_folder(folder: str) -> tuple[NamedCertificate, ...]:
    """
    Read the certificates for further names.
    """
    try:
        files = sorted(os.listdir(folder))
    except OSError as error:
        raise CredentialsUnusable(
            f"{folder}, the folder of certificates, cannot be read: {error.strerror}"
        ) from error
    found: list[NamedCertificate] = []
    whose: dict[str, str] = {}
    for file in files:
        base, extension = os.path.splitext(os.path.join(folder, file))
        if extension not in (".pem", ".crt"):
            continue
        path = base + extension
        cert, key = _read_pair(path, base + ".key")
        names = _names_in(path, cert)
        for name in names:
            if name in whose:
                raise CredentialsUnusable(
                    f"{whose[name]} and {path} both have a certificate for {name}:"
                    " remove one of them"
                )
            whose[name] = path
        found.append(NamedCertificate(path, names, cert, key))
    if not found:
        raise CredentialsUnusable(
            f"{folder} has no certificates: put each into a file NAME.pem or NAME.crt,"
            " and its private key into NAME.key"
        )
    return tuple(found)


def _names_in(path: str, cert: str) -> tuple[str, ...]:
    # As in `warn_of_dates`.
    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificate(cert.encode("latin-1"))
        extension = certificate.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
        names = extension.value.get_values_for_type(x509.DNSName)
    except ValueError as error:
        raise CredentialsUnusable(
            f"the certificate in {path} cannot be used: {error}"
        ) from error
    except x509.ExtensionNotFound:
        names = []
    if not names:
        raise CredentialsUnusable(
            f"the certificate in {path} is for no host name, so no client would get it:"
            " its alternative names (subjectAltName) have to name one"
        )
    return tuple(dict.fromkeys(name.lower() for name in names))


def _lists_in(path: str, text: str) -> list[CertificateRevocationList]:
    """
    The lists in a file.
    """
    from cryptography.x509 import load_pem_x509_crl

    try:
        return [
            load_pem_x509_crl(block[0].encode("latin-1"))
            for block in _LIST.finditer(text)
        ]
    except ValueError as error:
        raise CredentialsUnusable(
            f"the list of revoked certificates in {path} cannot be used: {error}"
        ) from error


def _check_revoked(path: str, credentials: Credentials) -> None:
    """
    Check that each list is of an authority whose certificates clients show.
    """
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.x509 import load_pem_x509_certificates

    lists = _lists_in(path, credentials.crl)
    if not lists:
        raise CredentialsUnusable(
            f"{path} has no list of revoked certificates: {_PEM}, as openssl ca -gencrl"
            " writes it"
        )
    try:
        authorities = load_pem_x509_certificates(credentials.ca.encode("latin-1"))
    except ValueError:
        # OpenSSL may know more of them, and says what is wrong.
        return
    for each in lists:
        keys = [one.public_key() for one in authorities if one.subject == each.issuer]
        try:
            is_signed = any(each.is_signature_valid(key) for key in keys)  # type: ignore[arg-type]
        except (InvalidSignature, UnsupportedAlgorithm, TypeError):
            is_signed = False
        if not is_signed:
            raise CredentialsUnusable(
                f"a list of revoked certificates in {path} is of none of the"
                f" authorities in {credentials.tls.ca}"
            )


def _read(path: str, what: str, *, secret: bool = False) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise CredentialsUnusable(f"{path}, {what}, is not a file")
            if secret and status.st_mode & stat.S_IRWXO:
                raise CredentialsUnusable(
                    f"every user of this machine can read {path}, {what}: run chmod"
                    f" o= {path}, and make a new one if others may have seen it"
                )
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise CredentialsUnusable(
            f"{path}, {what}, cannot be read: {error.strerror}"
        ) from error
    if len(data) > MAX_FILE_BYTES:
        raise CredentialsUnusable(
            f"{path}, {what}, has more than {MAX_FILE_BYTES} bytes"
        )
    # Comments between the blocks may be in any encoding.
    return data.decode("latin-1")


@dataclass(frozen=True, slots=True)
class Expiry:
    """
    Until when the contents of a file are good.
    """

    path: str
    kind: Literal["certificate", "crl"]
    at: float
    """In seconds since the epoch. Clients refuse the certificate from then on, or kvd
    refuses clients, as a list of revoked certificates was to be replaced by then."""


@lru_cache(maxsize=1)
def expiries_of(all_credentials: tuple[Credentials, ...]) -> tuple[Expiry, ...]:
    """
    Until when the certificates and the lists of revoked ones are good, by their files.

    The address's own certificate counts, not those of its authorities; of several lists
    in a file, the one that is due first.
    """
    if not all_credentials:
        # Loads nothing.
        return ()
    # The status is asked for each second, and a folder may have many certificates: so
    # the answer is remembered, until other files are read.
    from cryptography.x509 import load_pem_x509_certificate

    found: dict[str, Expiry] = {}
    for path, cert in _certificates_in(all_credentials).items():
        end = load_pem_x509_certificate(cert.encode("latin-1")).not_valid_after_utc
        found[path] = Expiry(path, "certificate", end.timestamp())
    for credentials in all_credentials:
        crl = credentials.tls.crl
        due = [
            each.next_update_utc.timestamp()
            for each in ([] if crl is None else _lists_in(crl, credentials.crl))
            if each.next_update_utc is not None
        ]
        if crl is not None and due:
            found[crl] = Expiry(crl, "crl", min(due))
    return tuple(found.values())


def _certificates_in(all_credentials: Iterable[Credentials]) -> dict[str, str]:
    """
    The certificates of kvd by their files. In each, the first one is the address's own;
    those that signed it follow.
    """
    certs: dict[str, str] = {}
    for credentials in all_credentials:
        certs[credentials.tls.cert] = credentials.cert
        certs |= {each.path: each.cert for each in credentials.named}
    return certs


def warn_of_dates(all_credentials: Sequence[Credentials]) -> None:
    """
    Log a warning for each certificate that clients will not accept at present, and for
    each list of revoked certificates that is out of date.
    """
    # Only in the process that starts kvd: it takes four mebibytes.
    from datetime import UTC, datetime

    from cryptography.x509 import load_pem_x509_certificate

    now = datetime.now(UTC)
    for credentials in all_credentials:
        crl = credentials.tls.crl
        for each in [] if crl is None else _lists_in(crl, credentials.crl):
            following = each.next_update_utc
            if following is not None and now > following:
                _log.warn(
                    "a list of revoked certificates in {path} was to be replaced by"
                    " {end}: until it is, and kvd gets SIGHUP, all clients that show a"
                    " certificate are refused",
                    path=crl,
                    end=f"{following:%Y-%m-%d %H:%M:%S} UTC",
                )
    for path, cert in _certificates_in(all_credentials).items():
        certificate = load_pem_x509_certificate(cert.encode("latin-1"))
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if now > end:
            _log.warn(
                "the certificate in {path} expired at {end}: clients refuse it;"
                " replace it, and send kvd SIGHUP",
                path=path,
                end=f"{end:%Y-%m-%d %H:%M:%S} UTC",
            )
        elif now < begin:
            _log.warn(
                "the certificate in {path} is valid from {begin} on: until then clients"
                " refuse it, or the clock of this machine is wrong",
                path=path,
                begin=f"{begin:%Y-%m-%d %H:%M:%S} UTC",
            )


def warn_of_access(all_credentials: Iterable[Credentials], user: User | None) -> None:
    """
    Log a warning for each file that kvd can read now, but not again on SIGHUP.

    Args:
        user: The user that this process will run as; None: it stays as it is.
    """
    with acting_as(user):
        for credentials in all_credentials:
            tls = credentials.tls
            named = [
                path
                for each in credentials.named
                for path in (each.path, each.key_path)
            ]
            paths = (tls.cert, tls.key, tls.ca, tls.crl, tls.names, *named)
            for path in dict.fromkeys(paths):
                if path is None or os.access(path, os.R_OK, effective_ids=True):
                    continue
                _log.warn(
                    "the user that kvd will run as cannot read {path}: it is used as it"
                    " is now, and SIGHUP cannot renew it",
                    path=path,
                )


def pack(all_credentials: Sequence[Credentials]) -> int:
    """
    Write credentials into a file in memory.

    Returns:
        Its descriptor, which the caller owns.

    Raises:
        OSError: There is no memory, or no descriptor.
    """
    descriptor = os.memfd_create("kvd-credentials", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "w", encoding="ascii", closefd=False) as file:
            json.dump([asdict(credentials) for credentials in all_credentials], file)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def unpack(descriptor: int) -> tuple[Credentials, ...]:
    """
    Read what `pack` has written.

    Args:
        descriptor: Owned by this.
    """
    with open(descriptor, encoding="ascii") as file:
        file.seek(0)
        return tuple(map(_unpacked, json.load(file)))


def _unpacked(fields: dict[str, Any]) -> Credentials:
    named = tuple(
        NamedCertificate(**each | {"names": tuple(each["names"])})
        for each in fields.pop("named")
    )
    return Credentials(TLS(**fields.pop("tls")), named=named, **fields)
