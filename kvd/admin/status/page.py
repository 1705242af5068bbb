"""
The status page for browsers.

It is one document that contains its style and its script, and fetches nothing but the
numbers of this site. Its policy names both by their hashes, so the browser runs no
other script.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from typing import Final

_PARTS: Final = (
    "state",
    "format",
    "elements",
    "head",
    "tiles",
    "disk",
    "events",
    "chart",
    "minutes",
    "hour",
    "map",
    "shadow",
    "workers",
    "watch",
)
"""
The parts of the script, which share their names. The first says that it is strict; the
last starts it.
"""


def _read(name: str) -> str:
    return (files("kvd.admin.status.browser") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode('utf-8')).digest()).decode()}'"


_STYLE = "\n" + _read("page.css")
_SCRIPT = "\n" + "\n".join(_read(f"{part}.js") for part in _PARTS)

PAGE: Final = (
    _read("page.html")
    .replace("<style></style>", f"<style>{_STYLE}</style>")
    .replace("<script></script>", f"<script>{_SCRIPT}</script>")
    .encode("utf-8")
)

PAGE_POLICY: Final = "; ".join(
    [
        "default-src 'none'",
        f"style-src {_hash(_STYLE)}",
        f"script-src {_hash(_SCRIPT)}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
"""
The page's ``Content-Security-Policy``.
"""
