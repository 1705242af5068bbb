"""
What ``docs/operating.rst`` says about backups is true.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.integration.http import ask
from tests.integration.twistd import Twistd

pytestmark = pytest.mark.integration

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "operating.rst"
VALUES = {"/one": b"first", "/folder/two": bytes(100_000), "/folder/empty": b""}
FACTS = "etag", "last-modified", "content-type", "content-encoding", "content-length"


def commands(program: str) -> tuple[str, str]:
    """
    The commands of the document that save and restore with a program.
    """
    text = DOCUMENT.read_text().partition("\nUpgrade\n")[0]
    found = re.findall(rf"(?m)^   ({program} .*)$", text)
    assert 2 == len(found)
    return found[0], found[1]


@pytest.mark.parametrize("program", ["rsync", "tar", "cp"])
def test_a_backup_brings_back_values_and_what_is_known_of_them(
    tmp_path: Path, program: str
) -> None:
    """
    While kvd runs, into a store of another kvd: bytes, entity tags and metadata.
    """
    save, restore = (
        command.replace("/var/lib/kvd", str(place)).replace(
            "/backup", str(tmp_path / "backup")
        )
        for command, place in zip(
            commands(program), (tmp_path / "old", tmp_path / "new"), strict=True
        )
    )
    for folder in ("old", "new", "backup"):
        (tmp_path / folder).mkdir()
    if program == "tar":
        (tmp_path / "new" / "values").mkdir()
    before = {}
    options = ["--procs=0", "--durability=process"]
    with Twistd([*options, f"--store=file:{tmp_path}/old/values"], tmp_path) as daemon:
        for key, value in VALUES.items():
            fields = {"Content-Type": "text/x-kvd", "Content-Encoding": "x"}
            assert 201 == ask(daemon.port, "PUT", key, value, fields).status
            before[key] = ask(daemon.port, "GET", key)
        subprocess.run(save, shell=True, check=True)
    subprocess.run(restore, shell=True, check=True)
    with Twistd([*options, f"--store=file:{tmp_path}/new/values"], tmp_path) as daemon:
        for key, value in VALUES.items():
            reply = ask(daemon.port, "GET", key)
            assert value == reply.body
            for name in FACTS:
                assert before[key].fields[name] == reply.fields[name], (key, name)
        tag = before["/one"].fields["etag"]
        assert (
            304 == ask(daemon.port, "GET", "/one", fields={"If-None-Match": tag}).status
        )
