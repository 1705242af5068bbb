"""
What is measured, and the targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bench.loads import Load
from bench.servers import CServer, Kvd, Nginx, Server

LARGE: Final = 40_000_000
SMALL: Final = 4096


@dataclass(frozen=True)
class Contender:
    """
    A server under a load.
    """

    name: str
    server: Server
    load: Load | None = None
    """Another load than the workload's."""


@dataclass(frozen=True)
class Targets:
    """
    The ratios that kvd is to reach against a baseline; larger is better.
    """

    rate: float | None = None
    """kvd's requests per second by the baseline's."""
    work: float | None = None
    """kvd's requests per second of CPU time by the baseline's."""
    p99: float | None = None
    """The baseline's 99th percentile by kvd's."""


@dataclass(frozen=True)
class Workload:
    """
    A load, and the servers that get it.
    """

    name: str
    title: str
    load: Load
    kvd: Contender
    baselines: Sequence[tuple[Contender, Targets]]
    medium: str = "tmpfs"
    """Where values live: ``tmpfs``, or ``disk``, which is where results go."""
    background: Load | None = None
    """What is sent meanwhile, and not measured."""

    @property
    def contenders(self) -> Sequence[Contender]:
        """
        kvd first.
        """
        return [self.kvd, *(contender for contender, _ in self.baselines)]

    @property
    def targets(self) -> Mapping[str, Targets]:
        """
        By the baseline's name.
        """
        return {contender.name: target for contender, target in self.baselines}


def _kvd(
    policy: str = "reuseport",
    durability: str = "process",
    null: bool = False,
    sync_delay_ms: int = 0,
    name: str = "kvd",
    load: Load | None = None,
) -> Contender:
    return Contender(name, Kvd(policy, durability, null, sync_delay_ms), load)


_NGINX: Final = Contender("nginx", Nginx())
_C_READ: Final = Contender("C, read + write", CServer())
_C_SPLICE: Final = Contender("C, splice", CServer(put="splice"))
_C_SENDFILE: Final = Contender("C, sendfile", CServer())

# As many keys as make each client overwrite its own, two in turn.
_PUT_LARGE: Final = Load("PUT", LARGE, connections=8, keys=16)
_PUT_SMALL: Final = Load("PUT", SMALL, connections=32, keys=1000)
_GET_SMALL: Final = Load("GET", SMALL, connections=32, keys=1000)
_GET_ONE: Final = Load("GET", SMALL, connections=32, keys=1)
_GET_NEW: Final = Load("GET", SMALL, connections=32, keys=1000, new_connections=True)
_PUT_DISK: Final = Load("PUT", SMALL, connections=64, keys=1024)
_PUT_SINGLE: Final = Load("PUT", SMALL, connections=1, keys=1024)


def _put_null(name: str, title: str, load: Load) -> Workload:
    return Workload(
        name,
        title,
        load,
        _kvd(null=True),
        [
            (Contender(_C_READ.name, CServer(null=True)), Targets(1.6, 4)),
            (Contender(_C_SPLICE.name, CServer("splice", True)), Targets(1.05, 1.0)),
        ],
    )


def _put_disk(name: str, title: str, delay_ms: int, rate: float) -> Workload:
    return Workload(
        name,
        title,
        _PUT_DISK,
        _kvd(durability="disk", sync_delay_ms=delay_ms),
        [
            (
                _kvd(
                    durability="disk", sync_delay_ms=delay_ms,
                    name="kvd, one client", load=_PUT_SINGLE,
                ),
                Targets(rate=rate),
            )
        ],
        medium="disk",
    )  # fmt: skip


WORKLOADS: Final[Sequence[Workload]] = [
    _put_null(
        "put-large-null", "PUT 40 MB to /dev/null, 8 keep-alive clients", _PUT_LARGE
    ),
    _put_null(
        "put-large-null-64k",
        "PUT 40 MB to /dev/null, 8 keep-alive clients that send 64 KiB at a time",
        # As curl does.
        replace(_PUT_LARGE, piece_bytes=64 * 1024),
    ),
    Workload(
        "put-large",
        "PUT 40 MB to files, 8 keep-alive clients",
        _PUT_LARGE,
        _kvd(),
        [
            (_C_READ, Targets(1.3, 1.8)),
            (_C_SPLICE, Targets(0.95, 0.9)),
            (_NGINX, Targets(2.3, 3)),
        ],
        medium="disk",
    ),
    Workload(
        "get-large",
        "GET 40 MB, 8 keep-alive clients",
        Load("GET", LARGE, connections=8, keys=16),
        _kvd(),
        [(_NGINX, Targets(1.1, 1.1)), (_C_SENDFILE, Targets(0.95, 0.9))],
        medium="disk",
    ),
    Workload(
        "put-small-tmpfs",
        "PUT 4 KiB to tmpfs, 1,000 keys, 32 keep-alive clients",
        _PUT_SMALL,
        _kvd(),
        [(_NGINX, Targets(1.15, 1.1)), (_C_READ, Targets(0.65, 0.6))],
    ),
    Workload(
        "put-small-disk",
        "PUT 4 KiB to the disk's file system, 1,000 keys, 32 keep-alive clients",
        _PUT_SMALL,
        _kvd(),
        [(_NGINX, Targets(1.15, 1.1))],
        medium="disk",
    ),
    Workload(
        "get-small",
        "GET 4 KiB, 1,000 keys, 32 keep-alive clients",
        _GET_SMALL,
        _kvd(),
        [(_NGINX, Targets(1.0, 0.9))],
    ),
    Workload(
        "get-small-one",
        "GET 4 KiB, always the same key, 32 keep-alive clients",
        _GET_ONE,
        _kvd(),
        [(_NGINX, Targets(1.0, 0.9))],
    ),
    Workload(
        "get-new-reuseport",
        "GET 4 KiB, a new connection each, policy reuseport",
        _GET_NEW,
        _kvd("reuseport"),
        [(_NGINX, Targets(0.8, 0.7))],
    ),
    Workload(
        "get-new-roundrobin",
        "GET 4 KiB, a new connection each, policy roundrobin",
        _GET_NEW,
        _kvd("roundrobin"),
        [(_NGINX, Targets(0.6, 0.5))],
    ),
    _put_disk("put-disk", "PUT 4 KiB at durability disk, 64 clients", 0, 2),
    _put_disk(
        "put-disk-slow",
        "PUT 4 KiB at durability disk, 64 clients, each sync 5 ms slower",
        5,
        10,
    ),
    Workload(
        "get-beside-uploads",
        "GET 4 KiB from 8 clients while 64 clients PUT 40 MB to the disk",
        Load("GET", SMALL, connections=8, keys=1000),
        _kvd(),
        [(_NGINX, Targets(p99=1.0))],
        medium="disk",
        background=Load("PUT", LARGE, connections=64, keys=64, prefix="upload"),
    ),
]
