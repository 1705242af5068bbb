"""
``etc/cluster``: three nodes of an engine, two kvd machines and HAProxy, each in a
network namespace of its own, with the settings as they are there.
``make test-engines ENGINES=cluster``;
it takes root, ``ip``, ``haproxy``, ``etcd`` and ``etcdctl``.

Clients are in the namespace of HAProxy.
"""

from __future__ import annotations

import ctypes
import http.client
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from tests.s3.engines.load import REVIVED_SECONDS, Writer, read
from tests.s3.memory_engine import ACCESS_KEY, SECRET_KEY
from tests.s3.seaweedfs import (
    NAME_KNOWN,
    PROGRAM,
    has_bucket,
)

SETTINGS = Path(__file__).parent.parent.parent.parent / "etc" / "cluster"

T = TypeVar("T")

NETWORK = "192.0.2"
NODES = (11, 12, 13)
KVD = (21, 22)
BALANCER = 10
PORT, STATUS_PORT, S3_PORT = 8080, 8081, 8333
BUCKET = "values"

WRITERS = 4
MOST_READ = 60
"""
So many values are read while a machine is gone.
"""

LOAD_SECONDS = 24.0
READY_SECONDS = 90.0

PLACE = "/mnt"
"""
Where a machine has its files.
"""

ALONE = (
    f"mount --bind . {PLACE} && mount -t tmpfs tmpfs /tmp && cd {PLACE} && exec $0 $*"
)
"""
As ``PrivateTmp=yes``: the programs of a node find one another by sockets in ``/tmp``.
"""

_CLONE_NEWNET = 0x40000000


def ip(*arguments: str) -> None:
    """
    Configure a network.
    """
    subprocess.run(["ip", *arguments], check=True)


class Machine:
    """
    A network namespace, and what runs there.
    """

    def __init__(self, switch: str, number: int, folder: Path) -> None:
        """
        Args:
            switch: The namespace with the bridge to all others.
            number: The last of its address.
            folder: Has its files; it exists.
        """
        self.address = f"{NETWORK}.{number}"
        self.folder = folder
        self._switch = switch
        self._port = f"m{number}"
        self.namespace = f"{switch}-{number}"
        self._running: dict[tuple[str, ...], subprocess.Popen[bytes]] = {}
        self._environment: Mapping[str, str] = {}
        ip("netns", "add", self.namespace)
        peer = ("peer", "name", "eth0", "netns", self.namespace)
        ip("-n", switch, "link", "add", self._port, "type", "veth", *peer)
        ip("-n", switch, "link", "set", self._port, "master", "bridge")
        ip("-n", self.namespace, "address", "add", f"{self.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-n", self.namespace, "link", "set", device, "up")
        self.plug(is_in=True)

    def set_up(self) -> None:
        """
        Give its kernel the settings of a machine of the engine.
        """
        settings = str(SETTINGS / "sysctl.conf")
        ip("netns", "exec", self.namespace, "sysctl", "--quiet", "--load", settings)

    def plug(self, *, is_in: bool) -> None:
        """
        Plug its cable in, or pull it.
        """
        state = "up" if is_in else "down"
        ip("-n", self._switch, "link", "set", self._port, state)

    def run(
        self, commands: Sequence[Sequence[str]], environment: Mapping[str, str]
    ) -> None:
        """
        Start programs, those of a machine.
        """
        self._environment = {**os.environ, **environment}
        for command in commands:
            self._start(tuple(command))

    def _start(self, command: tuple[str, ...]) -> None:
        with self.log.open("ab") as log:
            self._running[command] = subprocess.Popen(
                [*("ip", "netns", "exec", self.namespace, "sh", "-c", ALONE), *command],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )

    @property
    def log(self) -> Path:
        """
        What its programs have said.
        """
        return self.folder / "log"

    @property
    def ended(self) -> list[tuple[str, ...]]:
        """
        The programs that have ended by themselves.
        """
        return [
            command
            for command, process in self._running.items()
            if process.poll() is not None
        ]

    def revive(self) -> None:
        """
        Start again what has ended by itself, as systemd does (``Restart=always``).
        """
        for command in self.ended:
            self._start(command)

    def kill(self) -> None:
        """
        Kill its programs, with all processes of them.
        """
        while self._running:
            _, process = self._running.popitem()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def remove(self) -> None:
        """
        End all of it.
        """
        self.kill()
        ip("netns", "delete", self.namespace)


def exec_start(unit: str, replaced: dict[str, str]) -> list[str]:
    """
    The command of a unit.

    Args:
        unit: The name of its file.
        replaced: What stands for paths and variables here.
    """
    text = (SETTINGS / unit).read_text()
    found = re.search(r"^ExecStart=(.*)$", text, re.MULTILINE)
    assert found is not None
    command = found[1]
    for old, new in replaced.items():
        assert old in command, f"{old} is not in {unit}"
        command = command.replace(old, new)
    assert "/etc/" not in command
    return shlex.split(command)


