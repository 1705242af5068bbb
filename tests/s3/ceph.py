"""
Ceph on this machine: its daemons, for tests.

The programs are in Debian's packages (``tests/prepare.sh ceph``).
"""

from __future__ import annotations

import uuid
from functools import partial
from pathlib import Path

from tests.ports import unused_port
from tests.s3.memory_engine import ACCESS_KEY, BUCKET, SECRET_KEY
from tests.s3.processes import GatewayEngine
from tests.s3.seaweedfs import has_bucket

NODES = 3
GATEWAYS = 2

SETTINGS = """\
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{monitor_port}]
mon initial members = a
public addr = 127.0.0.1
cluster addr = 127.0.0.1
public network = 127.0.0.0/8
ms bind msgr1 = false
auth allow insecure global id reclaim = false
run dir = {folder}/run
admin socket = {folder}/run/$name.asok
crash dir = {folder}/run
keyring = {folder}/keyring
log to file = false
mon cluster log to file = false
log to stderr = true
osd pool default size = 3
osd pool default min size = 2
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
# Copies on different daemons: all are on one host.
osd crush chooseleaf type = 0
mon data avail warn = 2
mon data avail crit = 1
osd memory target = 939524096
bluestore cache size = 134217728
bluestore block size = {disk_bytes}
# A daemon that ends with its machine is noticed sooner than by default.
osd heartbeat interval = 2
osd heartbeat grace = 8
mon osd min down reporters = 1
mon osd down out interval = 3600
mgr initial modules =
rgw num rados handles = 1
rgw thread pool size = 32
rgw enable usage log = false
rgw enable ops log = false

[mon.a]
mon data = {folder}/monitor

[mgr.x]
mgr data = {folder}/manager
"""

DISK_BYTES = 10 * 1024**3
"""
Of a sparse file.
"""


ALL = "allow *"
CAPABILITIES = {
    "mon.": {"mon": ALL},
    "client.admin": {"mon": ALL, "osd": ALL, "mgr": ALL},
    "client.gateway": {"mon": "allow rw", "osd": "allow rwx", "mgr": "allow rw"},
    "mgr.x": {"mon": "allow profile mgr", "osd": ALL},
    **{
        f"osd.{node}": {"mon": "allow profile osd", "mgr": ALL, "osd": ALL}
        for node in range(NODES)
    },
}
"""
What each daemon may do at the others. All keys are in one file here.
"""


class Ceph(GatewayEngine):
    """
    A monitor, three daemons for objects, each of which keeps a copy of each object, and
    two gateways. A change needs two of the daemons.
    """

    def __init__(self, folder: Path) -> None:
        (folder / "run").mkdir(parents=True)
        super().__init__(folder, GATEWAYS, {"CEPH_ARGS": ""})
        self._settings = folder / "ceph.conf"
        self._fsid = uuid.uuid4()
        self._monitor_port = unused_port()
        self._settings.write_text(
            SETTINGS.format(
                fsid=self._fsid,
                folder=folder,
                monitor_port=self._monitor_port,
                disk_bytes=DISK_BYTES,
            )
        )

    @property
    def environment(self) -> dict[str, str]:
        """
        See `RunningEngine`.
        """
        return {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}

    def start(self) -> None:
        """
        See `RunningEngine`.
        """
        self._start_monitor()
        for node in range(NODES):
            self._make_node(node)
            self.start_node(node)
        self._ask("osd", "set", "noout")
        for number, port in enumerate(self._gateways):
            self._start_gateway(number, port)
            # One after the other: the first makes what both need.
            self._processes.wait_until(
                partial(has_bucket, "127.0.0.1", port, BUCKET),
                f"gateway {number} is ready",
            )

    def _start_monitor(self) -> None:
        run = self._processes.run
        monitors = self.folder / "monitors"
        keyring = self.folder / "keyring"
        for name, capabilities in CAPABILITIES.items():
            options = [
                word
                for other, may in capabilities.items()
                for word in ("--cap", other, may)
            ]
            create = [] if keyring.exists() else ["--create-keyring"]
            make = ["ceph-authtool", *create, keyring, "--gen-key", "-n", name]
            run(*make, *options)
        address = f"[v2:127.0.0.1:{self._monitor_port}]"
        create = ["monmaptool", "--create", "--fsid", str(self._fsid)]
        run(*create, "--addv", "a", address, monitors)
        (self.folder / "monitor").mkdir()
        (self.folder / "manager").mkdir()
        monitor = ["ceph-mon", "-c", self._settings, "-i", "a"]
        run(*monitor, "--mkfs", "--monmap", monitors, "--keyring", keyring)
        self._processes.start("monitor", [*monitor, "-f"])
        self._ask("mon", "stat")
        manager = ["ceph-mgr", "-c", self._settings, "-f", "-i", "x"]
        self._processes.start("manager", manager)

    def _ask(self, *words: object) -> str:
        """
        What the cluster answers to a command.
        """
        limit = ["--connect-timeout", "120"]
        return self._processes.run("ceph", "-c", self._settings, *limit, *words)

    def _node(self, node: int) -> list[object]:
        """
        The command for a daemon of objects.
        """
        data = self.folder / f"node{node}"
        return ["ceph-osd", "-c", self._settings, "-i", node, "--osd-data", data]

    def _make_node(self, node: int) -> None:
        identity = uuid.uuid4()
        self._ask("osd", "new", identity, node)
        (self.folder / f"node{node}").mkdir()
        self._processes.run(*self._node(node), "--mkfs", "--osd-uuid", identity)

    def start_node(self, node: int) -> None:
        """
        See `RunningEngine`.
        """
        self._processes.start(f"node{node}", [*self._node(node), "-f"])

    def kill_node(self, node: int) -> None:
        """
        See `RunningEngine`.
        """
        self._processes.kill(f"node{node}")

    def _start_gateway(self, number: int, port: int) -> None:
        command = ["radosgw", "-c", self._settings, "-f", "-n", "client.gateway"]
        frontend = f"--rgw-frontends=beast endpoint=127.0.0.1:{port}"
        self._processes.start(f"gateway{number}", [*command, frontend])
        if number == 0:
            self._processes.run(
                *("radosgw-admin", "-c", self._settings, "user", "create"),
                *("--uid=kvd", "--display-name=kvd"),
                f"--access-key={ACCESS_KEY}",
                f"--secret-key={SECRET_KEY}",
            )
