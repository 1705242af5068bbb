"""
The settings of a daemon, checked and frozen.

`kvd.options` makes them from the command line and the settings file; the fork server
and its workers receive all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

Durability = Literal["disk", "process"]
"""
What a reply promises: ``disk``, the value survives a power cut; ``process``, it
survives a kill of kvd.
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
class TCPAddress:
    """
    A TCP address to listen on.
    """

    interface: str
    """A numeric IPv4 or IPv6 address; never empty."""
    port: int
    """0 lets the kernel choose."""
    backlog: int = 4096

    def __str__(self) -> str:
        if ":" in self.interface:
            return f"http://[{self.interface}]:{self.port}"
        return f"http://{self.interface}:{self.port}"


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
    reader_seconds: float = 60.0
    """The longest time in which a client takes nothing of its reply."""
    idle_seconds: float = 600.0
    """Between the end of a reply and the first byte of the next request."""
    connections: int = 8192
    """Open connections per worker; at the limit the worker stops accepting."""
    address_connections: int | None = None
    """Open connections of one address per worker; further ones are refused. None: as
    many as of all addresses."""
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
class Settings:
    """
    All settings.
    """

    listen: tuple[Address | SystemdAddress, ...] = (TCPAddress("127.0.0.1", 8080),)
    store: StoreLocation = StoreLocation("file", "./values")
    policy: str = "gated"
    shadow: str | None = None
    """A policy whose decisions are only counted, for comparison."""
    procs: int = 1
    """Worker processes; 0: the twistd process itself serves."""
    durability: Durability = "disk"
    file_mode: int = DEFAULT_MODES.file
    folder_mode: int = DEFAULT_MODES.folder
    dialects: tuple[DialectChoice, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    """Host names, beside this machine's own, that requests to loopback addresses may
    have: in lower case, without ports; or `ANY_HOST`."""
    cors: tuple[CorsChoice, ...] = ()
    users: RightsFile | None = None
    """Who may do what; None: every client may do everything."""
    access_log: str | None = None
    """An absolute path, ``-`` for standard output, or None."""
    record: str | None = None
    """The absolute path of a record of connections (`kvd.http.record`), or None."""
    splice: bool = True
    """Whether the kernel moves bodies to files (splice(2)) where possible."""
    fast_path: bool = True
    """Whether the compiled fast path serves small requests where possible."""
    control: str | None = "auto"
    """An absolute path, ``auto`` for `kvd.admin.control.locations`, or None."""
    status: Address | None = None
    """The address of the status site; None: there is none."""
    drain_seconds: float = 10.0
    limits: Limits = field(default_factory=Limits)

    @property
    def modes(self) -> Modes:
        """
        The permissions of the files and folders that the store creates.
        """
        return Modes(self.file_mode, self.folder_mode)