class Cluster:
    """
    All machines.
    """

    def __init__(self, folder: Path) -> None:
        assert os.geteuid() == 0, "network namespaces take root"
        self._folder = folder
        self.switch = f"kvd{os.getpid()}"
        self.machines: dict[int, Machine] = {}
        ip("netns", "add", self.switch)

    def start(self) -> None:
        """
        Start all machines.
        """
        ip("-n", self.switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", self.switch, "link", "set", "bridge", "up")
        for number in (*NODES, *KVD, BALANCER):
            folder = self._folder / str(number)
            folder.mkdir()
            self.machines[number] = Machine(self.switch, number, folder)
        for number in NODES:
            self.machines[number].set_up()
            self.start_etcd(number)
        self.wait(partial(self.inside, self._name_store), "etcd serves")
        for number in NODES:
            self.start_node(number)
        self.wait(self._nodes_are_ready, "the engine is ready")
        for number in NODES:
            assert NAME_KNOWN in self.machines[number].log.read_text(errors="replace")
        for number in KVD:
            self.start_kvd(number)
            self.wait(partial(self.is_ready, number), f"{number} is ready")
        haproxy = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin")
        assert haproxy is not None, "haproxy is not installed"
        settings = str(SETTINGS / "haproxy.cfg")
        self.machines[BALANCER].run([[haproxy, "-db", "-f", settings]], {})
        self.wait(lambda: self._status(BALANCER, PORT, "/none") == 404, "HAProxy")

    def start_etcd(self, number: int) -> None:
        """
        Start the member of etcd on a machine of the engine.
        """
        machine = self.machines[number]
        program = shutil.which("etcd")
        assert program is not None, "etcd is not installed"
        replaced = {
            "/usr/bin/etcd": program,
            "/var/lib/etcd": PLACE,
            "${ADDRESS}": machine.address,
        }
        machine.run([exec_start("etcd.service", replaced)], {})

    def start_node(self, number: int) -> None:
        """
        Start a node of the engine, beside etcd.
        """
        machine = self.machines[number]
        shutil.copy(SETTINGS / "filer.toml", machine.folder)
        keys = machine.folder / "s3.json"
        text = (SETTINGS / "s3.json").read_text()
        text = text.replace('"CHANGE"', f'"{ACCESS_KEY}"', 1)
        keys.write_text(text.replace('"CHANGE"', f'"{SECRET_KEY}"', 1))
        replaced = {
            "/opt/seaweedfs/bin/weed": str(PROGRAM),
            "/var/lib/seaweedfs": PLACE,
            "${CREDENTIALS_DIRECTORY}": PLACE,
            "${ADDRESS}": machine.address,
        }
        machine.run([exec_start("seaweedfs.service", replaced)], {"GOMAXPROCS": "2"})

    def start_kvd(self, number: int) -> None:
        """
        Start a kvd machine, perhaps again.
        """
        machine = self.machines[number]
        settings = machine.folder / "kvd.toml"
        text = (SETTINGS / "kvd.toml").read_text()
        for path in ("/var/cache/kvd", "/run/kvd"):
            assert path in text
            text = text.replace(path, PLACE)
        settings.write_text(text)
        replaced = {
            "/opt/kvd/bin/twistd": str(Path(sys.executable).with_name("twistd")),
            "/etc/kvd/kvd.toml": f"{PLACE}/{settings.name}",
        }
        environment = {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }
        machine.run([exec_start("kvd.service", replaced)], environment)

    def stop(self) -> None:
        """
        End all of it.
        """
        for machine in self.machines.values():
            machine.remove()
        ip("netns", "delete", self.switch)

    def _name_store(self) -> bool:
        """
        Do what the unit of etcd says is to be done once.
        """
        text = (SETTINGS / "etcd.service").read_text()
        found = re.search(r"^#   (\S+ etcdctl .*)$", text, re.MULTILINE)
        assert found is not None
        assert NAME_KNOWN in text
        return subprocess.run(found[1], shell=True, check=False).returncode == 0

    def start_again(self, number: int) -> None:
        """
        Start what a machine has, after it was killed.
        """
        if number in NODES:
            self.start_etcd(number)
            self.start_node(number)
        else:
            self.start_kvd(number)

    def let_run(self, seconds: float) -> None:
        """
        Wait, and start the programs of the engine again that end meanwhile.
        """
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, REVIVED_SECONDS))
            self._revive_nodes()

    def serves(self, number: int) -> bool:
        """
        Whether a machine of kvd or of the engine serves.
        """
        if number in KVD:
            return self.is_ready(number)
        return self.inside(has_bucket, self.machines[number].address, S3_PORT, BUCKET)

    def is_ready(self, number: int) -> bool:
        """
        Whether a kvd machine serves, as HAProxy asks it.
        """
        return self._status(number, STATUS_PORT, "/ready") == 200

    def _revive_nodes(self) -> None:
        for number in NODES:
            self.machines[number].revive()

    def _nodes_are_ready(self) -> bool:
        self._revive_nodes()
        return all(self.serves(number) for number in NODES)

    def _status(self, number: int, port: int, path: str) -> int:
        def ask() -> int:
            address = self.machines[number].address
            connection = http.client.HTTPConnection(address, port, timeout=5)
            try:
                connection.request("GET", path)
                return connection.getresponse().status
            except (OSError, http.client.HTTPException):
                return 0
            finally:
                connection.close()

        return self.inside(ask)

    def inside(self, act: Callable[..., T], *arguments: object) -> T:
        """
        Do something in the namespace of HAProxy.
        """
        with self.threads(1) as threads:
            return threads.submit(act, *arguments).result()

    def threads(self, count: int) -> ThreadPoolExecutor:
        """
        Threads in the namespace of HAProxy.
        """
        return ThreadPoolExecutor(count, initializer=self.enter)

    def enter(self) -> None:
        """
        Move this thread to the namespace of HAProxy.
        """
        libc = ctypes.CDLL(None, use_errno=True)
        path = Path("/run/netns", self.machines[BALANCER].namespace)
        with path.open("rb") as namespace:
            if libc.setns(namespace.fileno(), _CLONE_NEWNET) < 0:
                raise OSError(ctypes.get_errno(), "setns")

    def wait(self, holds: Callable[[], object], what: str) -> None:
        """
        Wait until something holds.
        """
        deadline = time.monotonic() + READY_SECONDS
        while not holds():
            others = [each for each in self.machines if each not in NODES]
            ended = [each for each in others if self.machines[each].ended]
            assert not ended, f"{ended} ended: {self.logs()}"
            assert time.monotonic() < deadline, f"{what}: {self.logs()}"
            time.sleep(0.2)

    def logs(self) -> str:
        """
        The ends of what all have said.
        """
        return "\n".join(
            f"{path}:\n{path.read_text(errors='replace')[-3000:]}"
            for path in sorted(self._folder.glob("*/log"))
        )


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """
    All of it.
    """
    cluster = Cluster(tmp_path)
    try:
        cluster.start()
        yield cluster
    finally:
        print(cluster.logs())
        cluster.stop()


