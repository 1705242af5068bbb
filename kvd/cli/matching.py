"""
The values that a pattern or a prefix on the command line stands for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime

import click

from kvd.cli.errors import ABSENT
from kvd.cli.patterns import Pattern
from kvd.client import Client, Entry, NotKvd
from kvd.model.reserved import is_reserved


class NothingFound(click.ClickException):
    """
    No key matches; a sentence.
    """

    exit_code = ABSENT


def all_below(prefix: str) -> Pattern:
    """
    The pattern for all keys below a prefix, which may be one itself.
    """
    return Pattern(prefix.rstrip("/") + "/")


async def matching(client: Client, pattern: Pattern) -> AsyncIterator[Entry]:
    """
    The values with matching keys, in the order of their keys, without those that
    dialects keep for themselves. Only what is below the fixed beginning of the pattern
    is listed.
    """
    async for entry in client.list_in_order(pattern.below):
        if pattern.matches(entry.key) and not is_reserved(entry.key):
            yield entry


def changed_ms(entry: Entry) -> int:
    """
    When a value was stored, in milliseconds since the epoch.

    Raises:
        NotKvd: The listing does not say it.
    """
    try:
        changed = datetime.fromisoformat(entry.changed)
        return round(changed.timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        raise NotKvd(
            f"What answered is not kvd: {entry.changed!r} in a listing is not a time."
        ) from error
