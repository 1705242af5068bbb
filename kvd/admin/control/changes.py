"""
The changes that commands can make to a running daemon.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import execute

from kvd.errors import ChangeImpossible
from kvd.workers.changes import Changes

if TYPE_CHECKING:
    from kvd.admin.control.site import Change

T = TypeVar("T")


def changes_by(changes: Changes) -> Mapping[str, Change]:
    """
    The changes by their names; each takes the arguments of a command.

    Args:
        changes: Makes the changes.
    """
    return {
        "policy": lambda arguments: execute(
            changes.policy, _argument(arguments, "policy", str)
        ),
        "shadow": lambda arguments: execute(
            changes.shadow, _or_off(_argument(arguments, "shadow", str))
        ),
        "procs": lambda arguments: changes.resize(_argument(arguments, "procs", int)),
        "drain": lambda arguments: changes.drain(_argument(arguments, "worker", int)),
        "restart": lambda arguments: changes.restart(),
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
