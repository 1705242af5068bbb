"""
Reads the settings file: TOML, with the names of the command line as keys.

Numbers become texts again, so that the same readers check them: ``4`` and ``"4"`` in
the file mean what ``4`` means on the command line.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from kvd.errors import BadSetting
from kvd.options.choices import CHOICES, Choice, Form
from kvd.options.choosing import Given
from kvd.options.paths import absolute

_BY_KEY = {(choice.table, choice.key or choice.name): choice for choice in CHOICES}
_TABLES = {choice.table for choice in CHOICES} - {None}

# TOML's own names, for messages.
_TYPES: Mapping[type, str] = {
    bool: "a boolean",
    int: "a whole number",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "a table",
}
_SCALARS: Mapping[Form, tuple[type, ...]] = {
    Form.TEXT: (str,),
    Form.WHOLE: (str, int),
    Form.NUMBER: (str, int, float),
}


def read_file(path: str) -> dict[str, list[Given]]:
    """
    Read the texts in a settings file, by the names of the choices.

    Raises:
        BadSetting: The file cannot be read, is not TOML, or has a key or a type of
            value that no setting has.
    """
    path = absolute(path)
    given: dict[str, list[Given]] = {}
    for key, value in _parse(path).items():
        if key not in _TABLES:
            _take(given, None, key, value, path)
            continue
        if not isinstance(value, dict):
            raise _wrong_type(f"{key} in {path}", "a table", value)
        for inner, limit in value.items():
            _take(given, key, inner, limit, path)
    return given


def _parse(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise BadSetting(
            f"the settings file {path} cannot be read: {error.strerror}"
        ) from error
    except ValueError as error:
        # Also UnicodeDecodeError, and numbers too long for int().
        raise BadSetting(f"the settings file {path} is not TOML: {error}") from error


def _take(
    given: dict[str, list[Given]], table: str | None, key: str, value: Any, path: str
) -> None:
    choice = _BY_KEY.get((table, key))
    if choice is None:
        raise _unknown(table, key, path)
    name = f"{table}.{key}" if table else key
    given[choice.name] = _texts(choice, value, f"{name} in {path}")


def _texts(choice: Choice, value: Any, where: str) -> list[Given]:
    if choice.form is Form.TABLE:
        if isinstance(value, dict) and all(isinstance(v, str) for v in value.values()):
            return [Given(f"{k}={v}", where) for k, v in value.items()]
    elif choice.form is Form.LIST:
        if value == [] and choice.defaults:
            raise BadSetting(f"{where} is empty: give at least one, or leave it out")
        if isinstance(value, list) and all(isinstance(v, str) for v in value):
            return [Given(text, where) for text in value]
    # A boolean is an int in Python, but not in TOML.
    elif type(value) in _SCALARS[choice.form]:
        return [Given(str(value), where)]
    raise _wrong_type(where, choice.form.value, value)


def _wrong_type(where: str, right: str, value: Any) -> BadSetting:
    seen = _TYPES.get(type(value), "a date or a time")
    if isinstance(value, list | dict):
        seen += " of other things" if seen in right else ""
    # In TOML's form.
    written = str(value).lower() if isinstance(value, bool) else repr(value)
    return BadSetting(f"{where} has to be {right}, and is {seen}: {written}")


def _unknown(table: str | None, key: str, path: str) -> BadSetting:
    known = [k for t, k in _BY_KEY if t == table]
    if table is None:
        known += sorted(filter(None, _TABLES))
    elsewhere = [t for t, k in _BY_KEY if k == key]
    closest = get_close_matches(key, known, n=1)
    if elsewhere:
        place = f"the table [{elsewhere[0]}]" if elsewhere[0] else "the top of the file"
        hint = f" It belongs in {place}."
    else:
        hint = f" Did you mean {closest[0]!r}?" if closest else ""
    place = f"the table [{table}] of {path}" if table else path
    return BadSetting(
        f"there is no setting {key!r} in {place}; known: {', '.join(known)}.{hint}"
    )
