"""
Readers of settings that are a word, a number or a mode.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Final

from kvd.dispatch.selection import load_policy
from kvd.errors import BadSetting
from kvd.model.quantities import Count, Seconds, Size
from kvd.options.quotas import read_ttl
from kvd.settings import MAX_PROCS

# epoll counts milliseconds in 32 bits: if the reactor waits for nothing else, a timeout
# of 25 days or more would make it fail.
read_wait = Seconds(most=7 * 86400)

# A worker that waits for events writes a time stamp each second.
read_hang = Seconds(least=2, most=7 * 86400)

_processes = Count("a number of processes", 0, MAX_PROCS)

# More than any file system holds, and far below the limit of 64 bits.
_size = Size(1, 1024**5)


def read_policy(text: str) -> str:
    """
    The name of a policy that can be loaded.
    """
    # Loaded here, so that the message about a broken policy names the option.
    load_policy(text)
    return text


def read_shadow(text: str) -> str | None:
    """
    The name of a policy, or ``off``.
    """
    return None if text == "off" else read_policy(text)


def read_procs(text: str) -> int:
    """
    The number of worker processes.
    """
    if text == "auto":
        return len(os.sched_getaffinity(0))
    try:
        return _processes(text)
    except BadSetting as error:
        raise BadSetting(f"{error.sentence}, or auto") from error


def one_of(what: str, known: Mapping[str, str]) -> Callable[[str], str]:
    """
    A reader of one of some words.

    Args:
        what: What they are, for a message: "a durability".
        known: The words, and what each means.
    """

    def read(text: str) -> str:
        if text in known:
            return text
        closest = get_close_matches(text, known, n=1)
        hint = f". Did you mean {closest[0]!r}?" if closest else ""
        *others, last = (f"{word} ({meaning})" for word, meaning in known.items())
        raise BadSetting(
            f"{text!r} is not {what}: give {', '.join(others)} or {last}{hint}"
        )

    return read


_MODE: Final = re.compile("[0-7]{3,4}")


def read_file_mode(text: str) -> int:
    """
    The permissions of values.
    """
    mode = int(text, 8) if _MODE.fullmatch(text) else 0
    if not 0o600 <= mode <= 0o777:
        raise BadSetting(
            f"{text!r} cannot be the mode of a value: give three octal digits of which"
            " the first is 6 or 7, such as 640, so that kvd can read and write it"
        )
    return mode


def read_folder_mode(text: str) -> int:
    """
    The permissions of folders.
    """
    mode = int(text, 8) if _MODE.fullmatch(text) else 0
    if mode & 0o700 != 0o700 or mode > 0o3777:
        raise BadSetting(
            f"{text!r} cannot be the mode of a folder: give three octal digits of which"
            " the first is 7, such as 750, so that kvd can use it; a 2 before them"
            " passes the folder's group on"
        )
    return mode


def read_switch(text: str) -> bool:
    """
    ``on`` or ``off``.
    """
    if text not in ("on", "off"):
        raise BadSetting(f"{text!r} is neither on nor off")
    return text == "on"


def read_wait_or_off(text: str) -> float | None:
    """
    A time, or ``off``.
    """
    return None if text == "off" else read_wait(text)


def size_or(word: str) -> Callable[[str], int | None]:
    """
    A reader of sizes, and of a word that means that there is no limit.
    """

    def read(text: str) -> int | None:
        if text == word:
            return None
        try:
            return _size(text)
        except BadSetting as error:
            raise BadSetting(f"{error.sentence}, or {word}") from error

    return read


def read_ttl_or_off(text: str) -> float | None:
    """
    How long values live, or ``off``.
    """
    if text == "off":
        return None
    try:
        return read_ttl(text)
    except BadSetting as error:
        raise BadSetting(f"{error.sentence}, or off") from error


def optional(read: Count) -> Callable[[str], object]:
    """
    A reader of a number, or of ``unlimited``.
    """

    def read_optional(text: str) -> int | None:
        if text == "unlimited":
            return None
        try:
            return read(text)
        except BadSetting as error:
            raise BadSetting(f"{error.sentence}, or unlimited") from error

    return read_optional
