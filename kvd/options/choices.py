"""
Everything that can be chosen: one row for each setting.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from typing import Final

from kvd.dispatch.selection import load_policy
from kvd.errors import BadSetting
from kvd.model.quantities import Count, Seconds, Size
from kvd.options.addresses import read_listen, read_status
from kvd.options.locations import (
    read_access_log,
    read_allowed_host,
    read_control,
    read_dialect,
    read_record_file,
    read_store,
)
from kvd.settings import MAX_PROCS

# epoll counts milliseconds in 32 bits: from 25 days on, a wait for nothing but
# this one time would fail in the reactor.
_wait = Seconds(most=7 * 86400)

_processes = Count("a number of processes", 0, MAX_PROCS)

_MIB: Final = 1024**2

# More than any file system holds, and far from what 64 bits do.
_value = Size(1, 1024**5)


class Form(Enum):
    """
    What the settings file may hold for a setting.
    """

    TEXT = "a string"
    WHOLE = "a whole number, or a string"
    NUMBER = "a number, or a string"
    LIST = "an array of strings"
    TABLE = "a table of strings"


@dataclass(frozen=True, slots=True)
class Choice:
    """
    One setting.
    """

    name: str
    """As on the command line, without the dashes."""
    field: str
    """Of `Settings`, or of `Limits` for those in the table ``limits``."""
    read: Callable[[str], object]
    """Makes the value of a text, or raises an `OperatorError`."""
    defaults: Sequence[str]
    """One text, except for what may be given several times."""
    description: str
    short: str | None = None
    form: Form = Form.TEXT
    table: str | None = None
    """The table of the settings file that it stands in; None: the top."""
    key: str = ""
    """As in the settings file, where that is not the name."""

    @property
    def repeatable(self) -> bool:
        """
        Whether it may be given several times.
        """
        return self.form in (Form.LIST, Form.TABLE)


def _read_policy(text: str) -> str:
    # Loaded here, so that a broken one ends the start with its name.
    load_policy(text)
    return text


def _read_shadow(text: str) -> str | None:
    return None if text == "off" else _read_policy(text)


def _read_procs(text: str) -> int:
    if text == "auto":
        return len(os.sched_getaffinity(0))
    try:
        return _processes(text)
    except BadSetting as error:
        raise BadSetting(f"{error.sentence}, or auto") from error


def _read_durability(text: str) -> str:
    known = ("disk", "process")
    if text not in known:
        near = get_close_matches(text, known, n=1)
        hint = f". Did you mean {near[0]!r}?" if near else ""
        raise BadSetting(
            f"there is no durability {text!r}: give disk (values survive a power cut)"
            f" or process (they survive a kill of kvd){hint}"
        )
    return text


_MODE: Final = re.compile("[0-7]{3,4}")


def _read_file_mode(text: str) -> int:
    mode = int(text, 8) if _MODE.fullmatch(text) else 0
    if not 0o600 <= mode <= 0o777:
        raise BadSetting(
            f"{text!r} cannot be the mode of a value: give three octal digits of which"
            " the first is 6 or 7, such as 640, so that kvd can read and write it"
        )
    return mode


def _read_folder_mode(text: str) -> int:
    mode = int(text, 8) if _MODE.fullmatch(text) else 0
    if mode & 0o700 != 0o700 or mode > 0o3777:
        raise BadSetting(
            f"{text!r} cannot be the mode of a folder: give three octal digits of which"
            " the first is 7, such as 750, so that kvd can use it; a 2 before them"
            " hands the folder's group on"
        )
    return mode


def _read_switch(text: str) -> bool:
    if text not in ("on", "off"):
        raise BadSetting(f"{text!r} is neither on nor off")
    return text == "on"


def _read_longest_value(text: str) -> int | None:
    if text == "unlimited":
        return None
    try:
        return _value(text)
    except BadSetting as error:
        raise BadSetting(f"{error.sentence}, or unlimited") from error


def _limit(
    name: str,
    field: str,
    read: Callable[[str], object],
    default: str,
    description: str,
) -> Choice:
    form = Form.NUMBER if isinstance(read, Seconds) else Form.WHOLE
    return Choice(name, field, read, [default], description, None, form, "limits")


CHOICES: Final[Sequence[Choice]] = (
    Choice(
        "listen",
        "listen",
        read_listen,
        ["tcp:8080:interface=127.0.0.1"],
        "An address to listen on; may be given several times.",
        "l",
        Form.LIST,
    ),
    Choice(
        "store",
        "store",
        read_store,
        ["file:./values"],
        "Where values live, as SCHEME:PATH.",
        "s",
    ),
    Choice(
        "policy",
        "policy",
        _read_policy,
        ["gated"],
        "Who gets the next connection.",
        "p",
    ),
    Choice(
        "shadow",
        "shadow",
        _read_shadow,
        ["off"],
        "Another policy, asked about each connection that the supervisor deals:"
        ' "kvd status" shows what it would have done; off: none.',
    ),
    Choice(
        "procs",
        "procs",
        _read_procs,
        ["auto"],
        "How many worker processes serve; auto: one for each processor that kvd may"
        " use; 0: none, the twistd process itself serves.",
        "j",
        Form.WHOLE,
    ),
    Choice(
        "durability",
        "durability",
        _read_durability,
        ["disk"],
        "What a reply to PUT and DELETE promises to survive: disk: a power cut;"
        " process: a kill of kvd.",
        "d",
    ),
    Choice(
        "file-mode",
        "file_mode",
        _read_file_mode,
        ["644"],
        "The permissions of values, whatever the umask, unless their folder has a"
        " default access control list.",
    ),
    Choice(
        "folder-mode",
        "folder_mode",
        _read_folder_mode,
        ["755"],
        "The permissions of folders that kvd makes; likewise.",
    ),
    Choice(
        "dialect",
        "dialects",
        read_dialect,
        [],
        "Answer keys below a prefix in a dialect, as PREFIX=NAME; may be given several"
        " times, the longest prefix counts.",
        None,
        Form.TABLE,
        key="dialects",
    ),
    Choice(
        "allowed-host",
        "allowed_hosts",
        read_allowed_host,
        [],
        "A name by which clients may ask at a loopback address, beside localhost and"
        " 127.0.0.1 (else 421), as behind a proxy; may be given several times, * allows"
        " all.",
        None,
        Form.LIST,
        key="allowed-hosts",
    ),
    Choice(
        "access-log",
        "access_log",
        read_access_log,
        ["off"],
        "A file that gets a line for each request; - for standard output, or off.",
        "a",
    ),
    Choice(
        "record",
        "record",
        read_record_file,
        ["off"],
        'A file that gets a record of each connection for "kvd simulate", or off; at'
        " 64 MiB it becomes FILE.1, and a new one is begun.",
    ),
    Choice(
        "splice",
        "splice",
        _read_switch,
        ["on"],
        "on: the kernel moves bodies to files where it can; off: each chunk is read"
        " and written.",
    ),
    Choice(
        "fast-path",
        "fast_path",
        _read_switch,
        ["on"],
        "on: small requests that look like earlier ones are served by a compiled"
        " module, where it is installed; off: all go the same way.",
    ),
    Choice(
        "control",
        "control",
        read_control,
        ["auto"],
        'The Unix socket of "kvd status" and its like, for this user alone; auto: named'
        " by the first TCP port, in this user's runtime folder; off: none.",
    ),
    Choice(
        "status",
        "status",
        read_status,
        ["off"],
        "The address of the status site, such as tcp:8081, which is this machine's"
        " alone unless interface= says otherwise; off: none.",
    ),
    Choice(
        "drain-timeout",
        "drain_seconds",
        _wait,
        ["10s"],
        "How long requests in flight may take to finish after SIGTERM.",
        None,
        Form.NUMBER,
    ),
    _limit(
        "max-head",
        "head_bytes",
        Size(256, _MIB),
        "16KiB",
        "The longest head of a request (else 431).",
    ),
    _limit(
        "max-fields",
        "head_fields",
        Count("a number of fields", 1, 10_000),
        "100",
        "The most fields in a head (else 431).",
    ),
    _limit(
        "max-target",
        "target_bytes",
        Size(64, _MIB),
        "8KiB",
        "The longest request target (else 414); never more than the head.",
    ),
    _limit(
        "max-value",
        "value_bytes",
        _read_longest_value,
        "unlimited",
        "The longest value (else 413), or unlimited.",
    ),
    _limit(
        "head-timeout",
        "head_seconds",
        _wait,
        "10s",
        "A head has to arrive within (else 408).",
    ),
    _limit(
        "body-timeout",
        "body_seconds",
        _wait,
        "60s",
        "A body may stand still for (else 408, and nothing is stored).",
    ),
    _limit(
        "reader-timeout",
        "reader_seconds",
        _wait,
        "60s",
        "A client may take nothing of a reply for (else it is cut off).",
    ),
    _limit(
        "idle-timeout",
        "idle_seconds",
        _wait,
        "10m",
        "A connection may wait for its next request for (else it is closed).",
    ),
    _limit(
        "max-connections",
        "connections",
        Count("a number of connections", 1, 1_000_000),
        "8192",
        "Open connections of each worker; further ones wait to be accepted.",
    ),
)
