"""
From what was said to one frozen `Settings`.

The command line and the settings file both give texts (`Given`), and both go
through the reader in the setting's row of `choices`, as does the default, so
that no way of saying a thing can differ from another. `command_line` and
`settings_file` only find out what was said, and where.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from kvd.errors import BadSetting, OperatorError
from kvd.model.quantities import format_size
from kvd.options.choices import CHOICES, Choice
from kvd.settings import DialectChoice, Limits, Settings


@dataclass(frozen=True, slots=True)
class Given:
    """
    The text of a setting, and where it was found.
    """

    text: str
    where: str
    """For a sentence: ``--procs``, or ``procs in /etc/kvd.toml``."""


def make_settings(given: Mapping[str, Sequence[Given]]) -> Settings:
    """
    Settings, with the defaults where nothing was given.

    Args:
        given: By the name of the choice; only the last counts for one that is
            not repeatable.

    Raises:
        OperatorError: Something cannot be; the sentence says where it was
            written and what would be right.
    """
    top: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    for choice in CHOICES:
        texts = given.get(choice.name)
        if texts is None:
            texts = [
                Given(text, f"--{choice.name} by default") for text in choice.defaults
            ]
        values = tuple(_read(choice, text) for text in texts)
        into = limits if choice.table == "limits" else top
        into[choice.field] = values if choice.repeatable else values[-1]
    _check_once(given.get("listen", ()), top["listen"])
    _check_once(given.get("dialect", ()), map(_decoded, top["dialects"]))
    _check_once(given.get("allowed-host", ()), top["allowed_hosts"])
    _check_apart(top["access_log"], top["record"])
    _fit_target(given, limits)
    return Settings(**top, limits=Limits(**limits))


def _read(choice: Choice, given: Given) -> object:
    try:
        return choice.read(given.text)
    except OperatorError as error:
        # Of the same kind, so that nobody has to look for the cause.
        raise type(error)(f"{given.where}: {error.sentence}") from error


def _decoded(dialect: DialectChoice) -> bytes:
    return unquote_to_bytes(dialect.prefix)


def _check_once(given: Sequence[Given], values: Iterable[object]) -> None:
    seen: dict[object, Given] = {}
    for text, value in zip(given, values, strict=False):
        first = seen.setdefault(value, text)
        if first is not text:
            raise BadSetting(
                f"{text.where}: {text.text!r} says the same as {first.text!r}"
                " before it: give it once"
            )


def _check_apart(access_log: str | None, record: str | None) -> None:
    if access_log is not None and access_log == record:
        raise BadSetting(
            f"--access-log and --record both write {record!r}, and neither could be"
            " read again: give each a file of its own"
        )


def _fit_target(given: Mapping[str, Sequence[Given]], limits: dict[str, Any]) -> None:
    # A target is part of the head. Only who asks for the impossible is told.
    if limits["target_bytes"] <= limits["head_bytes"]:
        return
    if "max-target" in given:
        text = given["max-target"][-1]
        raise BadSetting(
            f"{text.where}: {text.text!r} is more than a whole head may have (max-head"
            f" is {format_size(limits['head_bytes'])}): give less, or raise max-head"
        )
    limits["target_bytes"] = limits["head_bytes"]
