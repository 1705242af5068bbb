"""
Readers of settings that name locations: the store, the logs, a prefix, a host.

Relative paths start from the folder in which kvd is started, in the settings file too.
They are made absolute here, since twistd changes to ``/`` when it becomes a daemon.
Nothing here reads the disk.
"""

from __future__ import annotations

import re
from ipaddress import ip_network

from kvd.errors import BadSetting
from kvd.http.wire.hosts import is_host
from kvd.interfaces import IBoundedStoreMaker, IStoreMaker
from kvd.model.prefixes import read_prefix
from kvd.model.quantities import Seconds, Size
from kvd.options.paths import absolute
from kvd.plugins import IDialectDeclaration, IStoreDeclaration, declared, load
from kvd.settings import (
    ANY_HOST,
    ANY_ORIGIN,
    CorsChoice,
    DialectChoice,
    NearCache,
    StoreLocation,
)

_ORIGIN = re.compile(
    r"[a-z][a-z0-9+.-]*://(?:[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?"
)

_NEAR_OPTIONS = {"max-size", "fresh", "stale"}
_near_size = Size(1024**2, 1024**5)
_near_time = Seconds(most=365 * 86400)

# Without a port.
_ALLOWED_HOST = re.compile(r"[^:*\[\]]+|\[[^*\[\]]+\]")


def read_store(text: str) -> StoreLocation:
    """
    Read ``SCHEME:PATH``; the store plugin of the scheme resolves the path.
    """
    scheme, colon, path = text.partition(":")
    if not colon:
        known = declared(IStoreDeclaration)
        example = f"file:{'./values' if text in ('', 'file') else text}"
        if text in known and text != "file":
            example = f"{text}:"
        raise BadSetting(
            f"{text!r} does not say what kind of store it is: give SCHEME:PATH, such"
            f" as {example}; known: {', '.join(f'{name}:' for name in known)}"
        )
    maker: IStoreMaker = load(IStoreDeclaration, scheme)
    if path.startswith("~"):
        path = absolute(path)
    return StoreLocation(scheme, maker.resolve(path))


def read_fallback_store(text: str) -> StoreLocation | None:
    """
    Read ``SCHEME:PATH``, as `read_store` does, or ``off``.
    """
    return None if text == "off" else read_store(text)


def read_near(text: str) -> NearCache | None:
    """
    Read ``SCHEME:PATH?max-size=SIZE&fresh=TIME&stale=TIME``, of which the last two
    parts may be missing, or ``off``.
    """
    if text == "off":
        return None
    location, question, rest = text.rpartition("?")
    parts = [part.partition("=")[::2] for part in rest.split("&")]
    given = dict(parts)
    if not question or "max-size" not in given or not given.keys() <= _NEAR_OPTIONS:
        raise BadSetting(
            f"{text!r} is not of the form SCHEME:PATH?max-size=SIZE&fresh=TIME&stale="
            "TIME, such as file:./cache?max-size=50GiB"
        )
    if len(given) < len(parts):
        raise BadSetting(f"{text!r} has a part twice: give each once")
    store = read_store(location)
    if not IBoundedStoreMaker.providedBy(load(IStoreDeclaration, store.scheme)):
        raise BadSetting(
            f"{store} cannot be a near cache, as it can have no limits: give file:PATH"
        )
    fresh_seconds = _near_time(given["fresh"]) if "fresh" in given else 0.0
    stale_seconds = _near_time(given["stale"]) if "stale" in given else 0.0
    size = _near_size(given["max-size"])
    return NearCache(store, size, fresh_seconds, stale_seconds)


def read_access_log(text: str) -> str | None:
    """
    Read the path of a file, ``-`` for standard output, or ``off``.
    """
    if text == "off":
        return None
    if text == "-":
        return text
    if not text or text.endswith("/") or "\0" in text:
        raise BadSetting(
            f"{text!r} is not a file: give the path of one, - for standard output,"
            " or off"
        )
    return absolute(text)


def read_record_file(text: str) -> str | None:
    """
    Read the path of a file, or ``off``.
    """
    if text == "off":
        return None
    if not text or text.endswith("/") or "\0" in text:
        raise BadSetting(f"{text!r} is not a file: give the path of one, or off")
    return absolute(text)


def read_control(text: str) -> str | None:
    """
    Read the path of a Unix socket to make, ``auto``, or ``off``.
    """
    if text == "off":
        return None
    if text == "auto":
        return text
    if not text or text.endswith("/") or "\0" in text:
        raise BadSetting(
            f"{text!r} cannot be the path of a socket: give the path of a file to be"
            " made, auto, or off"
        )
    return absolute(text)


def read_dialect(text: str) -> DialectChoice:
    """
    Read ``PREFIX=NAME``. A prefix may contain ``=``, a name cannot.
    """
    prefix, equals, name = text.rpartition("=")
    if not equals:
        raise BadSetting(f"{text!r} is not of the form PREFIX=NAME, such as /=classic")
    read_prefix(prefix)
    load(IDialectDeclaration, name)
    return DialectChoice(prefix, name)


def read_cors(text: str) -> CorsChoice:
    """
    Read ``PREFIX=ORIGINS``. A prefix may contain ``=``, an origin cannot.
    """
    prefix, equals, names = text.rpartition("=")
    if not equals:
        raise BadSetting(
            f"{text!r} is not of the form PREFIX=ORIGINS, such as"
            " /public/=https://app.example"
        )
    read_prefix(prefix)
    origins = tuple(names.split())
    for origin in origins:
        if origin != ANY_ORIGIN and not _ORIGIN.fullmatch(origin):
            raise BadSetting(
                f"{origin!r} is not an origin: give one as browsers send it in Origin,"
                " in lower case and without a path, such as https://app.example or"
                f" http://localhost:3000; {ANY_ORIGIN} by itself allows all"
            )
    if ANY_ORIGIN in origins and len(origins) > 1:
        raise BadSetting(f"{names!r} allows all origins, and others: leave them out")
    return CorsChoice(prefix, origins)


def read_trusted_proxies(text: str) -> tuple[str, ...]:
    """
    Read networks and addresses with commas between them, ``unix`` among them for
    Unix sockets; or ``off``.
    """
    if text == "off":
        return ()
    return tuple(_read_proxy(part.strip()) for part in text.split(","))


def _read_proxy(text: str) -> str:
    if text == "unix":
        return "unix"
    try:
        return str(ip_network(text))
    except ValueError as error:
        try:
            meant = f": did you mean {ip_network(text, strict=False)}?"
        except ValueError:
            meant = (
                ": give networks or addresses with commas between them, such as"
                " 127.0.0.1,10.0.0.0/8,2001:db8::/32, unix for the clients of Unix"
                " sockets, or off"
            )
        raise BadSetting(f"{text!r} is not a network{meant}") from error


def read_allowed_host(text: str) -> str:
    """
    Read a host name or a numeric address without a port, or ``*``.
    """
    if text == ANY_HOST:
        return text
    name = text.lower().removesuffix(".")
    if not (
        name.isascii()
        and _ALLOWED_HOST.fullmatch(name)
        and is_host(name.encode("ascii"))
    ):
        raise BadSetting(
            f"{text!r} is not a host: give a name or an address as clients send it in"
            " Host, without a port, such as kvd.example, 192.0.2.1 or [2001:db8::1];"
            f" {ANY_HOST} by itself allows all"
        )
    return name
