"""
Reads the limits of a store.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Final, cast

from kvd.errors import BadSetting
from kvd.model.prefixes import read_prefix
from kvd.model.quantities import Seconds, Size
from kvd.settings import Full, QuotaChoice

read_ttl: Final = Seconds(most=36500 * 86400)

_size: Final = Size(1, 1024**5)

_FORM: Final = "PREFIX=SIZE:ttl=TIME:full=WORD, such as /ci/=10GiB or /ci/=1TiB:ttl=30d"


def read_full(text: str) -> Full:
    """
    Read ``refuse`` or ``evict``.
    """
    known = ("refuse", "evict")
    if text not in known:
        closest = get_close_matches(text, known, n=1)
        hint = f". Did you mean {closest[0]!r}?" if closest else ""
        raise BadSetting(
            f"{text!r} is not what a full store can do: give refuse (PUT is answered"
            f" 507) or evict (the values used least recently are removed){hint}"
        )
    return cast(Full, text)


def read_quota(text: str) -> QuotaChoice:
    """
    Read ``PREFIX=SIZE:ttl=TIME:full=WORD``, of which one of the three may be missing.
    A prefix ends with a slash, and no part has one.
    """
    prefix, equals, rest = text[: text.rfind("/") + 1], "", ""
    if prefix:
        _, equals, rest = text[len(prefix) :].partition("=")
    if not equals or not rest or text[len(prefix)] != "=":
        raise BadSetting(f"{text!r} is not of the form {_FORM}")
    read_prefix(prefix)
    if prefix == "/":
        raise BadSetting(
            f"{text!r} is for all keys: give --max-size, --ttl and --full instead"
        )
    given: dict[str, str] = {}
    for part in rest.split(":"):
        name, equals, value = part.partition("=")
        if not equals:
            name, value = "max-size", part
        if name not in ("max-size", "ttl", "full") or name in given:
            raise BadSetting(f"{part!r} in {text!r} is not of the form {_FORM}")
        given[name] = value
    return QuotaChoice(
        prefix,
        _size(given["max-size"]) if "max-size" in given else None,
        read_full(given["full"]) if "full" in given else None,
        read_ttl(given["ttl"]) if "ttl" in given else None,
    )
