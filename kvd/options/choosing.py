"""
Makes a frozen `Settings` from the texts of the operator.

The command line and the settings file give texts (`Given`). These, and the defaults,
all go through the reader in the setting's row of `choices`, so a text means the same
wherever it stands. `command_line` and `settings_file` only find the texts and where
they stand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from kvd.errors import BadSetting, OperatorError
from kvd.model.quantities import format_size
from kvd.net.credentials import credentials_of
from kvd.options.choices import CHOICES, Choice
from kvd.settings import (
    Address,
    CorsChoice,
    DialectChoice,
    Limits,
    QuotaChoice,
    Settings,
    SystemdAddress,
    TCPAddress,
    UNIXAddress,
)


@dataclass(frozen=True, slots=True)
class Given:
    """
    The text of a setting, and where it stands.
    """

    text: str
    where: str
    """For messages: ``--procs``, or ``procs in /etc/kvd.toml``."""


def make_settings(given: Mapping[str, Sequence[Given]]) -> Settings:
    """
    Read the settings; those that were not given have their defaults.

    Args:
        given: The texts by the names of the choices; only the last one counts if the
            choice is not repeatable.

    Raises:
        OperatorError: A setting is invalid; the sentence says where it stands and what
            would be right.
    """
    top: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    for choice in CHOICES:
        texts = given.get(choice.name)
        if texts is None:
            texts = [
                Given(text, f"--{choice.name} by default") for text in choice.defaults
            ]
        values = tuple(_read(choice, text) for text in texts)
        into = limits if choice.table == "limits" else top
        into[choice.field] = values if choice.repeatable else values[-1]
    _check_once(given.get("listen", ()), map(_place, top["listen"]))
    _check_once(given.get("dialect", ()), map(_decoded, top["dialects"]))
    _check_once(given.get("cors", ()), map(_decoded, top["cors"]))
    _check_once(given.get("allowed-host", ()), top["allowed_hosts"])
    _check_disjoint(given.get("quota", ()), top["quotas"])
    _check_apart(top["access_log"], top["record"])
    _check_trust(top["listen"], top["trusted_proxies"])
    _fit_target(given, limits)
    credentials = credentials_of(top["listen"])
    return Settings(**top, credentials=credentials, limits=Limits(**limits))


def _read(choice: Choice, given: Given) -> object:
    try:
        return choice.read(given.text)
    except OperatorError as error:
        # Of the same type: the caller need not look at the cause.
        raise type(error)(f"{given.where}: {error.sentence}") from error


def _place(address: object) -> object:
    # The kernel chooses another port each time.
    chosen = isinstance(address, TCPAddress) and not address.port
    return object() if chosen else address


def _decoded(choice: DialectChoice | CorsChoice | QuotaChoice) -> bytes:
    return unquote_to_bytes(choice.prefix)


def _check_disjoint(given: Sequence[Given], quotas: Sequence[QuotaChoice]) -> None:
    for text, inner in zip(given, quotas, strict=False):
        for other in quotas:
            if other is not inner and _decoded(inner).startswith(_decoded(other)):
                raise BadSetting(
                    f"{text.where}: the prefixes {other.prefix!r} and {inner.prefix!r}"
                    " overlap, so keys would have two quotas: give each key one"
                )


def _check_once(given: Sequence[Given], values: Iterable[object]) -> None:
    seen: dict[object, Given] = {}
    for text, value in zip(given, values, strict=False):
        first = seen.setdefault(value, text)
        if first is not text:
            raise BadSetting(
                f"{text.where}: {text.text!r} says the same as {first.text!r}"
                " before it: give it once"
            )


def _check_apart(access_log: str | None, record: str | None) -> None:
    if access_log is not None and access_log == record:
        raise BadSetting(
            f"--access-log and --record both write {record!r}, and neither could be"
            " read again: give each a file of its own"
        )


def _check_trust(
    addresses: Sequence[Address | SystemdAddress], trusted: Sequence[object]
) -> None:
    for address in addresses:
        is_unix = isinstance(address, UNIXAddress)
        if address.proxy and not ("unix" in trusted if is_unix else trusted):
            right = "unix" if is_unix else "the networks of the proxies"
            raise BadSetting(
                f"--listen: {address} has proxy=1, and no proxy that connects there is"
                f" trusted: give {right} in --trusted-proxies"
            )


def _fit_target(given: Mapping[str, Sequence[Given]], limits: dict[str, Any]) -> None:
    # A target is part of the head. Only an explicit contradiction is an error.
    if limits["target_bytes"] <= limits["head_bytes"]:
        return
    if "max-target" in given:
        text = given["max-target"][-1]
        raise BadSetting(
            f"{text.where}: {text.text!r} is more than a whole head may have (max-head"
            f" is {format_size(limits['head_bytes'])}): give less, or raise max-head"
        )
    limits["target_bytes"] = limits["head_bytes"]
