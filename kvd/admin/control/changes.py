"""
What commands may ask a running daemon to change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import execute

from kvd.errors import ChangeImpossible
from kvd.workers.changes import Changing

if TYPE_CHECKING:
    from kvd.admin.control.site import Change

T = TypeVar("T")


def changes_by(changing: Changing) -> Mapping[str, Change]:
    """
    Each change by its name, which takes what the command said.

    Args:
        changing: Makes them.
    """
    return {
        "policy": lambda said: execute(changing.policy, _said(said, "policy", str)),
        "shadow": lambda said: execute(
            changing.shadow, _or_off(_said(said, "shadow", str))
        ),
        "procs": lambda said: changing.resize(_said(said, "procs", int)),
        "drain": lambda said: changing.drain(_said(said, "worker", int)),
        "restart": lambda said: changing.restart(),
    }


def _said(said: Mapping[str, Any], name: str, kind: type[T]) -> T:
    value = said.get(name)
    if type(value) is not kind:
        raise ChangeImpossible(
            f"{name} is {value!r}, and has to be of the type {kind.__name__}"
        )
    return value


def _or_off(name: str) -> str | None:
    return None if name == "off" else name
