"""
The changes that commands can make to a running daemon.
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
    The changes by their names; each takes the arguments of a command.

    Args:
        changing: Makes the changes.
    """
    return {
        "policy": lambda arguments: execute(
            changing.policy, _argument(arguments, "policy", str)
        ),
        "shadow": lambda arguments: execute(
            changing.shadow, _or_off(_argument(arguments, "shadow", str))
        ),
        "procs": lambda arguments: changing.resize(_argument(arguments, "procs", int)),
        "drain": lambda arguments: changing.drain(_argument(arguments, "worker", int)),
        "restart": lambda arguments: changing.restart(),
    }


def _argument(arguments: Mapping[str, Any], name: str, kind: type[T]) -> T:
    value = arguments.get(name)
    if type(value) is not kind:
        raise ChangeImpossible(
            f"{name} is {value!r}, and has to be of the type {kind.__name__}"
        )
    return value


def _or_off(name: str) -> str | None:
    return None if name == "off" else name
