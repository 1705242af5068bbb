"""
The documents can be read by docutils, and what they show is true.

``CONTRIBUTING.rst`` says how examples are written.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from doctest import ELLIPSIS, OutputChecker
from functools import cache
from pathlib import Path

import pytest
from docutils import nodes
from docutils.core import publish_doctree

from tests.integration.commands import as_shell_command, command_server
from tests.integration.http import ask
from tests.integration.twistd import Twistd
from tests.ports import unused_port

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.rst"), *ROOT.glob("docs/**/*.rst")])
START = re.compile(r"(?:twistd -n kvd|make serve|kvd serve)(.*)", re.DOTALL)
INSTALL = re.compile(r"pip install (\./\S+)")
ACTIVATE = ". .venv/bin/activate"
COMMAND_SECONDS = 240
"""
Of the longest example on a busy machine; still less than the timeout of a test.
"""

every_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)


@dataclass
class Example:
    """
    One command of a document.
    """

    command: str
    expected: str = ""
    """What is shown of its output; empty where nothing is."""


@cache
def read(path: Path) -> nodes.document:
    """
    A document; whatever docutils could warn of is an error.
    """
    settings = {"report_level": 1, "halt_level": 1, "syntax_highlight": "none"}
    text = path.read_text(encoding="utf-8")
    return publish_doctree(text, str(path), settings_overrides=settings)


def blocks(path: Path, language: str) -> list[str]:
    """
    The texts of a document's code blocks in a language.
    """
    return [
        block.astext()
        for block in read(path).findall(nodes.literal_block)
        if language in block["classes"]
    ]


def examples(block: str) -> Iterator[Example]:
    """
    The commands of one block, with what they print.
    """
    example: Example | None = None
    for line in block.splitlines():
        if line.startswith("$ "):
            if example is not None:
                yield example
            example = Example(line[2:])
            continue
        assert example is not None, f"output before any command: {line!r}"
        if line == ">" or line.startswith("> "):
            example.command += "\n" + line[2:]
        else:
            example.expected += line + "\n"
    if example is not None:
        yield example


def no_kvd(folder: str) -> bool:
    """
    Whether a folder of programs has none of kvd.
    """
    return not os.path.exists(os.path.join(folder, "kvd"))


class Reader:
    """
    Somebody who types what a document shows.
    """

    def __init__(self, folder: Path, daemons: ExitStack, activated: bool) -> None:
        """
        Args:
            folder: Where they are.
            daemons: Ends what they started.
            activated: Whether their shell finds what is installed beside kvd.
        """
        self._folder = folder
        self._daemons = daemons
        # Known before: it stands in the commands and in what they print.
        self._port = unused_port()
        self._environment = os.environ | {
            "PATH": os.pathsep.join(filter(no_kvd, os.environ["PATH"].split(":"))),
            "COLUMNS": "80",
            "KVD_URL": f"http://127.0.0.1:{self._port}",
        }
        # What they run takes several times as long while its coverage is measured, and
        # other tests run all of it, too.
        self._environment.pop("COVERAGE_PROCESS_CONFIG", None)
        if activated:
            self._activate()

    def try_out(self, example: Example) -> None:
        """
        Type one command.
        """
        command = example.command.replace("8080", str(self._port))
        if command == "make test":
            return
        if command == ACTIVATE:
            self._activate()
            return
        start = START.fullmatch(command)
        if start:
            self._start(shlex.split(start[1]))
            return
        install = INSTALL.fullmatch(command)
        if install:
            self._install(install[1])
            return
        ended = subprocess.run(
            ["bash", "-c", command],
            cwd=self._folder,
            env=self._environment,
            pass_fds=[command_server().fileno()],
            stdout=subprocess.PIPE,
            text=True,
            timeout=COMMAND_SECONDS,
        )
        expected = example.expected.replace("8080", str(self._port))
        # A document cannot show whether a last line ends.
        printed = ended.stdout.rstrip("\n") + "\n"
        assert not expected or OutputChecker().check_output(
            expected, printed, ELLIPSIS
        ), f"{command}\nshould print\n{expected}but printed\n{ended.stdout}"
        assert 0 == ended.returncode, command

    def _activate(self) -> None:
        forked = self._folder.with_name(self._folder.name + "-programs")
        forked.mkdir()
        self._environment |= as_shell_command(forked)
        programs = os.path.dirname(sys.executable)
        path = f"{forked}:{programs}:{self._environment['PATH']}"
        self._environment["PATH"] = path

    def _install(self, package: str) -> None:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        # No isolation: what builds it is here already, and no network is asked.
        alone = ["--disable-pip-version-check", "--no-build-isolation"]
        subprocess.run(
            [*pip, *alone, f"--target={self._folder / 'site'}", package],
            cwd=self._folder,
            timeout=COMMAND_SECONDS,
            check=True,
        )
        # Of this reader alone. Only a new Python looks there.
        paths = [str(self._folder / "site"), os.environ.get("PYTHONPATH")]
        self._environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        programs = self._folder.with_name(self._folder.name + "-programs")
        (programs / "kvd").unlink()

    def _start(self, options: list[str]) -> None:
        self._daemons.close()
        if not any(option.startswith(("-l", "--listen")) for option in options):
            options = [*options, f"--listen=tcp:{self._port}:interface=127.0.0.1"]
        daemon = Twistd(options, self._folder, environment=self._environment)
        self._daemons.enter_context(daemon)


@every_document
def test_documents_are_plain_restructuredtext(path: Path) -> None:
    """
    docutils alone reads them, without a warning.
    """
    assert read(path).children


@every_document
def test_links_lead_somewhere(path: Path) -> None:
    """
    What a document refers to in the repository is there.
    """
    targets = [
        str(reference["refuri"])
        for reference in read(path).findall(nodes.reference)
        if "refuri" in reference and ":" not in reference["refuri"]
    ]

    assert [] == [name for name in targets if not (path.parent / name).exists()]


@every_document
def test_shell_is_proper(path: Path) -> None:
    """
    Blocks that are only shown can at least be parsed.
    """
    for block in blocks(path, "sh"):
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)


@pytest.mark.integration
@every_document
def test_examples_are_true(path: Path, tmp_path: Path) -> None:
    """
    Every command succeeds, and prints what is shown. What the README's reader has
    not been asked to make or to activate is not there.
    """
    with ExitStack() as daemons:
        # The README says how kvd is found; the other documents are read afterwards.
        reader = Reader(tmp_path, daemons, activated=path.name != "README.rst")
        for block in blocks(path, "console"):
            for example in examples(block):
                reader.try_out(example)


@pytest.mark.integration
@every_document
def test_programs_are_true(path: Path, tmp_path: Path) -> None:
    """
    Each is given a daemon's URL, a key and a file that it may write.
    """
    for program in blocks(path, "python"):
        options = ["--store=file:values", "--durability=process", "--control=off"]
        with Twistd(options, tmp_path) as daemon:
            ask(daemon.port, "PUT", "/a/key", b"value")
            url = f"http://127.0.0.1:{daemon.port}"
            arguments = [url, "a/key", "file"]
            ended = subprocess.run(
                [sys.executable, "-c", program, *arguments],
                cwd=tmp_path,
                timeout=COMMAND_SECONDS,
            )
        assert 0 == ended.returncode
        assert b"value" == (tmp_path / "file").read_bytes()


def test_pictures_are_drawn_from_what_is_there(tmp_path: Path) -> None:
    """
    One of them shows the layers of the import contract. ``python
    docs/pictures/draw.py`` draws them again.
    """
    pictures = ROOT / "docs" / "pictures"

    subprocess.run([sys.executable, pictures / "draw.py", tmp_path], check=True)

    drawn = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert drawn
    assert drawn == {name: (pictures / name).read_text() for name in drawn}


def test_the_first_commands_are_those_of_the_makefile() -> None:
    """
    The first screen of the README has two commands, which make knows.
    """
    first, *_ = blocks(ROOT / "README.rst", "console")
    commands = [example.command for example in examples(first)]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    assert ["make serve", "make test"] == commands
    for command in commands:
        assert f"\n{command.removeprefix('make ')}: " in makefile


def test_the_build_runs_what_the_readme_says() -> None:
    """
    ``.ci/run`` ends with the README's own test command, which knows what it needs.
    """
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")

    assert "exec make test" == script.splitlines()[-1]
