"""
Tests for `kvd.net.credentials`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)
from twisted.logger import LogEvent, capturedLogs, formatEvent

from kvd.errors import CredentialsUnusable
from kvd.net.credentials import (
    Expiry,
    credentials_of,
    expiries_of,
    pack,
    read_credentials,
    unpack,
    warn_of_dates,
)
from kvd.settings import (
    TLS,
    Address,
    Credentials,
    NamedCertificate,
    SystemdAddress,
    TCPAddress,
    UNIXAddress,
)
from tests.certificates import (
    HOUR,
    Certificate,
    authority,
    credentials,
    localhost,
    make_certificate,
    revoked_by,
)


@pytest.fixture
def tls(tmp_path: Path) -> TLS:
    """
    Files that can be used.
    """
    ca = tmp_path / "ca.pem"
    ca.write_text(authority().cert_pem)
    crl = tmp_path / "crl.pem"
    crl.write_text(revoked_by(authority()) + revoked_by(authority(), localhost()))
    names = tmp_path / "names"
    names.mkdir()
    named("one").write(names, "one")
    return replace(
        localhost().write(tmp_path, "cert"), ca=str(ca), crl=str(crl), names=str(names)
    )


def named(*names: str) -> Certificate:
    """
    A certificate for further names.
    """
    return make_certificate("x", authority(), [x509.DNSName(name) for name in names])


def test_what_the_files_contain_is_kept(tls: TLS) -> None:
    """
    Whatever becomes of them.
    """
    read = read_credentials(tls)
    Path(tls.key).unlink()

    assert (localhost().cert_pem, localhost().key_pem) == (read.cert, read.key)
    assert authority().cert_pem == read.ca
    assert Path(str(tls.crl)).read_text() == read.crl
    (one,) = read.named
    assert f"{tls.names}/one.pem" == one.path
    assert ("one",) == one.names
    assert Path(one.path).read_text() == one.cert
    assert Path(one.key_path).read_text() == one.key


def test_each_pair_of_files_is_read_once(tls: TLS) -> None:
    """
    For however many addresses; and none for those in plain.
    """
    addresses: list[Address | SystemdAddress] = [
        TCPAddress("127.0.0.1", 80),
        TCPAddress("127.0.0.1", 443, tls=tls),
        TCPAddress("::1", 443, tls=tls),
        UNIXAddress("/run/kvd"),
        SystemdAddress("web"),
        SystemdAddress("tls", tls=tls),
    ]

    assert [tls] == [each.tls for each in credentials_of(addresses)]


def test_one_file_may_have_both(tls: TLS) -> None:
    """
    As some programs want it.
    """
    path = Path(tls.key)
    path.write_text(localhost().cert_pem + localhost().key_pem)

    assert read_credentials(TLS(tls.key, tls.key)).cert == path.read_text()


def test_comments_may_be_in_any_encoding(tls: TLS) -> None:
    """
    As in bundles of authorities, which name them.
    """
    for path in (tls.cert, tls.key, str(tls.ca)):
        content = Path(path).read_bytes()
        Path(path).write_bytes("# Főtanúsítvány\n".encode() + content)

    assert "BEGIN CERTIFICATE" in read_credentials(tls).ca


def encrypted(tls: TLS) -> None:
    """
    The key has a passphrase.
    """
    pem = localhost().key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    Path(tls.key).write_bytes(pem)


def of_another(tls: TLS) -> None:
    """
    The key belongs to another certificate.
    """
    Path(tls.key).write_text(make_certificate("other").key_pem)


def not_their_own(tls: TLS) -> None:
    """
    The list is of another authority, of the same name.
    """
    other = make_certificate("an authority")
    Path(str(tls.crl)).write_text(revoked_by(authority()) + revoked_by(other))


def twice(tls: TLS) -> None:
    """
    Two certificates have a name in common.
    """
    named("two", "ONE").write(Path(str(tls.names)), "two")


def nameless(tls: TLS) -> None:
    """
    A certificate has no alternative name.
    """
    make_certificate("one").write(Path(str(tls.names)), "one")


def mixed_up(tls: TLS) -> None:
    """
    The key of a named certificate belongs to another one.
    """
    (Path(str(tls.names)) / "one.key").write_text(named("one").key_pem)


@pytest.mark.parametrize(
    ("reason", "spoil"),
    [
        ("{crl}, the revoked certificates, cannot be read: No such", "rm {crl}"),
        ("{crl} has no list of revoked certificates: a file", "cat {cert} > {crl}"),
        ("revoked certificates in {crl} cannot be used", "sed -i 3d {crl}"),
        ("{crl} is of none of the authorities in {ca}", not_their_own),
        ("{names}, the folder of certificates, cannot be read", "rm -r {names}"),
        ("{names} has no certificates: put each into a file", "rm {names}/*"),
        ("{names}/one.key, the private key, cannot be read", "rm {names}/*.key"),
        ("run chmod o= {names}/one.key", "chmod 604 {names}/one.key"),
        ("{names}/one.pem and {names}/two.pem both have a certificate for one", twice),
        ("the certificate in {names}/one.pem is for no host name", nameless),
        ("{names}/one.key does not belong to the certificate in {names}/", mixed_up),
        ("the certificate in {names}/one.pem cannot be", "sed -i 3d {names}/one.pem"),
        ("{cert}, the certificate, cannot be read: No such file", "rm {cert}"),
        ("{key}, the private key, cannot be read: No such file", "rm {key}"),
        ("{ca}, the authorities, cannot be read: No such file", "rm {ca}"),
        ("{cert}, the certificate, cannot be read", "rm {cert}; mkdir {cert}"),
        ("{cert}, the certificate, is not a file", "rm {cert}; mkfifo {cert}"),
        ("run chmod o= {key}", "chmod 604 {key}"),
        ("run chmod o= {key}", "chmod 602 {key}"),
        ("{cert} has no certificate: a file in PEM", "echo > {cert}"),
        ("{key} has no private key: a file in PEM", "cat {cert} > {key}"),
        ("{ca} has no certificate: a file in PEM", "cat {key} > {ca}"),
        ("decrypt it with openssl pkey", encrypted),
        ("{key} does not belong to the certificate in {cert}", of_another),
        ("{cert} and its private key in {key} cannot be used", "sed -i 3d {cert}"),
        ("{cert} and its private key in {key} cannot be used", "sed -i 3d {key}"),
        ("the authorities in {ca} cannot be used", "sed -i 3d {ca}"),
        ("{cert}, the certificate, has more than", "truncate -s 5M {cert}"),
    ],
)
def test_what_cannot_be_used_is_named(
    reason: str, spoil: str | Callable[[TLS], None], tls: TLS
) -> None:
    """
    The file, what is wrong with it, and what would be right.
    """
    files = dataclasses.asdict(tls)
    if isinstance(spoil, str):
        assert 0 == os.system(spoil.format(**files))
    else:
        spoil(tls)

    with pytest.raises(CredentialsUnusable) as caught:
        read_credentials(tls)

    assert reason.format(**files) in caught.value.sentence
    assert "MII" not in caught.value.sentence


def test_a_group_may_read_the_key(tls: TLS) -> None:
    """
    As it may in some distributions.
    """
    Path(tls.key).chmod(0o640)

    assert read_credentials(tls).key


def test_secrets_are_not_shown() -> None:
    """
    By whatever shows the settings.
    """
    shown = repr(credentials())

    assert "/key.pem" in shown
    assert "BEGIN" not in shown


def test_what_was_packed_is_unpacked() -> None:
    """
    In another process. Nothing in a file has to be ASCII.
    """
    packed = [
        credentials(),
        replace(credentials(ca=authority()), key="# \xe9\n", read=1.5, crl="list"),
        replace(
            credentials(),
            named=(
                NamedCertificate("/a.pem", ("a", "*.a"), "1", "2"),
                NamedCertificate("/b.crt", ("b",), "3", "4"),
            ),
        ),
    ]

    assert tuple(packed) == unpack(pack(packed))


def warnings(*used: Credentials) -> list[str]:
    """
    What is logged of some credentials.
    """
    events: list[LogEvent]
    with capturedLogs() as captured:
        warn_of_dates(used)
    events = list(captured)
    return [formatEvent(event) for event in events]


@pytest.mark.parametrize(
    ("expected", "since", "until"),
    [
        ([], -HOUR, HOUR),
        (["/cert.pem expired at "], -2 * HOUR, -HOUR),
        (["/cert.pem is valid from "], timedelta(days=1), timedelta(days=2)),
    ],
)
def test_a_certificate_that_is_not_valid_now_is_reported(
    expected: list[str], since: timedelta, until: timedelta
) -> None:
    """
    It is used all the same: the clock may be wrong.
    """
    used = credentials(make_certificate("localhost", None, since=since, until=until))

    for part, warning in zip(expected, warnings(used), strict=True):
        assert part in warning


def test_a_list_that_is_out_of_date_is_told() -> None:
    """
    Nobody who shows a certificate is served then. So is a named certificate that has
    expired.
    """
    files = TLS("/cert.pem", "/key.pem", "/ca.pem", crl="/crl.pem")
    lists = revoked_by(authority()) + revoked_by(authority(), until=-HOUR)
    expired = make_certificate("x", since=-2 * HOUR, until=-HOUR)
    used = replace(
        credentials(ca=authority(), tls=files),
        crl=lists,
        named=(NamedCertificate("/a.pem", ("a",), expired.cert_pem, "key"),),
    )

    (first, second) = warnings(used)
    assert "a list of revoked certificates in /crl.pem was to be replaced" in first
    assert "the certificate in /a.pem expired" in second


def test_when_what_clients_see_expires_is_known() -> None:
    """
    Of each file, also if several addresses have it: of an address's own certificate,
    not of those that signed it; of those for further names; of the list that is due
    first.
    """
    soon = make_certificate("x", until=timedelta(minutes=5))
    files = TLS("/cert.pem", "/key.pem", "/ca.pem", crl="/crl.pem")
    lists = revoked_by(authority()) + revoked_by(authority(), until=-HOUR)
    used = replace(
        credentials(ca=authority(), tls=files),
        cert=localhost().cert_pem + soon.cert_pem,
        crl=lists,
        named=(NamedCertificate("/a.pem", ("a",), soon.cert_pem, "key"),),
    )
    plain = replace(used, tls=TLS("/cert.pem", "/key.pem"), crl="", named=())
    until = revoked_by(authority(), until=-HOUR)
    due = x509.load_pem_x509_crl(until.encode()).next_update_utc

    found = {(each.path, each.kind): each for each in expiries_of((used, plain))}
    assert [
        ("/a.pem", "certificate"),
        ("/cert.pem", "certificate"),
        ("/crl.pem", "crl"),
    ] == sorted(found)
    for path, certificate in (("/cert.pem", localhost()), ("/a.pem", soon)):
        end = certificate.certificate.not_valid_after_utc
        assert (
            Expiry(path, "certificate", end.timestamp()) == (found[path, "certificate"])
        )
    assert due is not None
    assert abs(due.timestamp() - found["/crl.pem", "crl"].at) < 60
    assert () == expiries_of(())
