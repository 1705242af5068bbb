"""
OpenStack Swift on this machine: its servers, for tests.

They are in an environment of their own (``make build/swift/installed``), and take
memcached beside it (``tests/prepare.sh swift``).
"""

from __future__ import annotations

import socket
from functools import partial
from pathlib import Path

from tests.ports import unused_port
from tests.s3.memory_engine import ACCESS_KEY, BUCKET, SECRET_KEY
from tests.s3.processes import GatewayEngine
from tests.s3.seaweedfs import has_bucket

PROGRAMS = Path(__file__).parents[2] / "build" / "swift" / "bin"

NODES = 3
GATEWAYS = 2
PARTITIONS = 64

KINDS = ("account", "container", "object")
"""
What a node has a server for.
"""

USER = f"kvd:{ACCESS_KEY}"
"""
The access key, which names the account too.
"""

COMMON = """\
[swift-hash]
swift_hash_path_prefix = kvd
swift_hash_path_suffix = kvd

[storage-policy:0]
name = copies
default = yes

[swift-constraints]
max_file_size = 5368709122
"""

SERVER = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
swift_dir = {settings}
devices = {disks}
mount_check = false
disable_fallocate = true
fallocate_reserve = 0
log_level = WARNING

[pipeline:main]
pipeline = {kind}-server

[app:{kind}-server]
use = egg:swift#{kind}

[{kind}-replicator]
[{kind}-updater]
[{kind}-auditor]
"""

GATEWAY = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
swift_dir = {settings}
log_level = WARNING

[pipeline:main]
pipeline = {filters} proxy-server

[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
conn_timeout = 1
node_timeout = 10
recoverable_node_timeout = 3

[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{cache_port}

[filter:s3api]
use = egg:swift#s3api
location = us-east-1
s3_acl = false
min_segment_size = 1

[filter:tempauth]
use = egg:swift#tempauth
user_kvd_{user} = {secret} .admin
"""


FILTERS = (
    *("catch_errors", "cache", "listing_formats", "bulk", "s3api", "tempauth"),
    *("slo", "dlo", "versioned_writes", "symlink"),
)
"""
What a request to a gateway passes through.
"""

PLAIN_FILTERS = {*FILTERS} - {"cache", "s3api", "tempauth"}
"""
Those that have no settings here.
"""


class Swift(GatewayEngine):
    """
    Three nodes, each of which keeps a copy of each object, and two gateways. A change
    needs two of the nodes.
    """

    def __init__(self, folder: Path) -> None:
        assert PROGRAMS.is_dir(), "Swift is not here: make build/swift/installed"
        self._settings = folder / "settings"
        self._settings.mkdir(parents=True)
        self._servers = [{kind: unused_port() for kind in KINDS} for _ in range(NODES)]
        self._cache_port = unused_port()
        super().__init__(folder, GATEWAYS, {"SWIFT_DIR": str(self._settings)})

    @property
    def environment(self) -> dict[str, str]:
        """
        See `RunningEngine`.
        """
        return {"AWS_ACCESS_KEY_ID": USER, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}

    def start(self) -> None:
        """
        See `RunningEngine`.
        """
        (self._settings / "swift.conf").write_text(COMMON)
        for kind in KINDS:
            self._make_ring(kind)
        cache = ["memcached", "-l", "127.0.0.1", "-p", self._cache_port, "-U", "0"]
        self._processes.start("memcached", [*cache, "-m", 64, "-u", "nobody"])
        for node in range(NODES):
            for kind, port in self._servers[node].items():
                self._write(
                    f"{kind}-{node}",
                    SERVER.format(
                        kind=kind,
                        port=port,
                        settings=self._settings,
                        disks=self.folder / f"node{node}",
                    ),
                )
            self.start_node(node)
        # An account that is made while a node is away is on the others only.
        for ports in self._servers:
            for kind, port in ports.items():
                listens = partial(is_listening, port)
                self._processes.wait_until(listens, f"{kind} server is ready")
        for number, port in enumerate(self._gateways):
            text = GATEWAY.format(
                port=port,
                settings=self._settings,
                filters=" ".join(FILTERS),
                cache_port=self._cache_port,
                user=ACCESS_KEY,
                secret=SECRET_KEY,
            )
            for name in PLAIN_FILTERS:
                text += f"\n[filter:{name}]\nuse = egg:swift#{name}\n"
            path = self._write(f"gateway-{number}", text)
            program = PROGRAMS / "swift-proxy-server"
            self._processes.start(f"gateway-{number}", [program, "--verbose", path])
        for number, port in enumerate(self._gateways):
            self._processes.wait_until(
                partial(has_bucket, "127.0.0.1", port, BUCKET, USER),
                f"gateway {number} is ready",
            )

    def _write(self, name: str, text: str) -> Path:
        path = self._settings / f"{name}.conf"
        path.write_text(text)
        return path

    def _make_ring(self, kind: str) -> None:
        """
        Say on which nodes the parts of all names are.
        """
        ring = [PROGRAMS / "swift-ring-builder", self._settings / f"{kind}.builder"]
        run = self._processes.run
        run(*ring, "create", PARTITIONS.bit_length() - 1, NODES, 0)
        for node in range(NODES):
            (self.folder / f"node{node}" / "disk").mkdir(parents=True, exist_ok=True)
            place = ["--region", 1, "--zone", node + 1, "--ip", "127.0.0.1"]
            disk = ["--port", self._servers[node][kind], "--device", "disk"]
            run(*ring, "add", *place, *disk, "--weight", 100)
        run(*ring, "rebalance")

    def start_node(self, node: int) -> None:
        """
        See `RunningEngine`.
        """
        for kind in KINDS:
            settings = self._settings / f"{kind}-{node}.conf"
            command = [PROGRAMS / f"swift-{kind}-server", "--verbose", settings]
            self._processes.start(f"{kind}-{node}", command)

    def kill_node(self, node: int) -> None:
        """
        See `RunningEngine`.
        """
        for kind in KINDS:
            self._processes.kill(f"{kind}-{node}")


def is_listening(port: int) -> bool:
    """
    Whether a server listens on a port.
    """
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
