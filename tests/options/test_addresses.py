"""
Addresses to listen on, as an operator writes them.
"""

import os

import pytest

from kvd.errors import BadSetting
from kvd.options.addresses import (
    MAX_UNIX_PATH_BYTES,
    read_address,
    read_listen,
    read_status,
)
from kvd.settings import TLS, SystemdAddress, TCPAddress, UNIXAddress


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        (TCPAddress("0.0.0.0", 8080), "tcp:8080"),
        (TCPAddress("0.0.0.0", 0), "tcp:0"),
        (TCPAddress("127.0.0.1", 65535), "tcp:65535:interface=127.0.0.1"),
        (TCPAddress("::1", 80), r"tcp:80:interface=\:\:1"),
        (TCPAddress("::1", 80), "tcp:80:interface=[::1]"),
        (TCPAddress("::", 80, 7), "tcp:80:interface=[::]:backlog=7"),
        (TCPAddress("fe80::1%eth0", 80), "tcp:80:interface=[fe80::1%eth0]"),
        (TCPAddress("127.0.0.1", 80, 7), "tcp:80:backlog=7:interface=127.0.0.1"),
        (TCPAddress("::1", 80), "tcp:80:interface=::1"),
        (TCPAddress("::", 80, 7), "tcp:80:interface=:::backlog=7"),
        (TCPAddress("fe80::1%eth0", 80), "tcp:80:interface=fe80::1%eth0"),
        (TCPAddress("127.0.0.1", 8080), "127.0.0.1:8080"),
        (TCPAddress("0.0.0.0", 8080, 7), "0.0.0.0:8080:backlog=7"),
        (TCPAddress("::1", 8080), "[::1]:8080"),
        (TCPAddress("0.0.0.0", 80, proxy=True), "tcp:80:proxy=1"),
        (TCPAddress("0.0.0.0", 80), "tcp:80:proxy=0"),
        (TCPAddress("127.0.0.1", 80, proxy=True), "127.0.0.1:80:proxy=1"),
    ],
)
def test_tcp_addresses(expected: TCPAddress, text: str) -> None:
    """
    A port, a numeric interface or none, and a backlog or none.
    """
    assert expected == read_address(text)


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        (UNIXAddress("/run/kvd"), "unix:/run/kvd"),
        (UNIXAddress("/run/kvd", 0o600), "unix:/run/kvd:mode=600"),
        (UNIXAddress("/run/kvd", 0o666, 5), "unix:/run/kvd:backlog=5:mode=0666"),
        (UNIXAddress("/run/a:b"), r"unix:/run/a\:b"),
        (UNIXAddress("/run/a\\b"), r"unix:/run/a\\b"),
        (UNIXAddress("/run/a=b"), "unix:/run/a=b"),
        (UNIXAddress(f"{os.getcwd()}/kvd"), "unix:./kvd"),
        (UNIXAddress("/run/kvd", proxy=True), "unix:/run/kvd:proxy=1"),
    ],
)
def test_unix_addresses(expected: UNIXAddress, text: str) -> None:
    """
    A path, made absolute, and permissions and a backlog or none.
    """
    assert expected == read_address(text)


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("is not an address: give tcp:PORT", ""),
        ("is not an address: give tcp:PORT", "8080"),
        ("is not an address: give tcp:PORT", "http://example.org/"),
        ("is not an address: give tcp:PORT", "TCP:8080"),
        ("is not an address: give tcp:PORT", "ssl:443"),
        ("has no port", "tcp"),
        ("has no port", "tcp:"),
        ("'x' is not a TCP port: give a whole number from 0 to 65535", "tcp:x"),
        ("'65536' is not a TCP port", "tcp:65536"),
        ("'-1' is not a TCP port", "tcp:-1"),
        ("'127.0.0.1' is not of the form name=value", "tcp:80:127.0.0.1"),
        ("'localhost' is not a numeric address", "tcp:80:interface=localhost"),
        ("'' is not a numeric address", "tcp:80:interface="),
        ("'256.0.0.1' is not a numeric address", "tcp:80:interface=256.0.0.1"),
        ("'::x' is not a numeric address", "tcp:80:interface=::x"),
        ("'256.0.0.1' is not a numeric address", "256.0.0.1:80"),
        ("'65536' is not a TCP port", "127.0.0.1:65536"),
        (
            "did you mean 127.0.0.1:8080 (this machine only) or tcp:8080 (all",
            "8080",
        ),
        ("did you mean [::1]:8080?", "::1:8080"),
        ("did you mean [::1]:8080?", "::1"),
        ("did you mean 127.0.0.1:8080?", "127.0.0.1"),
        ("did you mean 127.0.0.1:8080?", "localhost:8080"),
        ("did you mean 127.0.0.1:8080?", "http://localhost:8080/"),
        ("did you mean tcp:8080 (all interfaces)?", ":8080"),
        ("did you mean tcp:8080 (all interfaces)?", "*:8080"),
        ("did you mean unix:/run/kvd.socket?", "/run/kvd.socket"),
        ("did you mean tcp:8080?", "TCP:8080"),
        ("did you mean 'interface'", "tcp:80:interfaces=127.0.0.1"),
        ("interface and backlog", "tcp:80:mode=660"),
        ("backlog is given twice", "tcp:80:backlog=1:backlog=2"),
        ("'0' is not a number of waiting connections", "tcp:80:backlog=0"),
        ("ends with a backslash", "tcp:80\\"),
        ("has no path", "unix"),
        ("has no path", "unix:"),
        ("three octal digits", "unix:/run/kvd:mode=rw"),
        ("three octal digits", "unix:/run/kvd:mode=888"),
        ("mode and backlog", "unix:/run/kvd:interface=127.0.0.1"),
        ("at most 107 bytes without NUL", "unix:/run/\0"),
        ("give proxy=1 if connections begin with", "tcp:80:proxy=on"),
        ("did you mean 'proxy'", "unix:/run/kvd:proxies=1"),
    ],
)
def test_other_addresses_are_refused(reason: str, text: str) -> None:
    """
    Each mistake has its own reason, and the text is quoted.
    """
    with pytest.raises(BadSetting) as caught:
        read_address(text)

    assert reason in caught.value.sentence
    assert repr(text) in caught.value.sentence


