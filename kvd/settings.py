"""
The settings of a daemon, checked and frozen.

`kvd.options` makes them from the command line and the settings file; the fork server
and its workers receive all of them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import unquote_to_bytes

Durability = Literal["disk", "process"]
"""
What a reply promises: ``disk``, the value survives a power cut; ``process``, it
survives a kill of kvd.
"""

Full = Literal["refuse", "evict"]
"""
What happens to an upload that finds no room: ``refuse``, it is refused; ``evict``,
other values are removed.
"""


LogFormat = Literal["plain", "json"]
"""
How the daemon's log is written: as lines of text, or as an object of JSON for each
event.
"""

ANY_HOST: Final = "*"
"""
In `Settings.allowed_hosts`: any host.
"""

MAX_PROCS: Final = 4096
"""
The largest number of workers.
"""


@dataclass(frozen=True, slots=True)
class TLS:
    """
    How an address speaks TLS. All paths are absolute, and their files are in PEM.
    """

    cert: str
    """The certificate, and those that lead from it to an authority."""
    key: str
    """Its private key; may be the same file."""
    ca: str | None = None
    """The authorities whose certificates clients show; None: clients show none."""
    clients: Literal["required", "optional"] = "required"
    """Whether clients have to show a certificate, where there are authorities."""
    crl: str | None = None
    """What these authorities have revoked; None: nothing."""
    names: str | None = None
    """A folder of further certificates, for clients that ask for other names (SNI):
    each in a file ``ANYTHING.pem`` or ``ANYTHING.crt``, its private key in
    ``ANYTHING.key``."""


@dataclass(frozen=True, slots=True)
class NamedCertificate:
    """
    A certificate for clients that ask for one of its names.
    """

    path: str
    names: tuple[str, ...]
    """In small letters; ``*`` as the first label stands for any label."""
    cert: str = field(repr=False)
    key: str = field(repr=False)

    @property
    def key_path(self) -> str:
        """
        Of the file of the private key, in the same folder.
        """
        return os.path.splitext(self.path)[0] + ".key"


@dataclass(frozen=True, slots=True)
class Credentials:
    """
    What the files of an address that speaks TLS contained when the settings were read.
    Not shown by ``repr``, since there is a private key among them.
    """

    tls: TLS
    """The files."""
    cert: str = field(repr=False)
    key: str = field(repr=False)
    ca: str = field(repr=False)
    """Empty if there is no such file."""
    read: float = field(repr=False)
    """When they were read, by the monotonic clock. So settings that were read anew
    differ, and workers with new keys for session tickets replace those so far."""
    crl: str = field(default="", repr=False)
    """Empty if there is no such file."""
    named: tuple[NamedCertificate, ...] = ()
    """What the folder has."""


@dataclass(frozen=True, slots=True)
class TCPAddress:
    """
    A TCP address to listen on.
    """

    interface: str
    """A numeric IPv4 or IPv6 address; never empty."""
    port: int
    """0 lets the kernel choose."""
    backlog: int = 4096
    tls: TLS | None = None
    """None: plain HTTP."""
    proxy: bool = False
    """Whether connections begin with the header of a proxy
    (`kvd.net.proxy_header`)."""

    def __str__(self) -> str:
        scheme = "http" if self.tls is None else "https"
        if ":" in self.interface:
            return f"{scheme}://[{self.interface}]:{self.port}"
        return f"{scheme}://{self.interface}:{self.port}"


@dataclass(frozen=True, slots=True)
class UNIXAddress:
    """
    A Unix socket to listen on.
    """

    path: str
    """Absolute."""
    mode: int = 0o660
    """The permission bits of the socket's file."""
    backlog: int = 4096
    proxy: bool = False
    """See `TCPAddress`."""

    def __str__(self) -> str:
        return f"unix:{self.path}"


Address = TCPAddress | UNIXAddress


@dataclass(frozen=True, slots=True)
class SystemdAddress:
    """
    The sockets on which systemd listens for kvd (`kvd.daemon.systemd.sockets`).
    """

    name: str
    """The ``FileDescriptorName=`` of the sockets; empty: all sockets."""
    tls: TLS | None = None
    """None: plain HTTP."""
    proxy: bool = False
    """See `TCPAddress`."""

    def __str__(self) -> str:
        return f"systemd:{self.name}" if self.name else "systemd"


