"""
A policy's arrangement: which worker accepts from which socket.

A policy may be third-party code. It is asked before it is put in force, and its answers
are checked, so that the operator sees what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from twisted.python.reflect import safe_repr, safe_str

from kvd.errors import BrokenPlugin
from kvd.interfaces import IDispatchPolicy


@dataclass(frozen=True, slots=True)
class Arrangement:
    """
    The arrangement of a policy for a number of workers.
    """

    kernel_chooses: bool
    group_size: int
    members: tuple[frozenset[int], ...]
    """For each worker, the members of the group that it accepts from."""


@dataclass(frozen=True, slots=True)
class ChosenPolicy:
    """
    A policy, and how it is arranged for a number of workers.
    """

    name: str
    """As the operator wrote it."""
    policy: IDispatchPolicy
    arrangement: Arrangement


def arrange(name: str, policy: IDispatchPolicy, workers: int) -> Arrangement:
    """
    Ask a policy for its arrangement.

    Args:
        name: The policy as the operator wrote it, for the message.
        policy: The policy to ask.
        workers: The number of workers; at least 1.

    Raises:
        BrokenPlugin: The policy fails, or no worker would accept some connections.
    """
    try:
        arrangement = Arrangement(
            bool(policy.kernel_chooses),
            policy.group_size(workers),
            tuple(
                frozenset(policy.members_of(worker, workers))
                for worker in range(workers)
            ),
        )
        wrong = next(_mistakes(arrangement), None)
    except Exception as error:
        wrong = f"fails with {type(error).__name__}: {safe_str(error)}"
        raise BrokenPlugin(_sentence(name, workers, wrong)) from error
    if wrong is not None:
        raise BrokenPlugin(_sentence(name, workers, wrong))
    return arrangement


def _sentence(name: str, workers: int, wrong: str) -> str:
    return f"the policy {name!r}, asked for the sockets of {workers} workers, {wrong}"


def _mistakes(said: Arrangement) -> Iterator[str]:
    if type(said.group_size) is not int or said.group_size < 1:
        yield f"wants {safe_repr(said.group_size)} of them; 1 or more would be right"
        return
    group = range(said.group_size)
    for worker, members in enumerate(said.members):
        for member in members:
            if type(member) is not int or member not in group:
                yield (
                    f"names socket {safe_repr(member)} for worker {worker}; there"
                    f" are 0 to {group[-1]}"
                )
        if said.kernel_chooses and not members:
            yield f"names none for worker {worker}, which would never be used"
        if members and not said.kernel_chooses:
            yield f"names some for worker {worker}, although the supervisor accepts"
    if said.kernel_chooses:
        for orphan in set(group).difference(*said.members):
            yield f"names nobody for socket {orphan}, whose connections would hang"
