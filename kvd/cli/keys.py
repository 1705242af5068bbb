"""
Keys on the command line, on the terminal, and as names of files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

import click

from kvd.cli.errors import LocalError
from kvd.errors import KvdError
from kvd.http.wire.targets import key_of_segments

_URL: Final = re.compile(r"(https?://[^/]*)/*(.*)", re.IGNORECASE | re.DOTALL)
_ALMOST_URL: Final = re.compile(
    r"[a-z][a-z0-9+.-]*://.*|https?:.*"
    r"|(localhost|[\w-]+(\.[\w-]+)+|\[[0-9a-f:.]+\]):[0-9]{1,5}(/.*)?",
    re.IGNORECASE | re.DOTALL,
)
_BAD_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


def is_url(argument: str) -> bool:
    """
    Whether an argument is the URL of a key, and not a key or a path.
    """
    return _URL.fullmatch(argument) is not None


def located(url: str, arguments: Sequence[str]) -> tuple[str, list[str]]:
    """
    The daemon and the keys that arguments name. Each is a key, or the URL of a key,
    which is percent-decoded.

    Args:
        url: The daemon's, for keys without one.
        arguments: The keys.

    Raises:
        click.UsageError: They are in several daemons, or a URL is not valid, or a key
            is almost one.
    """
    servers: dict[str, str] = {}
    keys = []
    for argument in arguments:
        found = _URL.fullmatch(argument)
        server, key = (url.rstrip("/"), argument) if found is None else found.groups()
        if found is None:
            check_spelling(argument)
        else:
            if _BAD_PERCENT.search(key):
                raise click.UsageError(
                    f"in {argument!r} a percent sign is not followed by two hexadecimal"
                    " digits; write the sign itself as %25"
                )
            # The daemon's own URL is the prefix of all keys.
            key = os.fsdecode(unquote_to_bytes(os.fsencode(key))) or "/"
        servers.setdefault(server, argument)
        keys.append(key)
    if len(servers) > 1:
        first, second, *_ = servers.values()
        raise click.UsageError(
            f"{first!r} and {second!r} are in two daemons, and a command asks one: give"
            " one command for each"
        )
    return next(iter(servers), url), keys


def check_spelling(argument: str) -> None:
    """
    Check that a key or a path is no URL that is written wrongly.

    Raises:
        click.UsageError: It seems to be one.
    """
    if _ALMOST_URL.fullmatch(argument) and not is_url(argument):
        raise click.UsageError(
            f"{argument!r} is almost a URL, which begins with http:// or https://. A"
            " key that looks like this is given by its URL: http://HOST:PORT/KEY"
        )


def checked_key(key: bytes) -> None:
    """
    Check that a daemon could have a key.

    Raises:
        LocalError: It could not.
    """
    try:
        key_of_segments(key.split(b"/"))
    except KvdError as error:
        raise LocalError(error.sentence) from error


def as_folder(prefix: bytes) -> bytes:
    """
    A prefix of whole segments: empty, or with a slash at its end.
    """
    return prefix.rstrip(b"/") + b"/" if prefix else b""


def read_prefix(argument: str) -> bytes:
    """
    A prefix of keys as the shell gave it, not percent-encoded. A slash at its
    beginning, as in a URL, is left out.
    """
    return os.fsencode(argument).removeprefix(b"/")


def read_key(argument: str, otherwise: str) -> bytes:
    """
    A key as the shell gave it, read as by `read_prefix`.

    Args:
        argument: What the shell gave.
        otherwise: What to do for all keys below a prefix.

    Raises:
        click.UsageError: It can only be a prefix.
    """
    key = read_prefix(argument)
    if not key or key.endswith(b"/"):
        raise click.UsageError(
            f"{argument!r} is not a key, which ends in a name; {otherwise}"
        )
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