@dataclass(frozen=True, slots=True)
class Limits:
    """
    Limits for clients.
    """

    head_bytes: int = 16 * 1024
    head_fields: int = 100
    target_bytes: int = 8 * 1024
    value_bytes: int | None = None
    """The size of the largest value; None: as much as the store has room for."""
    head_seconds: float = 10.0
    """From the first byte of a head to its last."""
    body_seconds: float = 60.0
    """The longest pause within a body."""
    upload_seconds: float | None = 86400.0
    """How long an upload that can be resumed is kept after its last byte; None: no
    upload can be resumed."""
    reader_seconds: float = 60.0
    """The longest time in which a client takes nothing of its reply."""
    idle_seconds: float = 600.0
    """Between the end of a reply and the first byte of the next request."""
    connections: int = 8192
    """Open connections per worker; at the limit the worker stops accepting."""
    address_connections: int | None = None
    """Open connections of one address, at all workers; further ones are refused. None:
    as many as of all addresses."""
    address_rate: int | None = None
    """Requests per second of one address, over all workers; None: as many as come."""


@dataclass(frozen=True, slots=True)
class User:
    """
    The user and group that this process will run as.
    """

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Modes:
    """
    The permission bits of the files and folders that a store creates, whatever the
    umask.
    """

    file: int = 0o644
    folder: int = 0o755


DEFAULT_MODES: Final = Modes()


@dataclass(frozen=True, slots=True)
class StoreLocation:
    """
    The store plugin, and the location of its values.
    """

    scheme: str
    path: str

    def __str__(self) -> str:
        return f"{self.scheme}:{self.path}"


@dataclass(frozen=True, slots=True)
class DialectChoice:
    """
    The dialect for the keys below a prefix.
    """

    prefix: str
    """As on the command line: begins with ``/``, percent-encoded."""
    name: str


_NEAR_FREE_SHARE: Final = 100
"""
One part in so many of a near cache's size stays free on its disk.
"""


@dataclass(frozen=True, slots=True)
class NearCache:
    """
    A cache on a disk of this machine, in front of the store (`kvd.near`).
    """

    store: StoreLocation
    max_size: int
    """How many bytes it may take."""
    fresh_seconds: float
    """How long the store is not asked again whether a value is still the same."""
    stale_seconds: float = 0.0
    """How much longer a value is given, if the store cannot be asked."""

    def __str__(self) -> str:
        text = f"{self.store}?max-size={self.max_size}&fresh={self.fresh_seconds:g}s"
        return f"{text}&stale={self.stale_seconds:g}s" if self.stale_seconds else text


ANY_ORIGIN: Final = "*"
"""
In `CorsChoice.origins`: any origin.
"""


@dataclass(frozen=True, slots=True)
class CorsChoice:
    """
    The origins whose pages may use the keys below a prefix.
    """

    prefix: str
    """As in `DialectChoice`."""
    origins: tuple[str, ...]
    """As in ``Origin``, such as ``https://app.example``; or `ANY_ORIGIN`."""


@dataclass(frozen=True, slots=True)
class RightsFile:
    """
    The rights file, as it was when the settings were read (`kvd.access.rights_file`).
    """

    path: str
    """Absolute."""
    text: str = field(default="", repr=False)
    """All of it. It has secrets, and may be long: the fork server gets it in a
    descriptor of its own."""


@dataclass(frozen=True, slots=True)
class QuotaChoice:
    """
    A limit for the keys below a prefix.
    """

    prefix: str
    """As on the command line: begins with ``/``, percent-encoded."""
    max_size: int | None
    """None: none beside that of the whole store."""
    full: Full | None
    """None: as for the whole store."""
    ttl_seconds: float | None
    """None: as for the whole store."""


