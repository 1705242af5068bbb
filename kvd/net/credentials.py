"""
The certificates, private keys and authorities of addresses that speak TLS.

They are read together with the settings, once, and checked at the same time. The
serving processes use what was read then: so a renewal that replaces one file before the
other does no harm, whichever process starts meanwhile.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from twisted.logger import Logger

from kvd.errors import CredentialsUnusable
from kvd.settings import (
    TLS,
    Address,
    Credentials,
    SystemdAddress,
    UNIXAddress,
    User,
)
from kvd.system.privileges import acting_as

MAX_FILE_BYTES = 4 * 1024 * 1024
"""
The authorities of all browsers are a quarter of a mebibyte.
"""

_CERTIFICATE = "-----BEGIN CERTIFICATE-----"
_KEY = "PRIVATE KEY-----"
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

    credentials = Credentials(
        tls,
        cert=_read(tls.cert, "the certificate"),
        key=_read_key(tls.key),
        ca="" if tls.ca is None else _read(tls.ca, "the authorities"),
        read=time.monotonic(),
    )
    if _CERTIFICATE not in credentials.cert:
        raise CredentialsUnusable(f"{tls.cert} has no certificate: {_PEM}")
    if _KEY not in credentials.key:
        raise CredentialsUnusable(f"{tls.key} has no private key: {_PEM}")
    if any(mark in credentials.key for mark in _ENCRYPTED):
        raise CredentialsUnusable(
            f"the private key in {tls.key} is encrypted, and nobody is there to give"
            " the passphrase when kvd starts: decrypt it with openssl pkey -in OLD -out"
            " NEW, and let only kvd's user read it"
        )
    if tls.ca is not None and _CERTIFICATE not in credentials.ca:
        raise CredentialsUnusable(f"{tls.ca} has no certificate: {_PEM}")
    make_context(credentials)
    return credentials


_PEM = "a file in PEM, the form with BEGIN and END lines, would be right"


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


def _read_key(path: str) -> str:
    return _read(path, "the private key", secret=True)


def warn_of_dates(all_credentials: Iterable[Credentials]) -> None:
    """
    Log a warning for each certificate that clients will not accept at present.
    """
    # Only in the process that starts kvd: it takes four mebibytes.
    from datetime import UTC, datetime

    from cryptography.x509 import load_pem_x509_certificate

    now = datetime.now(UTC)
    for credentials in all_credentials:
        # The first one is the address's own; those that signed it follow.
        certificate = load_pem_x509_certificate(credentials.cert.encode("latin-1"))
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        path = credentials.tls.cert
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
            for path in dict.fromkeys((tls.cert, tls.key, tls.ca)):
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
        return tuple(
            Credentials(TLS(**each.pop("tls")), **each) for each in json.load(file)
        )