class ClusterWriter(Writer):
    """
    A writer in the namespace of HAProxy.
    """

    def __init__(self, cluster: Cluster, number: int, until: float) -> None:
        super().__init__(PORT, number, until)
        self._cluster = cluster

    def run(self) -> None:
        self._cluster.enter()
        super().run()


def acknowledged_by(writers: Sequence[Writer]) -> dict[str, str]:
    """
    The digests of all values that were acknowledged so far, by their targets.
    """
    return {
        target: digest
        for writer in writers
        # A copy: a writer goes on.
        for target, digest in [*writer.acknowledged.items()]
    }


@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [KVD[0], NODES[1]])
def test_machine_that_is_killed_under_load(cluster: Cluster, number: int) -> None:
    """
    It loses its power and its network, be it one of kvd or one of the engine. No
    acknowledged value is lost or wrong, also while it is gone, and each failure is
    cured by one retry, if it was not that of a value that kvd sends as it comes. Then
    it returns.
    """
    until = time.monotonic() + LOAD_SECONDS
    writers = [ClusterWriter(cluster, each, until) for each in range(WRITERS)]
    for writer in writers:
        writer.start()
    cluster.let_run(LOAD_SECONDS / 3)
    machine = cluster.machines[number]
    machine.plug(is_in=False)
    machine.kill()
    before = acknowledged_by(writers)
    cluster.let_run(LOAD_SECONDS / 3)
    with cluster.threads(WRITERS) as threads:
        reads = {
            target: threads.submit(read, PORT, target)
            for target in random.sample(sorted(before), min(len(before), MOST_READ))
        }
        while not all(each.done() for each in reads.values()):
            cluster.let_run(REVIVED_SECONDS)
    read_meanwhile = {target: each.result() for target, each in reads.items()}
    machine.plug(is_in=True)
    cluster.start_again(number)
    while any(writer.is_alive() for writer in writers):
        cluster.let_run(REVIVED_SECONDS)

    acknowledged = acknowledged_by(writers)
    once = sum(writer.failed_once for writer in writers)
    long_twice = [said for writer in writers for said in writer.long_failed_twice]
    print(f"{len(acknowledged)} acknowledged, {len(before)} before; {once} retried")
    print(f"{len(read_meanwhile)} were read while the machine was gone")
    print(f"{len(long_twice)} that were sent as they came failed again: {long_twice}")
    with cluster.threads(WRITERS) as threads:
        digests = threads.map(lambda target: read(PORT, target), acknowledged)
        found = dict(zip(acknowledged, digests, strict=True))
    assert acknowledged == found
    assert len(before) < len(acknowledged)
    for target, got in read_meanwhile.items():
        is_replaced = acknowledged.get(target) != before[target]
        assert is_replaced or got == before[target], (target, got)
    assert [] == [said for writer in writers for said in writer.failed_twice]
    cluster.wait(partial(cluster.serves, number), "the machine serves again")