@dataclass(frozen=True, slots=True)
class Quota:
    """
    A limit for the keys below a prefix, as the store keeps it.
    """

    prefix: bytes
    """Percent-decoded, without the first slash; empty: the whole store."""
    max_size: int | None
    """How many bytes the values may take; None: there is no limit."""
    evicts: bool
    """Whether the values that were read or written least recently are removed to make
    room; otherwise uploads are refused."""
    ttl_seconds: float | None
    """How long after its publication a value is removed; None: never."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """
    All limits of a store.
    """

    quotas: tuple[Quota, ...]
    """The first is that of the whole store; the prefixes of the others do not
    overlap."""
    min_free: int
    """How many bytes of the file system stay free."""


@dataclass(frozen=True, slots=True)
class Settings:
    """
    All settings.
    """

    listen: tuple[Address | SystemdAddress, ...] = (TCPAddress("127.0.0.1", 8080),)
    credentials: tuple[Credentials, ...] = ()
    """Of the addresses that speak TLS."""
    store: StoreLocation = StoreLocation("file", "./values")
    fallback_store: StoreLocation | None = None
    """Where values are read that the store does not have, while they are moved to it
    (`kvd.moving`)."""
    near: NearCache | None = None
    policy: str = "gated"
    shadow: str | None = None
    """A policy whose decisions are only counted, for comparison."""
    procs: int = 1
    """Worker processes; 0: the twistd process itself serves."""
    durability: Durability = "disk"
    file_mode: int = DEFAULT_MODES.file
    folder_mode: int = DEFAULT_MODES.folder
    max_size: int | None = None
    """How many bytes all values may take."""
    min_free: int | None = None
    """How many bytes of the store's file system stay free."""
    full: Full = "refuse"
    ttl_seconds: float | None = None
    quotas: tuple[QuotaChoice, ...] = ()
    dialects: tuple[DialectChoice, ...] = ()
    keep_fields: tuple[str, ...] = ()
    """The names of fields that are stored with values, in lower case; a ``*`` at the
    end stands for any characters."""
    guess_types: bool = False
    """Whether a value without a type is given the one that its key suggests."""
    allowed_hosts: tuple[str, ...] = ()
    """Host names, beside this machine's own, that requests to loopback addresses may
    have: in lower case, without ports; or `ANY_HOST`."""
    cors: tuple[CorsChoice, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    """Who is believed what it says of the clients of requests and connections:
    networks, and ``unix`` for whoever connects to a Unix socket."""
    forwarded_field: str = "x-forwarded-for"
    """The field in which proxies name the client of a request, in lower case."""
    users: RightsFile | None = None
    """Who may do what; None: every client may do everything."""
    access_log: str | None = None
    """An absolute path, ``-`` for standard output, or None."""
    access_log_format: str = "plain"
    """One of `kvd.http.access_formats.FORMATS`."""
    log_format: LogFormat = "plain"
    record: str | None = None
    """The absolute path of a record of connections (`kvd.http.record`), or None."""
    splice: bool = True
    """Whether the kernel moves bodies to files (splice(2)) where possible."""
    fast_path: bool = True
    """Whether the compiled fast path serves small requests where possible."""
    browser: bool = True
    """Whether browsers get a page in place of a plain listing."""
    control: str | None = "auto"
    """An absolute path, ``auto`` for `kvd.admin.control.locations`, or None."""
    status: Address | None = None
    """The address of the status site; None: there is none."""
    drain_seconds: float = 10.0
    hang_seconds: float = 30.0
    """How long a worker may make no turn of its reactor before it is replaced."""
    limits: Limits = field(default_factory=Limits)

    @property
    def modes(self) -> Modes:
        """
        The permissions of the files and folders that the store creates.
        """
        return Modes(self.file_mode, self.folder_mode)

    @property
    def bounded_store(self) -> StoreLocation:
        """
        The store that `bounds` are about.
        """
        return self.store if self.near is None else self.near.store

    @property
    def bounds(self) -> Bounds | None:
        """
        The limits of the near cache, or of the store if there is no such cache; None:
        it has none.
        """
        if self.near is not None:
            size = self.near.max_size
            # Without free space a cache on a full disk would keep what it has for ever.
            return Bounds((Quota(b"", size, True, None),), size // _NEAR_FREE_SHARE)
        everything = Quota(b"", self.max_size, self.full == "evict", self.ttl_seconds)
        if not self.quotas and (None,) * 3 == (
            self.max_size,
            self.min_free,
            self.ttl_seconds,
        ):
            return None
        quotas = [
            Quota(
                unquote_to_bytes(choice.prefix)[1:],
                choice.max_size,
                (choice.full or self.full) == "evict",
                self.ttl_seconds if choice.ttl_seconds is None else choice.ttl_seconds,
            )
            for choice in self.quotas
        ]
        return Bounds((everything, *quotas), self.min_free or 0)
