"""
Keys on the command line, on the terminal, and as names of files.
"""

from __future__ import annotations

import os

import click


def read_prefix(argument: str) -> bytes:
    """
    A prefix of keys as the shell gave it, not percent-encoded. A slash at its
    beginning, as in a URL, is left out.
    """
    return os.fsencode(argument).removeprefix(b"/")


def read_key(argument: str) -> bytes:
    """
    A key as the shell gave it, read as by `read_prefix`.

    Raises:
        click.UsageError: It can only be a prefix.
    """
    key = read_prefix(argument)
    if not key or key.endswith(b"/"):
        raise click.UsageError(f"{argument!r} is not a key: it must end in a name")
    return key


def shown(key: bytes) -> str:
    """
    A key for a person: what cannot be printed is percent-encoded.
    """
    text = key.decode("utf-8", "surrogateescape")
    return "".join(
        c
        if c.isprintable()
        else "".join(f"%{byte:02X}" for byte in c.encode("utf-8", "surrogateescape"))
        for c in text
    )


def file_name(key: bytes) -> str:
    """
    The last segment of a key, for a file of the same name.

    Raises:
        click.UsageError: It cannot be one.
    """
    name = os.fsdecode(key.rpartition(b"/")[2])
    if name in ("", ".", ".."):
        raise click.UsageError(
            f"the key {shown(key)!r} does not end in a file name; give one after it"
        )
    return name