def test_the_status_site_may_be_a_bare_port() -> None:
    """
    It is on the loopback interface.
    """
    assert TCPAddress("127.0.0.1", 8081, 7) == read_status("8081:backlog=7")


def test_the_status_site_is_behind_no_proxy() -> None:
    """
    The refusal says what to leave out.
    """
    with pytest.raises(BadSetting, match="does not speak the PROXY protocol: leave"):
        read_status("tcp:8081:proxy=1")


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        (SystemdAddress("", proxy=True), "systemd:proxy=1"),
        (SystemdAddress("kvd.socket", proxy=True), "systemd:kvd.socket:proxy=1"),
        (
            SystemdAddress("web", TLS("/a", "/a"), proxy=True),
            "systemd:web:cert=/a:proxy=1",
        ),
        (
            TCPAddress("0.0.0.0", 443, tls=TLS("/a", "/b"), proxy=True),
            "tls:443:cert=/a:key=/b:proxy=1",
        ),
    ],
)
def test_other_addresses_behind_proxies(expected: object, text: str) -> None:
    """
    Sockets of systemd, and TLS.
    """
    assert expected == read_listen(text)


def test_a_unix_path_has_to_fit_the_kernel() -> None:
    """
    The longest path is accepted; one byte more is refused with the limit.
    """
    longest = "/" + "x" * (MAX_UNIX_PATH_BYTES - 1)

    assert UNIXAddress(longest) == read_address(f"unix:{longest}")
    with pytest.raises(BadSetting, match="at most 107 bytes"):
        read_address(f"unix:{longest}x")


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        (SystemdAddress(""), "systemd"),
        (SystemdAddress("web"), "systemd:web"),
        (SystemdAddress("kvd.socket"), "systemd:kvd.socket"),
    ],
)
def test_clients_may_come_through_systemds_sockets(
    expected: SystemdAddress, text: str
) -> None:
    """
    The sockets of a name, or all.
    """
    assert expected == read_listen(text)
    assert text == str(expected)


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        (
            TCPAddress("0.0.0.0", 8443, tls=TLS("/c", "/k")),
            "tls:8443:cert=/c:key=/k",
        ),
        (TCPAddress("0.0.0.0", 8443, tls=TLS("/both", "/both")), "tls:8443:cert=/both"),
        (
            TCPAddress("::1", 443, 7, TLS("/c:d", "/k", "/ca", "optional")),
            r"tls:443:interface=[::1]:cert=/c\:d:key=/k:ca=/ca:clients=optional:backlog=7",
        ),
        (
            TCPAddress("0.0.0.0", 443, tls=TLS("/c", "/k", "/ca", "required")),
            "tls:443:cert=/c:key=/k:ca=/ca",
        ),
        (
            TCPAddress("0.0.0.0", 443, tls=TLS(f"{os.getcwd()}/c", f"{os.getcwd()}/k")),
            "tls:443:cert=c:key=./k",
        ),
        (
            TCPAddress(
                "0.0.0.0", 443, tls=TLS("/c", "/k", "/ca", crl="/crl", names="/names")
            ),
            "tls:443:cert=/c:key=/k:ca=/ca:crl=/crl:names=/names",
        ),
        (SystemdAddress("web", TLS("/c", "/k")), "systemd:web:cert=/c:key=/k"),
        (SystemdAddress("", TLS("/c", "/c")), "systemd:cert=/c"),
        (SystemdAddress("a=b"), "systemd:a=b"),
    ],
)
def test_an_address_may_speak_tls(
    expected: TCPAddress | SystemdAddress, text: str
) -> None:
    """
    With files whose paths are made absolute.
    """
    assert expected == read_listen(text)


