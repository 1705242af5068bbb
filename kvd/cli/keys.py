"""
Keys on the command line, on the terminal, and as names of files.
"""

from __future__ import annotations

import os

import click


def read_prefix(argument: str) -> bytes:
    """
    The beginning of keys as the shell gave it: not percent-encoded; a slash before
    it, as in a URL, is left out.
    """
    return os.fsencode(argument).removeprefix(b"/")


def read_key(argument: str) -> bytes:
    """
    A key as the shell gave it, as `read_prefix` does.

    Raises:
        click.UsageError: It could only be the beginning of keys.
    """
    key = read_prefix(argument)
    if not key or key.endswith(b"/"):
        raise click.UsageError(f"{argument!r} is no key: it has to end in a name")
    return key


def shown(key: bytes) -> str:
    """
    A key as a person reads it: what cannot be printed is percent-encoded.
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
            f"the key {shown(key)!r} does not end in a name for a file; name one"
            " behind it"
        )
    return name
