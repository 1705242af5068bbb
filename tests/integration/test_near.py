"""
A daemon with a near cache.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.integration.commands import run_kvd
from tests.integration.http import Reply, ask
from tests.integration.small_disk import tmpfs
from tests.integration.test_daemon import refusal
from tests.integration.test_status import status_of, until
from tests.integration.twistd import Twistd

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
MISS = "kvd; fwd=uri-miss"


def taken(cache: Path) -> int:
    """
    What the values in the cache take.
    """
    return sum(
        path.stat().st_size
        for path in cache.rglob("*")
        if path.is_file() and ".kvd" not in path.parts
    )


def test_values_come_from_the_cache(tmp_path: Path) -> None:
    """
    Whole and in part, whichever worker answers; they are always those of the store, and
    never take more than they may.
    """
    seed = random.randrange(1 << 32)
    print(f"{seed=}")
    chance = random.Random(seed)
    near = f"--near=file:{tmp_path}/cache?max-size={4 * MIB}"
    options = ["--store=file:far", near, "--procs=2", f"--control={tmp_path}/c"]
    with Twistd(options, tmp_path) as daemon:

        def get(key: str, fields: dict[str, str] | None = None) -> Reply:
            return ask(daemon.port, "GET", f"/{key}", None, fields)

        values = {}
        for number in range(8):
            values[f"a/{number}"] = chance.randbytes(chance.choice((0, 9, MIB)))
        for key, body in values.items():
            assert 201 == ask(daemon.port, "PUT", f"/{key}", body).status
        for _ in range(60):
            key = chance.choice(list(values))
            if chance.random() < 0.2:
                values[key] = chance.randbytes(chance.choice((9, MIB)))
                assert 204 == ask(daemon.port, "PUT", f"/{key}", values[key]).status
            elif chance.random() < 0.2:
                part = get(key, {"Range": "bytes=3-7"})
                assert part.status in (206, 416, 200)
                if part.status == 206:
                    assert values[key][3:8] == part.body
            else:
                assert values[key] == get(key).body
            assert taken(tmp_path / "cache") <= 4 * MIB
        values["k"] = b"value"
        ask(daemon.port, "PUT", "/k", b"value")
        first = get("k")
        assert MISS == first.fields["cache-status"]
        # A full cache makes room first, and no client waits for that.
        until(lambda: get("k").fields["cache-status"] != MISS)
        statuses = {get("k").fields["cache-status"] for _ in range(4)}
        assert {"kvd; fwd=stale; fwd-status=304"} == statuses
        tag = {"If-None-Match": first.fields["etag"]}
        assert 304 == get("k", tag).status
        status = status_of(tmp_path / "c")
        assert ([], 4 * MIB) == (status["usage"], status["near"]["limit"])
        shown = run_kvd("status", f"--control={tmp_path}/c").stdout
        assert "\nthe near cache takes " in shown
        assert 204 == ask(daemon.port, "DELETE", "/k").status
        assert 404 == get("k").status


def test_a_cache_on_a_full_disk_takes_new_values(tmp_path: Path) -> None:
    """
    Though it may take more than the disk has.
    """
    near = f"--near=file:cache?max-size={100 * MIB}"
    with (
        tmpfs(tmp_path / "cache", "size=8m"),
        Twistd(["--store=file:far", near, "--procs=1"], tmp_path) as daemon,
    ):

        def get(key: str) -> str:
            reply = ask(daemon.port, "GET", key)
            assert (200, body) == (reply.status, reply.body)
            return reply.fields["cache-status"]

        body = bytes(MIB)
        for number in range(12):
            assert 201 == ask(daemon.port, "PUT", f"/{number}", body).status
            get(f"/{number}")
        until(lambda: get("/11") != MISS)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--near=file:cache"], "such as file:./cache?max-size=50GiB"),
        (
            ["--near=file:cache?max-size=1GiB&frehs=1s"],
            "max-size=SIZE&fresh=TIME&stale=TIME",
        ),
        (["--near=null:?max-size=1GiB"], "can have no limits: give file:PATH"),
        (["--near=file:values?max-size=1GiB"], "is the store itself"),
        (["--near=file:link?max-size=1GiB"], "is the store itself"),
        (["--near=file:values/cache?max-size=1GiB"], "one is in the folder of the"),
        (["--near=file:.?max-size=1GiB"], "one is in the folder of the other"),
        (["--near=file:photos?max-size=1GiB"], "photos/2026 is not of a near cache"),
        (["--near=file:cache?max-size=lots"], "'lots'"),
        (
            ["--near=file:cache?max-size=1GiB", "--max-size=1GiB"],
            "leave out --near, or --max-size",
        ),
    ],
)
def test_settings_that_cannot_be(
    tmp_path: Path, options: list[str], sentence: str
) -> None:
    """
    The sentence says what would be right. A cache never gets a folder in which it could
    remove what is not its own.
    """
    (tmp_path / "values").mkdir()
    (tmp_path / "link").symlink_to("values")
    (tmp_path / "photos" / "2026").mkdir(parents=True)
    assert sentence in refusal(["--store=file:values", *options], tmp_path)
