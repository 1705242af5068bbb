"""
``kvd sync`` between folders.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.integration.commands import run_kvd, start_kvd
from tests.integration.http import ask
from tests.integration.test_daemon import refusal
from tests.integration.twistd import Twistd

pytestmark = pytest.mark.integration

VALUES = 200


def values_in(folder: Path) -> list[Path]:
    """
    All values in the folder of a store, also while it is opened: a probe of what the
    file system can do may be there.
    """
    return [
        path
        for path in folder.rglob("*")
        if not any(part.startswith(".kvd") for part in path.relative_to(folder).parts)
        if path.is_file()
    ]


def digests(folder: Path) -> dict[str, str]:
    """
    Of all values in the folder of a store.
    """
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in values_in(folder)
    }


def test_interrupted_runs_end_with_equal_digests(tmp_path: Path) -> None:
    """
    Killed, or asked to end, at any moment; then the command is given again. No half
    value is ever there, and nothing that a run has begun is left.
    """
    seed = random.randrange(1 << 32)
    print(f"{seed=}")
    chance = random.Random(seed)
    source, destination = tmp_path / "source", tmp_path / "destination"
    for number in range(VALUES):
        path = source / f"{number % 7}" / f"{number:x}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(
            chance.randbytes(chance.choice((0, 10, 5_000, 1_500_000 // 8)))
        )
    expected = digests(source)
    command = ["sync", f"file:{source}", f"file:{destination}", "--durability=process"]

    for number in range(4):
        run = start_kvd(command, tmp_path)
        deadline = time.monotonic() + 60
        enough = len(values_in(destination)) + 20
        while len(values_in(destination)) < enough and time.monotonic() < deadline:
            time.sleep(0.005)
        ending = chance.choice((signal.SIGKILL, signal.SIGINT, signal.SIGTERM))
        os.kill(run.pid, ending)
        _, errors = run.communicate(timeout=60)
        assert (b"", number) == (errors, number)
        found = digests(destination)
        assert {key: expected[key] for key in found} == found
    ended = run_kvd(*command)

    assert (0, "") == (ended.returncode, ended.stderr)
    assert expected == digests(destination)
    again = run_kvd(*command, "--checksum")
    assert f"0 copied (0 bytes), {VALUES} equal\n" == again.stdout
    assert [] == list((destination / ".kvd").glob("*/*"))


def test_metadata_is_served_from_the_copy(tmp_path: Path) -> None:
    """
    While a daemon serves the source; what clients upload goes to the next run.
    """
    source, copy = f"file:{tmp_path}/values", f"file:{tmp_path}/copy"
    headers = {"content-type": "text/x-film", "cache-control": "max-age=5"}
    with Twistd([f"--store={source}", "--durability=process"], tmp_path) as daemon:
        assert 201 == ask(daemon.port, "PUT", "/films/one", b"1", headers).status
        assert "1 copied (1 bytes), 0 equal\n" == run_kvd("sync", source, copy).stdout
        assert 204 == ask(daemon.port, "PUT", "/films/one", b"2", headers).status
        assert "1 copied (1 bytes), 0 equal\n" == run_kvd("sync", source, copy).stdout
    with Twistd([f"--store={copy}"], tmp_path) as daemon:
        reply = ask(daemon.port, "GET", "/films/one")

    assert b"2" == reply.body
    assert headers == {name: reply.fields[name] for name in headers}


def test_clients_use_both_stores_while_values_move(tmp_path: Path) -> None:
    """
    They read what they wrote, whichever worker answers, and afterwards all of it is in
    the new store.
    """
    seed = random.randrange(1 << 32)
    print(f"{seed=}")
    chance = random.Random(seed)
    old = tmp_path / "old"
    expected = {f"{number % 5}/{number}": b"old" for number in range(100)}
    for key, body in expected.items():
        (old / key).parent.mkdir(parents=True, exist_ok=True)
        (old / key).write_bytes(body)
    stores = ["--store=file:new", "--fallback-store=file:old"]
    with Twistd([*stores, "--procs=2", "--durability=process"], tmp_path) as daemon:
        moving = start_kvd(["sync", "file:old", "file:new"], tmp_path)
        for number in range(60):
            # Values are written and read while they move; removed only before.
            key = chance.choice(list(expected))
            if chance.random() < 0.5:
                expected[key] = b"%d" % number
                assert 204 == ask(daemon.port, "PUT", f"/{key}", expected[key]).status
            assert expected[key] == ask(daemon.port, "GET", f"/{key}").body
        moving.communicate(timeout=60)
        assert 0 == moving.wait()
        for key in list(expected)[::3]:
            assert 204 == ask(daemon.port, "DELETE", f"/{key}").status
            assert 404 == ask(daemon.port, "GET", f"/{key}").status
            del expected[key]
        listing = ask(daemon.port, "GET", "/").body.splitlines()
        assert sorted(expected) == sorted(json.loads(line)["key"] for line in listing)
        for key, body in expected.items():
            assert body == ask(daemon.port, "GET", f"/{key}").body

    found = {key: (tmp_path / "new" / key).read_bytes() for key in expected}
    assert expected == found


@pytest.mark.parametrize(
    ("fallback", "sentence"),
    [
        ("file:values", "cannot be both --store and --fallback-store"),
        ("file:vlaues", "vlaues cannot be opened: No such file or directory"),
        ("values", "such as file:values"),
    ],
)
def test_a_fallback_must_exist(tmp_path: Path, fallback: str, sentence: str) -> None:
    """
    Otherwise a mistake in its name would be noticed by its missing values.
    """
    (tmp_path / "values").mkdir()
    options = ["--store=file:values", f"--fallback-store={fallback}"]
    assert sentence in refusal(options, tmp_path)


@pytest.mark.parametrize(
    "limits",
    [
        ["--ttl=1h"],
        ["--max-size=1GiB", "--full=evict"],
        ["--min-free=1GiB", "--full=evict"],
        ["--quota=/a/=1GiB:full=evict"],
        ["--quota=/a/=1GiB:ttl=1h"],
    ],
)
def test_no_limit_uncovers_older_values(tmp_path: Path, limits: list[str]) -> None:
    """
    When a value goes by itself, the fallback's older one would be read under its key.
    """
    (tmp_path / "old").mkdir()
    options = ["--store=file:new", "--fallback-store=file:old", *limits]
    assert "would show what it replaced" in refusal(options, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["file:a", "file:./a"], "it is the same store"),
        (["file:.", "file:backup"], "one is in the folder of the other"),
        (["values", "file:a"], "'values' does not say what kind of store it is"),
        (
            ["http://127.0.0.1/", "file:a"],
            "is a store, and 'http://127.0.0.1/' a daemon",
        ),
        (["file:absent", "file:a"], "absent cannot be opened: No such file"),
        (["fiel:a", "file:b"], "Did you mean 'file'?"),
        (["file:a"], "Missing argument 'DESTINATION'"),
    ],
)
def test_mistakes(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    """
    One sentence, and nothing is created.
    """
    ended = run_kvd("sync", *arguments, folder=tmp_path)

    assert ended.returncode in (1, 2)
    assert sentence in ended.stderr
    assert 1 == ended.stderr.count("\n")
    assert "" == ended.stdout
    assert [] == list(tmp_path.iterdir())


def test_an_empty_source_removes_nothing(tmp_path: Path) -> None:
    """
    Unless it is forced: a disk that is not mounted is empty.
    """
    (tmp_path / "source").mkdir()
    kept = tmp_path / "kept" / "one"
    kept.parent.mkdir()
    kept.write_bytes(b"one")
    command = ["sync", f"file:{tmp_path}/source", f"file:{tmp_path}/kept", "--delete"]

    refused = run_kvd(*command)
    assert 1 == refused.returncode
    assert "source has no values, so --delete would remove all of" in refused.stderr
    assert kept.exists()
    assert "1 removed" in run_kvd(*command, "--force").stdout
    assert not kept.exists()
