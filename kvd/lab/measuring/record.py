"""
What was measured, as JSON for another program.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, TypeVar

import cattrs

T = TypeVar("T")


def write_record(path: str, record: Any) -> None:
    """
    Write dataclasses, mappings, sequences and numbers; not a number is written as
    null.
    """
    with open(path, "w", encoding="utf-8") as file:
        json.dump(_plain(record), file, indent=1, allow_nan=False)
        file.write("\n")


def read_record(path: str, kind: type[T]) -> T:
    """
    Read what `write_record` wrote of a dataclass.
    """
    with open(path, encoding="utf-8") as file:
        return cattrs.structure(json.load(file), kind)


def _plain(value: Any) -> Any:
    """
    What JSON has, which is nothing that is not a number.
    """
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return _plain(cattrs.unstructure(value)) if is_dataclass(value) else value
