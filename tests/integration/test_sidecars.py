"""
The true daemon on a file system that keeps no extended attributes.
"""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path
from queue import SimpleQueue

import pytest

from tests.integration.fuse import fuse, needs_fuse
from tests.integration.http import ask
from tests.integration.test_store_removed import replace_one
from tests.integration.twistd import Twistd

pytestmark = [pytest.mark.integration, needs_fuse]

CLIENTS = 3
CHANGES = 30


class Writers:
    """
    Clients that store and read the values of some keys, all of one length, whose
    content types have the same number.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.wrong: SimpleQueue[str] = SimpleQueue()
        """What should not have been."""
        clients = [
            threading.Thread(target=self._run, args=(client,))
            for client in range(CLIENTS)
        ]
        for each in clients:
            each.start()
        for each in clients:
            each.join()

    def _run(self, client: int) -> None:
        for change in range(CHANGES):
            target, number = f"/folder/{change % 2}", f"{client}-{change:05}"
            if change % 10 == 9:
                self._expect({204, 404}, ask(self._port, "DELETE", target).status)
                continue
            fields = {"Content-Type": f"text/{number}"}
            reply = ask(self._port, "PUT", target, number.encode(), fields)
            self._expect({201, 204}, reply.status)
            reply = ask(self._port, "GET", target)
            self._expect({200, 404}, reply.status)
            if reply.status == 200:
                said = f"text/{reply.body.decode()}"
                self._expect({said}, reply.fields["content-type"])

    def _expect(self, right: set[object], found: object) -> None:
        if found not in right:
            self.wrong.put(f"{found}, not {right}")


@pytest.mark.parametrize("durability", ["disk", "process"])
def test_values_have_their_metadata(tmp_path: Path, durability: str) -> None:
    """
    Each has its own, while workers replace and remove each other's values, and after a
    restart. What other programs place has none. Nothing is left of what is removed.
    """
    options = ["--procs=2", "--policy=roundrobin", "--store=file:values"]
    options += [f"--durability={durability}", "--max-size=100M", "--full=evict"]
    fields = {"Content-Type": "text/x-kvd", "Content-Encoding": "x"}
    facts = "etag", "last-modified", "content-type", "content-encoding"
    with fuse(tmp_path / "values", "--xattr-none") as values:
        with Twistd(options, tmp_path) as daemon:
            port = daemon.port
            writers = Writers(port)
            assert writers.wrong.empty(), writers.wrong.get()
            assert 201 == ask(port, "PUT", "/kept", b"kept", fields).status
            before = ask(port, "GET", "/kept").fields
            assert "text/x-kvd" == before["content-type"]
        assert 1 == "".join(daemon.lines).count("keeps no extended attributes")
        with Twistd(options, tmp_path) as daemon:
            port = daemon.port
            reply = ask(port, "GET", "/kept")
            assert b"kept" == reply.body
            assert all(before[name] == reply.fields[name] for name in facts)
            tag = {"If-None-Match": before["etag"]}
            assert 304 == ask(port, "GET", "/kept", fields=tag).status
            subprocess.run(["cp", values / "kept", values / "placed"], check=True)
            os.rename(values / "placed", values / "kept")
            placed = ask(port, "GET", "/kept").fields
            assert "application/octet-stream" == placed["content-type"]
            assert before["etag"] != placed["etag"]
            for number in range(2):
                ask(port, "DELETE", f"/folder/{number}")
            assert 1 == sum(len(names) for _, _, names in os.walk(attributes(values)))
            assert [".kvd", "kept"] == sorted(os.listdir(values))


def test_values_keep_their_metadata_on_another_file_system(tmp_path: Path) -> None:
    """
    One that could keep extended attributes; workers that start later do as the others.
    """
    options = ["--procs=1", "--store=file:values"]
    shown = ["--procs=1", "--store=file:values-shown"]
    fields = {"Content-Type": "text/x-kvd"}
    with fuse(tmp_path / "values", "--xattr-none"), Twistd(options, tmp_path) as daemon:
        assert 201 == ask(daemon.port, "PUT", "/k", b"value", fields).status
        before = ask(daemon.port, "GET", "/k").fields
    with Twistd(shown, tmp_path) as daemon:
        for _ in range(2):
            found = ask(daemon.port, "GET", "/k").fields
            assert before["etag"] == found["etag"]
            assert "text/x-kvd" == found["content-type"]
            replace_one(daemon)
        assert 201 == ask(daemon.port, "PUT", "/new", b"value", fields).status
    assert 1 == "".join(daemon.lines).count("where kvd began to keep them")
    assert 2 == sum(
        len(names) for _, _, names in os.walk(attributes(tmp_path / "values-shown"))
    )
    assert [] == os.listxattr(tmp_path / "values-shown" / "new")


def attributes(values: Path) -> Path:
    """
    Where the sidecars are.
    """
    return values / ".kvd" / "attributes"
