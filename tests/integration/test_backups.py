"""
What ``docs/operating.rst`` says about backups is true.
"""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import closing
from pathlib import Path
from unittest import mock

import pytest
from twisted.internet.defer import execute
from twisted.internet.task import Clock

from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.model.values import Published
from kvd.store.file import FileStore
from tests.integration.http import ask
from tests.integration.twistd import Twistd

pytestmark = pytest.mark.integration

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "operating.rst"
VALUES = {"/one": b"first", "/folder/two": bytes(100_000), "/folder/empty": b""}
FACTS = "etag", "last-modified", "content-type", "content-encoding", "content-length"


def commands(program: str, *, without_attributes: bool = False) -> tuple[str, str]:
    """
    The commands of the document that save and restore with a program.

    Args:
        program: Its name.
        without_attributes: Whether the file system keeps no extended attributes.
    """
    text = DOCUMENT.read_text().partition("\nUpgrade\n")[0]
    usual, _, other = text.partition("keeps no extended attributes")
    found = re.findall(rf"(?m)^   ({program} .*)$", usual)
    if without_attributes:
        # One that is the same is not repeated.
        found = re.findall(rf"(?m)^   ({program} .*)$", other) or found
    assert 2 == len(found)
    return found[0], found[1]


def commands_between(
    program: str, folder: Path, *, without_attributes: bool = False
) -> tuple[str, str]:
    """
    The same, from a store in ``old/values`` and to one in ``new/values``, after what
    they need has been made.
    """
    for name in ("old", "new", "backup"):
        (folder / name).mkdir()
    if program == "tar":
        (folder / "new" / "values").mkdir()
    save, restore = commands(program, without_attributes=without_attributes)
    backup = str(folder / "backup")
    return (
        save.replace("/var/lib/kvd", str(folder / "old")).replace("/backup", backup),
        restore.replace("/var/lib/kvd", str(folder / "new")).replace("/backup", backup),
    )


@pytest.mark.parametrize("program", ["rsync", "tar", "cp"])
def test_a_backup_brings_back_values_and_what_is_known_of_them(
    tmp_path: Path, program: str
) -> None:
    """
    While kvd runs, into a store of another kvd: bytes, entity tags and metadata.
    """
    save, restore = commands_between(program, tmp_path)
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


@pytest.mark.parametrize("program", ["rsync", "tar", "cp"])
def test_a_backup_has_attributes_that_are_files(tmp_path: Path, program: str) -> None:
    """
    Where the file system keeps no extended ones; and nothing else of kvd's, except with
    a program that copies all.
    """
    save, restore = commands_between(program, tmp_path, without_attributes=True)
    (tmp_path / "old" / "values").mkdir(exist_ok=True)
    with (
        mock.patch("kvd.store.keeping.keeps_attributes", return_value=False),
        closing(open_store(tmp_path / "old" / "values")) as store,
    ):
        infos = []
        for key, value in VALUES.items():
            upload = store.begin_at_once(
                Key(key[1:].encode()), len(value), {"content-type": "text/x-kvd"}
            )
            upload.write(value)
            answer = upload.commit(UNCONDITIONAL)
            assert isinstance(answer, Published)
            infos.append(answer.info)
        subprocess.run(save, shell=True, check=True)
        subprocess.run(restore, shell=True, check=True)
        if program != "cp":
            hidden = tmp_path / "new" / "values" / ".kvd"
            assert ["attributes"] == os.listdir(hidden)
        with closing(open_store(tmp_path / "new" / "values")) as restored:
            assert infos == [restored.stat(info.key) for info in infos]


def open_store(folder: Path) -> FileStore:
    """
    A store, without a daemon.
    """
    return FileStore(str(folder), "process", Clock(), execute, writes_back=False)
