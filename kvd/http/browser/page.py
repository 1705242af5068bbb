"""
The page that shows one folder: its document, filled in.

Keys are bytes that others have chosen. They come into the page in two forms only: as
links, percent-encoded, with ``./`` before them so that none can be read as a scheme;
and as text, escaped, where each character that is invisible, that turns the direction
of writing, or that is none, is shown by its number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from html import escape as escape_text
from typing import Final

from kvd.http.document import Document
from kvd.model.keys import escape
from kvd.model.values import Entry, Folder, ValueInfo

_DOCUMENT: Final = Document(
    "kvd.http.browser", ("page", "rows", "removing", "sending", "uploads", "start")
)

PAGE_POLICY: Final = _DOCUMENT.policy
"""
The page's ``Content-Security-Policy``.
"""

_PARTS: Final = re.split(r"\{\{(\w+)\}\}", _DOCUMENT.text)
_EPOCH: Final = datetime(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Visitor:
    """
    Whoever looks at a page.
    """

    user: str | None = None
    may_write: bool = True
    """Whether they may store values here, or could as a user."""
    may_delete: bool = True
    """Likewise."""
    writes_once: bool = False
    """Whether values here cannot be replaced."""
    is_content_addressed: bool = False
    """Whether the names of values here have to be their SHA-256."""


def page_of(
    prefix: bytes, entries: Sequence[Entry], visitor: Visitor, following: str | None
) -> bytes:
    """
    The page of a folder.

    Args:
        prefix: The prefix of its keys.
        entries: What it shows.
        visitor: Who looks at it.
        following: The query of the next page; None: this is the last one.
    """
    may_delete = visitor.may_delete
    folders = sum(isinstance(entry, Folder) for entry in entries)
    start = len(prefix)
    filled = {
        "title": escape_text(_plain(b"/" + prefix)),
        "trail": _trail(prefix),
        "heading": _html(prefix.split(b"/")[-2]) if prefix else "All values",
        "user": ""
        if visitor.user is None
        else f'<p class="who">Signed in as <b>{_html(visitor.user.encode())}</b></p>',
        "rules": "".join(f"<p class=rule>{rule}</p>" for rule in _rules(visitor)),
        "write": "yes" if visitor.may_write else "no",
        "once": "yes" if visitor.writes_once else "no",
        "summary": _summary(folders, len(entries) - folders, following is not None),
        "rows": "".join(
            _folder(entry, start)
            if isinstance(entry, Folder)
            else _value(entry, start, may_delete)
            for entry in entries
        ),
        "following": ""
        if following is None
        else f'<a rel="next" href="{escape_text(following)}">Next page</a>',
    }
    # Every second part is a name.
    texts = [filled[part] if number % 2 else part for number, part in enumerate(_PARTS)]
    return "".join(texts).encode("utf-8")


def _rules(visitor: Visitor) -> Sequence[str]:
    rules = []
    if visitor.writes_once:
        rules.append("A value here cannot be replaced by another one.")
    if visitor.is_content_addressed:
        rules.append("The name of a value here has to be its SHA-256.")
    return rules


def _trail(prefix: bytes) -> str:
    """
    Links to the folders around this one, relative: a proxy may serve kvd below a path.
    """
    names = prefix.split(b"/")[:-1]
    if not names:
        return '<li><span aria-current="page">kvd</span></li>'
    links = [f'<li><a href="{"../" * len(names)}">kvd</a></li>']
    for number, name in enumerate(names[:-1], 1):
        up = "../" * (len(names) - number)
        links.append(f'<li><a href="{up}">{_html(name)}</a></li>')
    links.append(f'<li><span aria-current="page">{_html(names[-1])}</span></li>')
    return "".join(links)


def _summary(folders: int, values: int, has_more: bool) -> str:
    if not folders and not values:
        return "Nothing is here."
    counts = [
        f"{count} {word}{'' if count == 1 else 's'}"
        for count, word in ((folders, "folder"), (values, "value"))
        if count
    ]
    return " and ".join(counts) + (" on this page; there are more." if has_more else "")


def _folder(folder: Folder, start: int) -> str:
    name = folder.prefix[start:]
    return (
        f'<tr class="folder"><th scope="row"><a href="./{escape(name)}">{_html(name)}'
        "</a></th><td></td><td></td><td></td></tr>\n"
    )


def _value(info: ValueInfo, start: int, may_delete: bool) -> str:
    name = info.key[start:]
    changed = (_EPOCH + timedelta(seconds=int(info.changed))).isoformat()
    remove = ""
    if may_delete:
        remove = (
            f'<button type="button" hidden data-etag="{escape_text(info.etag)}"'
            f' aria-label="Delete {escape_text(_plain(name))}"></button>'
        )
    return (
        f'<tr><th scope="row"><a href="./{escape(name)}">{_html(name)}</a></th>'
        f'<td data-size="{info.size}" title="{info.size} bytes">{size_text(info.size)}'
        f'</td><td><time datetime="{changed}Z"><span>{changed[:10]}</span> '
        f"<span>{changed[11:16]}</span></time>"
        f"</td><td>{remove}</td></tr>\n"
    )


def size_text(size: int) -> str:
    """
    A size with at most four digits, such as ``1.5 KiB``.
    """
    if size < 1024:
        return f"{size} B"
    amount, units = size / 1024, ["KiB", "MiB", "GiB", "TiB"]
    while amount >= 1000 and len(units) > 1:
        amount /= 1024
        del units[0]
    unit = units[0]
    return f"{amount:.1f} {unit}" if amount < 99.95 else f"{amount:.0f} {unit}"


def _plain(name: bytes) -> str:
    """
    A name as text for people, in which all characters can be seen.
    """
    text = name.decode("utf-8", "surrogateescape")
    if text.isprintable():
        return text
    return "".join(map(_mark, text))


def _html(name: bytes) -> str:
    """
    The same as a piece of the page. Its direction of writing is its own.
    """
    text = name.decode("utf-8", "surrogateescape")
    if text.isprintable():
        return f"<bdi>{escape_text(text)}</bdi>"
    return f"<bdi>{''.join(map(_piece, text))}</bdi>"


# A folder may have many names of such characters, and a page is made in one go.
@lru_cache(1024)
def _mark(letter: str) -> str:
    return letter if letter.isprintable() else f"<{_number(letter)}>"


@lru_cache(1024)
def _piece(letter: str) -> str:
    return escape_text(letter) if letter.isprintable() else f"<i>{_number(letter)}</i>"


def _number(letter: str) -> str:
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"  # A byte that is not UTF-8.
    return f"U+{code:04X}"
