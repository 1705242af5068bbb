"""
The status page for browsers.

It fetches nothing but the numbers of this site.
"""

from __future__ import annotations

from typing import Final

from kvd.http.document import Document

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


_DOCUMENT: Final = Document("kvd.admin.status.browser", _PARTS)

PAGE: Final = _DOCUMENT.text.encode("utf-8")

PAGE_POLICY: Final = _DOCUMENT.policy
"""
The page's ``Content-Security-Policy``.
"""
