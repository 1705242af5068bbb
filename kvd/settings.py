"""
The settings of one kvd, checked and frozen.

`kvd.options` makes them from the command line and the settings file; the fork
server and its workers receive them whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

Durability = Literal["disk", "process"]
"""
What a reply promises: the value survives a power cut, or a kill of kvd.
"""


ANY_HOST: Final = "*"
"""
Among `Settings.allowed_hosts`: whatever a request names.
"""

MAX_PROCS: Final = 4096
"""
Of the workers that may be asked for.
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
    Wherever systemd listens for kvd (`kvd.daemon.systemd.sockets`).
    """

    name: str
    """Of the sockets, their ``FileDescriptorName=``; empty: all of them."""

    def __str__(self) -> str:
        return f"systemd:{self.name}" if self.name else "systemd"


@dataclass(frozen=True, slots=True)
class Limits:
    """
    How much one client may ask of a worker.
    """

    head_bytes: int = 16 * 1024
    head_fields: int = 100
    target_bytes: int = 8 * 1024
    value_bytes: int | None = None
    """The longest value that is taken; None: as long as the store has room."""
    head_seconds: float = 10.0
    """From the first byte of a head to its last."""
    body_seconds: float = 60.0
    """A body may stand still for so long."""
    reader_seconds: float = 60.0
    """A client may take nothing of its reply for so long."""
    idle_seconds: float = 600.0
    """Between the end of a reply and the first byte of the next request."""
    connections: int = 8192
    """Open connections per worker; at the limit the listener waits."""


@dataclass(frozen=True, slots=True)
class User:
    """
    Whom this process will be.
    """

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Modes:
    """
    The permission bits of what a store makes, whatever the umask.
    """

    file: int = 0o644
    folder: int = 0o755


DEFAULT_MODES: Final = Modes()


@dataclass(frozen=True, slots=True)
class StoreLocation:
    """
    Where values live: which store plugin, and its own part of the setting.
    """

    scheme: str
    path: str

    def __str__(self) -> str:
        return f"{self.scheme}:{self.path}"


@dataclass(frozen=True, slots=True)
class DialectChoice:
    """
    Keys below a prefix are answered in a dialect.
    """

    prefix: str
    """As on the command line: begins with ``/``, percent-encoded."""
    name: str


@dataclass(frozen=True, slots=True)
class Settings:
    """
    Everything an operator can choose.
    """

    listen: tuple[Address | SystemdAddress, ...] = (TCPAddress("127.0.0.1", 8080),)
    store: StoreLocation = StoreLocation("file", "./values")
    policy: str = "gated"
    shadow: str | None = None
    """A policy that is asked beside it, and only counted."""
    procs: int = 1
    """Worker processes; 0: the twistd process itself serves."""
    durability: Durability = "disk"
    file_mode: int = DEFAULT_MODES.file
    folder_mode: int = DEFAULT_MODES.folder
    dialects: tuple[DialectChoice, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    """Names beside this machine's own by which loopback addresses may be asked: in
    small letters, without ports; or `ANY_HOST`."""
    access_log: str | None = None
    """An absolute path, ``-`` for standard output, or None."""
    record: str | None = None
    """The absolute path of a record of connections (`kvd.http.record`), or None."""
    splice: bool = True
    """Whether the kernel moves bodies to files (splice(2)) where it can."""
    fast_path: bool = True
    """Whether small requests are served by a compiled module where they can be."""
    control: str | None = "auto"
    """An absolute path, ``auto`` for `kvd.admin.control.places`, or None."""
    status: Address | None = None
    """Where the status site is."""
    drain_seconds: float = 10.0
    limits: Limits = field(default_factory=Limits)

    @property
    def modes(self) -> Modes:
        """
        Of what the store makes.
        """
        return Modes(self.file_mode, self.folder_mode)
