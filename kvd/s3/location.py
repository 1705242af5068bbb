"""
Where the values are: ``s3://BUCKET/PREFIX?endpoint=URL,URL&region=NAME``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from kvd.errors import BadSetting

_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX: Final = re.compile(r"(?:[A-Za-z0-9_=-][A-Za-z0-9._=-]*/)*")
_REGION: Final = re.compile(r"[a-z0-9-]{1,63}")
_OPTIONS: Final = ("endpoint", "region")

MAX_PREFIX_BYTES: Final = 256

EXAMPLE: Final = "s3://bucket/prefix?endpoint=https://one.example,https://two.example"


@dataclass(frozen=True, slots=True)
class Location:
    """
    A location, checked.
    """

    bucket: str
    prefix: str
    """Empty, or ending with ``/``: begins the name of each object."""
    endpoints: tuple[str, ...]
    """URLs without a path; empty: that of AWS, or what its variables say."""
    region: str | None
    """None: as AWS's variables and profiles say."""

    def may_be_bucket_of(self, other: Location) -> bool:
        """
        Whether both are in the same bucket: it has one name, and an endpoint is common
        to both. Engines can have several names, which nobody here knows.
        """
        if self.bucket != other.bucket:
            return False
        if self.endpoints and other.endpoints:
            return not set(self.endpoints).isdisjoint(other.endpoints)
        return self.endpoints == other.endpoints

    def __str__(self) -> str:
        options = {}
        if self.endpoints:
            options["endpoint"] = ",".join(self.endpoints)
        if self.region is not None:
            options["region"] = self.region
        query = f"?{urlencode(options, safe=':/,[]')}" if options else ""
        return f"//{self.bucket}/{self.prefix}{query}"


def read_location(text: str) -> Location:
    """
    Read a location, the part of the setting behind ``s3:``.

    Raises:
        BadSetting: It is not one.
    """
    if "@" in text:
        # Not repeated: it may be a password.
        raise BadSetting(
            "the location of the S3 store has an @, but takes no credentials: give"
            " AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or a"
            " profile"
        )
    parts = urlsplit(text)
    if not text.startswith("//") or parts.fragment:
        raise _bad(text, "it is not a bucket behind //")
    if not _BUCKET.fullmatch(parts.netloc):
        raise _bad(
            text,
            f"{parts.netloc!r} is not a bucket: 3 to 63 lower-case letters, digits,"
            " dots and hyphens",
        )
    prefix = parts.path.strip("/")
    prefix = f"{prefix}/" if prefix else ""
    if not _PREFIX.fullmatch(prefix) or len(prefix) > MAX_PREFIX_BYTES:
        raise _bad(
            text,
            f"{parts.path!r} is not a prefix: at most {MAX_PREFIX_BYTES} letters,"
            " digits and ._=- between slashes, and no part begins with a dot",
        )
    options: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in _OPTIONS:
            raise _bad(text, f"there is no option {name!r}: {', '.join(_OPTIONS)}")
        if name in options:
            raise _bad(text, f"{name!r} is there twice")
        options[name] = value
    endpoints: tuple[str, ...] = ()
    if "endpoint" in options:
        endpoints = tuple(map(read_endpoint, options["endpoint"].split(",")))
    region = options.get("region")
    if region is not None and not _REGION.fullmatch(region):
        raise _bad(text, f"{region!r} is not the name of a region")
    return Location(parts.netloc, prefix, endpoints, region)


_PORTS: Final = {"http": 80, "https": 443}


def read_endpoint(url: str) -> str:
    """
    Check the URL of an endpoint.

    Returns:
        The same, without a slash at its end.

    Raises:
        BadSetting: It is none.
    """
    if "@" in url:
        # Not repeated: it may be a password.
        raise BadSetting(
            "the URL of an endpoint of the S3 store has an @, but takes no"
            " credentials: give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = 0
    if (
        parts.scheme not in _PORTS
        or not parts.hostname
        or port == 0
        or parts.path not in ("", "/")
        or parts.query
    ):
        raise BadSetting(
            f"{url!r} is not an endpoint of the S3 store: give a URL without a path,"
            " such as https://s3.example:8333"
        )
    # As a client says it in ``Host``, which is signed: in lower case, and without the
    # port that is meant anyway.
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    if port is None or port == _PORTS[parts.scheme]:
        return f"{parts.scheme}://{host}"
    return f"{parts.scheme}://{host}:{port}"


def _bad(text: str, why: str) -> BadSetting:
    return BadSetting(
        f"{text!r} is not a location of the S3 store: {why}; give one such as {EXAMPLE}"
    )
