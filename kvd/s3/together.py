"""
Several requests at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar, cast

from twisted.internet.defer import Deferred, FirstError, gatherResults

T = TypeVar("T")


async def together(asked: Sequence[Deferred[T]]) -> list[T]:
    """
    All results, in the order of what was asked for.

    Raises:
        Exception: What the first of them failed with.
    """
    try:
        return cast(list[T], await gatherResults(asked, consumeErrors=True))
    except FirstError as first:
        first.subFailure.raiseException()
