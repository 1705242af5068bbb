"""
Pages for browsers: one document each, with its style and its script.

Its policy names both by their hashes, so the browser runs no other script, and the page
fetches nothing but what its own server gives.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from importlib.resources import files
from typing import Final


class Document:
    """
    A page, put together.
    """

    def __init__(self, package: str, scripts: Sequence[str]) -> None:
        """
        Args:
            package: Has ``page.html``, ``page.css`` and the scripts.
            scripts: The names of the parts of the script, which share their names. The
                first says that it is strict; the last starts it.
        """

        def read(name: str) -> str:
            return (files(package) / name).read_text(encoding="utf-8")

        style = "\n" + read("page.css")
        script = "\n" + "\n".join(read(f"{name}.js") for name in scripts)
        self.text: Final = (
            read("page.html")
            .replace("<style></style>", f"<style>{style}</style>")
            .replace("<script></script>", f"<script>{script}</script>")
        )
        self.policy: Final = "; ".join(
            [
                "default-src 'none'",
                f"style-src {_hash(style)}",
                f"script-src {_hash(script)}",
                "connect-src 'self'",
                "img-src data:",
                "base-uri 'none'",
                "form-action 'none'",
                "frame-ancestors 'none'",
            ]
        )
        """Its ``Content-Security-Policy``."""


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode('utf-8')).digest()).decode()}'"