def test_an_address_that_speaks_tls_says_so() -> None:
    """
    In the log, and wherever else it is shown.
    """
    assert "https://[::1]:443" == str(TCPAddress("::1", 443, tls=TLS("/c", "/k")))


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("has no port: give tls:PORT:cert=FILE", "tls"),
        ("there is no certificate: give tls:PORT:cert=FILE", "tls:8443"),
        ("there is no certificate", "tls:8443:key=/k"),
        ("there is no certificate", "tls:8443:cert="),
        ("there is no certificate", "systemd:web:key=/k"),
        ("clients=some says nothing", "tls:8443:cert=/c:ca=/ca:clients=some"),
        ("clients=optional needs ca=FILE", "tls:8443:cert=/c:clients=optional"),
        ("needs ca=FILE, with the authorities", "tls:8443:cert=/c:crl=/crl"),
        ("did you mean 'cert'?", "tls:8443:certs=/c"),
        ("TLS has addresses of its own", "tcp:8443:cert=/c"),
        ("TLS has addresses of its own", "unix:/run/kvd:key=/k"),
        ("tls:PORT:cert=FILE:key=FILE", "ssl:8443"),
        ("there is no argument 'mode'", "systemd:cert=/c:mode=660"),
    ],
)
def test_other_addresses_for_tls_are_refused(reason: str, text: str) -> None:
    """
    With what would be right.
    """
    with pytest.raises(BadSetting) as caught:
        read_listen(text)

    assert reason in caught.value.sentence


def test_the_status_site_speaks_no_tls() -> None:
    """
    Nor is it told how to.
    """
    with pytest.raises(BadSetting, match="is not an address: give tcp:PORT"):
        read_status("tls:8443:cert=/c")


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("is not an address: give tcp:PORT", "systemed"),
        (" or systemd[:NAME]", "systemed"),
        ("does not name sockets of systemd", "systemd:"),
        ("does not name sockets of systemd", "systemd:a:b"),
        ("does not name sockets of systemd", "systemd:a\n"),
        ("has no port", "tcp:"),
    ],
)
def test_other_listening_addresses_are_refused(reason: str, text: str) -> None:
    """
    With examples that would be right.
    """
    with pytest.raises(BadSetting) as caught:
        read_listen(text)

    assert reason in caught.value.sentence
    assert repr(text) in caught.value.sentence


def test_a_written_address_can_be_read_by_people() -> None:
    """
    In a log, a TCP address is a URL that can be copied.
    """
    assert "http://127.0.0.1:80" == str(TCPAddress("127.0.0.1", 80))
    assert "http://[::1]:80" == str(TCPAddress("::1", 80))
    assert "unix:/run/kvd" == str(UNIXAddress("/run/kvd"))
