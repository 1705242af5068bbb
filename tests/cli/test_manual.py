"""
Tests for `kvd.cli.manual`.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from kvd.cli import manual
from kvd.cli.main import COMMANDS, commands
from kvd.options.choices import CHOICES

REQUESTS = {"TH", "SH", "PP", "TP", "B", "BR", "nf", "fi", "br"}
"""
What of man(7) the pages use.
"""


def shown(page: str) -> str:
    """
    The text of a page, with single blanks.
    """
    text = page.replace("\\-", "-").replace("\\(aq", "'").replace("\\(ga", "`")
    return " ".join(text.replace("\\e", "\\").split())


def test_each_command_has_a_page() -> None:
    """
    And so have the commands of a command.
    """
    pages = manual.pages()

    assert {"kvd.1", *(f"kvd-{name}.1" for name in COMMANDS)} <= pages.keys()
    assert "kvd-user-add.1" in pages


def test_pages_have_requests_that_are_known() -> None:
    """
    No line of text is taken for one, as one that begins with a dot or a quote would.
    """
    for page in manual.pages().values():
        requests = re.findall(r"(?m)^\.(\S*)", page)
        assert {*requests} <= REQUESTS
        assert not re.findall(r"(?m)^'", page)
        assert re.match(
            r"\.TH \S+ 1 \d{4}-\d\d-\d\d \"kvd \S+\" kvd\n\.SH NAME\n", page
        )


def test_the_page_of_the_daemon_has_all_options() -> None:
    """
    With what ``--help`` says of each.
    """
    page = shown(manual.pages()["kvd-serve.1"])
    for choice in CHOICES:
        assert f"--{choice.name} " in page
        assert " ".join(choice.description.split()) in page


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {"serve"}))
def test_pages_of_commands_have_what_help_says(name: str) -> None:
    """
    Every word of it, but for how it is laid out.
    """
    page = shown(manual.pages()[f"kvd-{name}.1"])
    helped = CliRunner().invoke(commands, [name, "--help"], terminal_width=1000).output

    for option in re.findall(r"(?m)^  (?:-\w, )?(--[\w-]+)", helped):
        assert option in page


@pytest.mark.parametrize("text", [".dot", "'quote", "a\\b", "--option"])
def test_text_is_no_request(text: str) -> None:
    """
    It is shown as it is.
    """
    escaped = manual.roff(text)

    assert escaped[0] not in ".'"
    assert text == shown(escaped.replace("\\&", ""))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_asks_kvd(shell: str) -> None:
    """
    So what is completed is what is installed.
    """
    script = manual.completions()[manual.COMPLETIONS[shell]]

    assert f"_KVD_COMPLETE={shell}_complete" in script


@pytest.mark.parametrize("line", ["put films/ ", "get films/one ", "sync ", "sync a "])
def test_files_are_completed(line: str) -> None:
    """
    Where a command takes one.
    """
    completed = CliRunner().invoke(
        commands,
        prog_name="kvd",
        env={
            "_KVD_COMPLETE": "bash_complete",
            "COMP_WORDS": f"kvd {line}x",
            "COMP_CWORD": str(len(line.split()) + 1),
        },
    )

    assert "file,x\n" == completed.output


def test_options_of_the_daemon_are_completed() -> None:
    """
    Which click does not know.
    """
    completed = CliRunner().invoke(
        commands,
        prog_name="kvd",
        env={
            "_KVD_COMPLETE": "bash_complete",
            "COMP_WORDS": "kvd serve --max-h",
            "COMP_CWORD": "2",
        },
    )

    assert "plain,--max-head\n" == completed.output


def test_all_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Below a folder, as of a distribution.
    """
    monkeypatch.setattr("sys.argv", ["manual", str(tmp_path)])
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    manual.main()

    assert "1970-01-01" in (tmp_path / "man/man1/kvd.1").read_text()
    for path in manual.COMPLETIONS.values():
        assert (tmp_path / path).stat().st_size
