"""
What is measured, and the targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bench.clients.programs import Ccache, Curl, ParallelCurl
from bench.loads import Load, Traffic
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
    load: Traffic | None = None
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
    load: Traffic
    kvd: Contender
    baselines: Sequence[tuple[Contender, Targets]]
    medium: str = "tmpfs"
    """Where values live: ``tmpfs``, or ``disk``, which is where results go."""
    background: Load | None = None
    """What is sent meanwhile, and not measured."""
    share: float = 1
    """Of the length of a run."""
    curve: str = ""
    """Workloads of a curve differ only in the size of their values."""

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
    policy: str | None = "reuseport",
    durability: str = "process",
    null: bool = False,
    sync_delay_ms: int = 0,
    name: str = "kvd",
    load: Traffic | None = None,
) -> Contender:
    return Contender(name, Kvd(policy, durability, null, sync_delay_ms), load)


_NGINX: Final = Contender("nginx", Nginx())
_KVD_TLS: Final = Contender("kvd", Kvd(secure=True))
_NGINX_TLS: Final = Contender("nginx", Nginx(secure=True))
_NGINX_PUSHES: Final = Contender("nginx", Nginx(nopush=False))
_C_READ: Final = Contender("C, read + write", CServer())
_C_SPLICE: Final = Contender("C, splice", CServer(put="splice"))
_C_SENDFILE: Final = Contender("C, sendfile", CServer())
_C_SYNC: Final = Contender("C, sync", CServer(sync=True))
# As many as there are clients, so that most of them wait for the disk together.
_C_SYNC_THREADS: Final = Contender(
    "C, sync, 64 threads", CServer(sync=True, threads=64)
)

# First touches, as of a build cache.
_GET_ONCE: Final = Load("GET", SMALL, connections=16, once_per_second=8000)
_GET_ONCE_20K: Final = Load("GET", 20_000, connections=16, once_per_second=4000)
_GET_ONCE_NEW: Final = replace(_GET_ONCE, new_connections=True)
_PUT_NEW: Final = Load("PUT", SMALL, connections=16, once_per_second=8000)
_PUT_NEW_APART: Final = replace(_PUT_NEW, apart_us=200)
_PUT_NEW_FOLDERS: Final = replace(_PUT_NEW, folders=256)
_PUT_NEW_CONNECTIONS: Final = replace(_PUT_NEW, new_connections=True)
_PUT_DURABLE: Final = Load("PUT", SMALL, connections=64, once_per_second=1500)
_GET_ABSENT: Final = replace(_GET_ONCE, connections=32, absent=True)
_GET_UNCHANGED: Final = Load("GET", SMALL, connections=32, keys=1000, unchanged=True)
_GET_RANGE: Final = Load("GET", 100_000_000, connections=32, range_bytes=SMALL)
_CURL: Final = Curl(replace(_GET_ONCE, once_per_second=80))
_CURL_GETS: Final = ParallelCurl(replace(_GET_ONCE_20K, once_per_second=1600))
_CURL_PUTS: Final = ParallelCurl(
    Load("PUT", 20_000, connections=16, once_per_second=1600)
)
_CCACHE: Final = Ccache(files_per_second=125)

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


def _beside_nginx(
    name: str,
    title: str,
    load: Traffic,
    targets: Targets,
    policy: str | None = "reuseport",
    medium: str = "tmpfs",
    c: bool = True,
    nginx: Contender = _NGINX,
) -> Workload:
    """
    kvd, nginx, and the C server for what a bound is.
    """
    lean = [(_C_SENDFILE, Targets())] if c else []
    return Workload(name, title, load, _kvd(policy), [(nginx, targets), *lean], medium)


def _sizes(method: str) -> Sequence[Workload]:
    """
    The same keys again, for each size of their values.
    """
    sizes = {
        "100": 100, "4k": 4096, "16k": 16_384, "50k": 50_000, "70k": 70_000,
        "100k": 100_000, "262k": 262_144, "1m": 1_000_000, "4m": 4_000_000,
    }  # fmt: skip
    return [
        replace(
            _beside_nginx(
                f"{method.lower()}-size-{name}",
                f"{method} {size:,} bytes, 16 keep-alive clients",
                # No more than 64 MB together, and a multiple of the connections.
                Load(
                    method,
                    size,
                    connections=16,
                    keys=max(16, min(256, 64_000_000 // size // 16 * 16)),
                ),
                Targets(1.0, 1.0),
            ),
            share=0.4,
            curve=method,
        )
        for name, size in sizes.items()
    ]


_FIRST_TOUCHES: Final[Sequence[Workload]] = [
    _beside_nginx(
        "get-once-reuseport",
        "GET 4 KiB, each key once, 16 keep-alive clients, policy reuseport",
        _GET_ONCE,
        Targets(1.0, 1.0),
    ),
    _beside_nginx(
        "get-once-default",
        "GET 4 KiB, each key once, 16 keep-alive clients, the default policy",
        _GET_ONCE,
        Targets(0.95, 0.95),
        policy=None,
        c=False,
    ),
    _beside_nginx(
        "get-once-roundrobin",
        "GET 4 KiB, each key once, 16 keep-alive clients, policy roundrobin",
        _GET_ONCE,
        Targets(0.95, 0.95),
        policy="roundrobin",
        c=False,
    ),
    _beside_nginx(
        "get-once-20k",
        "GET 20 KB from the disk's file system, each key once, 16 keep-alive clients",
        _GET_ONCE_20K,
        Targets(1.0, 1.0),
        medium="disk",
    ),
    _beside_nginx(
        "get-once-new-reuseport",
        "GET 4 KiB, each key once, a new connection each, policy reuseport",
        _GET_ONCE_NEW,
        Targets(0.95, 0.9),
    ),
    _beside_nginx(
        "get-once-new-default",
        "GET 4 KiB, each key once, a new connection each, the default policy",
        _GET_ONCE_NEW,
        Targets(0.85, 0.8),
        policy=None,
        c=False,
    ),
    _beside_nginx(
        "get-once-new-roundrobin",
        "GET 4 KiB, each key once, a new connection each, policy roundrobin",
        _GET_ONCE_NEW,
        Targets(0.75, 0.65),
        policy="roundrobin",
        c=False,
    ),
    _beside_nginx(
        "get-absent",
        "GET of keys that nobody stored (404), 32 keep-alive clients",
        _GET_ABSENT,
        Targets(1.0, 1.0),
    ),
    _beside_nginx(
        "get-unchanged",
        "GET 4 KiB if it has changed, which it has not (304), 32 keep-alive clients",
        _GET_UNCHANGED,
        Targets(1.0, 1.0),
    ),
    _beside_nginx(
        "get-range-4k",
        "GET ranges of 4 KiB of a value of 100 MB, 32 keep-alive clients",
        _GET_RANGE,
        Targets(1.0, 1.0),
        nginx=_NGINX_PUSHES,
    ),
    _beside_nginx(
        "get-range-64k",
        "GET ranges of 64 KiB of a value of 100 MB, 32 keep-alive clients",
        replace(_GET_RANGE, range_bytes=65_536),
        Targets(1.0, 1.0),
        nginx=_NGINX_PUSHES,
    ),
    _beside_nginx(
        "put-new-tmpfs",
        "PUT 4 KiB to tmpfs, new keys, 16 keep-alive clients",
        _PUT_NEW,
        Targets(1.15, 1.1),
    ),
    _beside_nginx(
        "put-new-tmpfs-default",
        "PUT 4 KiB to tmpfs, new keys, 16 keep-alive clients, the default policy",
        _PUT_NEW,
        Targets(),
        policy=None,
        c=False,
    ),
    _beside_nginx(
        "put-new-apart",
        "PUT 4 KiB to tmpfs, new keys, head and body apart, 16 keep-alive clients",
        _PUT_NEW_APART,
        Targets(),
    ),
    _beside_nginx(
        "put-new-disk",
        "PUT 4 KiB to the disk's file system, new keys, 16 keep-alive clients",
        _PUT_NEW,
        Targets(1.3, 1.2),
        medium="disk",
    ),
    _beside_nginx(
        "put-new-folders-tmpfs",
        "PUT 4 KiB to tmpfs, new keys in 256 new folders, 16 keep-alive clients",
        _PUT_NEW_FOLDERS,
        Targets(1.0, 1.0),
    ),
    _beside_nginx(
        "put-new-folders-disk",
        "PUT 4 KiB to the disk's file system, new keys in 256 new folders,"
        " 16 keep-alive clients",
        _PUT_NEW_FOLDERS,
        Targets(1.0, 1.0),
        medium="disk",
    ),
    _beside_nginx(
        "put-new-connections-tmpfs",
        "PUT 4 KiB to tmpfs, new keys, a new connection each",
        _PUT_NEW_CONNECTIONS,
        Targets(1.0, 0.9),
    ),
    _beside_nginx(
        "put-new-connections-tmpfs-default",
        "PUT 4 KiB to tmpfs, new keys, a new connection each, the default policy",
        _PUT_NEW_CONNECTIONS,
        Targets(),
        policy=None,
        c=False,
    ),
    _beside_nginx(
        "put-new-connections-disk",
        "PUT 4 KiB to the disk's file system, new keys, a new connection each",
        _PUT_NEW_CONNECTIONS,
        Targets(1.0, 0.9),
        medium="disk",
    ),
    Workload(
        "put-new-durable",
        "PUT 4 KiB, new keys, durability disk, 64 keep-alive clients",
        _PUT_DURABLE,
        _kvd(durability="disk"),
        [(_C_SYNC, Targets(1.0, 0.8)), (_C_SYNC_THREADS, Targets())],
        medium="disk",
    ),
    Workload(
        "put-new-durable-default",
        "PUT 4 KiB, new keys, durability disk, 64 keep-alive clients, the default"
        " policy",
        _PUT_DURABLE,
        _kvd(policy=None, durability="disk"),
        [(_C_SYNC, Targets())],
        medium="disk",
    ),
    _beside_nginx(
        "curl",
        "GET 4 KiB, each key once, a curl each, the default policy",
        _CURL,
        Targets(),
        policy=None,
        c=False,
    ),
    _beside_nginx(
        "curl-parallel-get",
        "GET of files of 20 KB by one curl -Z --parallel-max 50, the default policy",
        _CURL_GETS,
        Targets(),
        policy=None,
        c=False,
    ),
    _beside_nginx(
        "curl-parallel-put",
        "PUT of files of 20 KB by one curl -Z --parallel-max 50, the default policy",
        _CURL_PUTS,
        Targets(),
        policy=None,
        c=False,
    ),
    Workload(
        "curl-parallel-put-durable",
        "PUT of files of 20 KB by one curl -Z --parallel-max 50, the default policy"
        " and durability (nginx never syncs)",
        _CURL_PUTS,
        _kvd(policy=None, durability="disk"),
        [(_NGINX, Targets()), (_C_SYNC, Targets())],
        medium="disk",
    ),
    _beside_nginx(
        "ccache",
        "ccache compiles 150 files that the server has, the default policy",
        _CCACHE,
        Targets(rate=1.0),
        policy=None,
        c=False,
    ),
]

_AGAIN: Final[Sequence[Workload]] = [
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


def _over_tls(
    name: str, title: str, load: Load, targets: Targets, medium: str = "tmpfs"
) -> Workload:
    return Workload(
        name, f"{title}, over TLS", load, _KVD_TLS, [(_NGINX_TLS, targets)], medium
    )


_OVER_TLS: Final[Sequence[Workload]] = [
    _over_tls(
        "tls-get-small",
        "GET 4 KiB, 1,000 keys, 32 keep-alive clients",
        _GET_SMALL,
        Targets(0.95, 0.95),
    ),
    _over_tls(
        "tls-get-new",
        "GET 4 KiB, a new connection with a whole handshake each",
        _GET_NEW,
        Targets(0.6, 0.55),
    ),
    _over_tls(
        "tls-get-resumed",
        "GET 4 KiB, a new connection each, which resumes a session",
        replace(_GET_NEW, resumes=True),
        Targets(0.6, 0.5),
    ),
    _over_tls(
        "tls-get-large",
        "GET 40 MB, 8 keep-alive clients",
        Load("GET", LARGE, connections=8, keys=16),
        Targets(0.95, 0.95),
        medium="disk",
    ),
]

WORKLOADS: Final[Sequence[Workload]] = [
    *_FIRST_TOUCHES,
    *_sizes("GET"),
    *_sizes("PUT"),
    *_AGAIN,
    *_OVER_TLS,
]
