"""
The scripts in ``examples/`` do what they say.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.http import ask
from tests.integration.twistd import Twistd
from tests.patience import PATIENCE_SECONDS

pytestmark = pytest.mark.integration

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twistd]:
    """
    One for all examples.
    """
    folder = tmp_path_factory.mktemp("daemon")
    options = [f"--store=file:{folder}/values", "--durability=process", "--procs=2"]
    with Twistd([*options, "--control=off"], folder) as twistd:
        yield twistd


def start(name: str, port: int, *arguments: str) -> subprocess.Popen[str]:
    """
    Begin an example.
    """
    return subprocess.Popen(
        [sys.executable, str(EXAMPLES / name), f"http://127.0.0.1:{port}", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_without_its_arguments_it_says_how_it_is_called(name: str) -> None:
    """
    In the words that it begins with.
    """
    command = [sys.executable, str(EXAMPLES / name)]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )

    assert (1, "") == (ended.returncode, ended.stdout)
    assert f"python {name} http://127.0.0.1:8080" in ended.stderr
    assert "Traceback" not in ended.stderr


def run(name: str, port: int, *arguments: str) -> str:
    """
    What an example prints.
    """
    process = start(name, port, *arguments)
    out, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert 0 == process.returncode, out
    return out


def test_put_and_get(daemon: Twistd) -> None:
    """
    The smallest one.
    """
    out = run("put_and_get.py", daemon.port).splitlines()

    assert ["Hello, world!", "removed"] == out[1:]
    assert out[0].startswith('kept, as version "')
    assert 404 == ask(daemon.port, "GET", "/greetings/hello").status


def test_stream_file(daemon: Twistd, tmp_path: Path) -> None:
    """
    The copy is the file.
    """
    (tmp_path / "file").write_bytes(os.urandom(5_000_000))
    paths = str(tmp_path / "file"), str(tmp_path / "copy")

    assert "5000000 bytes went and came\n" == run("stream_file.py", daemon.port, *paths)
    assert (tmp_path / "file").read_bytes() == (tmp_path / "copy").read_bytes()


def test_list_pages(daemon: Twistd) -> None:
    """
    Each key once, also those that need escaping, whatever the page's length.
    """
    for number in range(7):
        ask(daemon.port, "PUT", f"/pages/a%20{number}%25", b"x" * number)
    ask(daemon.port, "PUT", "/other", b"")
    listed = [f"{number:>12} pages/a%20{number}%25" for number in range(7)]
    for page in ("3", "7", "100"):
        out = run("list_pages.py", daemon.port, "pages/", page)
        assert listed == out.splitlines()


def test_count(daemon: Twistd) -> None:
    """
    Two count at once, and no count is lost.
    """
    both = [start("count.py", daemon.port, "20") for _ in range(2)]
    for process in both:
        out, _ = process.communicate(timeout=PATIENCE_SECONDS)
        assert 0 == process.returncode, out

    assert b"40" == ask(daemon.port, "GET", "/counter").body
