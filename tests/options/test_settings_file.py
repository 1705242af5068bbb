"""
Tests of the settings file.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kvd.errors import BadSetting
from kvd.options.choices import CHOICES
from kvd.options.choosing import Given
from kvd.options.settings_file import read_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """
    The path of the file.
    """
    return tmp_path / "kvd.toml"


def refusal(path: Path, text: str | bytes) -> str:
    """
    The message with which a file with this text is refused.
    """
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BadSetting) as caught:
        read_file(str(path))
    return caught.value.sentence


def test_keys_have_the_names_of_the_options(path: Path) -> None:
    """
    Numbers become the texts that they would be on the command line.
    """
    path.write_text(
        'procs = 4\nstore = "null:"\ndrain-timeout = 1.5\nlisten = ["tcp:1", "tcp:2"]\n'
        '[limits]\nmax-head = "4KiB"\nmax-fields = 10\n'
        '[dialects]\n"/" = "classic"\n"/a/" = "plain"\n'
    )

    assert {
        "procs": [Given("4", f"procs in {path}")],
        "store": [Given("null:", f"store in {path}")],
        "drain-timeout": [Given("1.5", f"drain-timeout in {path}")],
        "listen": [
            Given("tcp:1", f"listen in {path}"),
            Given("tcp:2", f"listen in {path}"),
        ],
        "max-head": [Given("4KiB", f"limits.max-head in {path}")],
        "max-fields": [Given("10", f"limits.max-fields in {path}")],
        "dialect": [
            Given("/=classic", f"dialects in {path}"),
            Given("/a/=plain", f"dialects in {path}"),
        ],
    } == read_file(str(path))


def test_an_empty_file_sets_nothing(path: Path) -> None:
    """
    The defaults stay.
    """
    path.write_text("# nothing\n[limits]\n")

    assert {} == read_file(str(path))


def test_what_may_be_none_may_be_an_empty_list(path: Path) -> None:
    """
    A daemon needs an address, but no further hosts.
    """
    path.write_text("allowed-hosts = []\n")

    assert {"allowed-host": []} == read_file(str(path))


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        (
            "procs in FILE has to be a whole number, or a string, and is a number: 4.0",
            "procs = 4.0",
        ),
        (
            "splice in FILE has to be a string, and is a boolean: false",
            "splice = false",
        ),
        (
            "procs in FILE has to be a whole number, or a string, and is an array",
            "procs = [4]",
        ),
        ("store in FILE has to be a string, and is a whole number: 1", "store = 1"),
        ("store in FILE has to be a string, and is a table", "[store]"),
        (
            "policy in FILE has to be a string, and is a date or a time",
            "policy = 2020-02-02",
        ),
        (
            "drain-timeout in FILE has to be a number, or a string",
            "drain-timeout = false",
        ),
        (
            "listen in FILE has to be an array of strings, and is a string",
            'listen = "tcp:1"',
        ),
        (
            "listen in FILE has to be an array of strings, and is an array of other",
            "listen = [1]",
        ),
        ("listen in FILE is empty", "listen = []"),
        (
            "dialects in FILE has to be a table of strings, and is a table of",
            "dialects = {a = 1}",
        ),
        (
            "dialects in FILE has to be a table of strings, and is an array",
            "dialects = []",
        ),
        ("limits in FILE has to be a table, and is a whole number: 1", "limits = 1"),
        (
            "limits.max-head in FILE has to be a whole number, or a st",
            "limits = {max-head=1.0}",
        ),
    ],
)
def test_wrong_types_are_named_by_key_and_file(
    path: Path, expected: str, text: str
) -> None:
    """
    With the right type and the actual one, in TOML's terms.
    """
    assert expected.replace("FILE", str(path)) in refusal(path, text)


def test_unknown_keys_are_answered_with_the_known(path: Path) -> None:
    """
    All keys of that table, and the closest one.
    """
    sentence = refusal(path, "proc = 4")

    assert f"there is no setting 'proc' in {path}; known: listen, " in sentence
    assert "dialects, " in sentence
    assert sentence.endswith("limits. Did you mean 'procs'?")


def test_unknown_limits_are_answered_with_the_limits(path: Path) -> None:
    """
    The table has names of its own.
    """
    sentence = refusal(path, "[limits]\nhead-max = 1")

    assert f"there is no setting 'head-max' in the table [limits] of {path}" in sentence
    assert "known: max-head, max-fields" in sentence
    assert "procs" not in sentence


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        ("It belongs in the table [limits].", "max-head = 1"),
        ("It belongs in the top of the file.", "[limits]\ndrain-timeout = 1"),
    ],
)
def test_keys_in_the_wrong_table_are_shown_the_right_one(
    path: Path, expected: str, text: str
) -> None:
    """
    A key that exists elsewhere is not a typing error.
    """
    assert expected in refusal(path, text)


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        ("(at line 2, column 5)", b"# one\nx = \n"),
        ("is not TOML", b"procs = 4\nprocs = 5\n"),
        ("is not TOML", b"store = 'file:\xff'\n"),
        ("is not TOML", b"procs = " + b"9" * 5000),
    ],
)
def test_what_is_not_toml_is_refused(path: Path, expected: str, text: bytes) -> None:
    """
    With the file and, as far as the parser knows it, the line.
    """
    sentence = refusal(path, text)

    assert sentence.startswith(f"the settings file {path} is not TOML: ")
    assert expected in sentence


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    """
    A folder is no file.
    """
    with pytest.raises(BadSetting, match=f"{tmp_path} cannot be read: Is a directory"):
        read_file(str(tmp_path))


def test_no_two_settings_share_a_name() -> None:
    """
    Neither on the command line nor in the file.
    """
    names = [choice.name for choice in CHOICES]

    assert sorted(set(names)) == sorted(names)
