"""
Tests for `kvd.http.browser.page`: a page as a parser of HTML reads it.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from urllib.parse import unquote_to_bytes, urljoin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvd.http.browser.page import PAGE_POLICY, Visitor, page_of, size_text
from kvd.model.keys import Key
from kvd.model.values import Entry, Folder, ValueInfo
from tests.exploring import exploring

NAMES = st.binary(min_size=1, max_size=40).filter(
    lambda name: b"/" not in name and name not in (b".", b"..")
)

HOSTILE = [
    b"<script>alert(1)<",
    b"</script><script>alert(1)",
    b'" onmouseover="alert(1)',
    b"javascript:alert(1)",
    b"&lt;b&gt;",
    b"a?b#c%2e%2e",
    b"back\\slash",
    "a‮gpj.exe".encode(),
    "zero​width".encode(),
    "\u2028".encode(),
    b"\xff\xfe",
    b"{{rows}}",
    b"n" * 255,
]


class Reader(HTMLParser):
    """
    What a page has.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def read(page: bytes) -> Reader:
    """
    What is in a page.
    """
    # It is large, and has no names.
    style, script = (page.index(b"<%b>" % tag) for tag in (b"style", b"script"))
    page = page[:style] + page[page.index(b"</style>") : script]
    reader = Reader()
    reader.feed(page.decode("utf-8"))
    return reader


def value(key: bytes, size: int = 1) -> ValueInfo:
    """
    A value at the beginning of time.
    """
    return ValueInfo(Key(key), size, 'ta"g', 60.0)


def check_names(folder: bytes, names: list[bytes]) -> None:
    """
    Each has one link, which leads to it, and no other element comes of it.
    """
    entries = [value(folder + name) for name in names]
    reader = read(page_of(folder, entries, Visitor("u<b>"), None))
    page = page_of(folder, [value(folder + b"n")] * len(names), Visitor("u"), None)
    elements, usual = (
        [tag for tag, _ in each.tags if tag != "i"] for each in (reader, read(page))
    )
    assert usual == elements
    links = [has["href"] or "" for tag, has in reader.tags if tag == "a"]
    base = "http://kvd/" + "x/" * folder.count(b"/")
    rows = [urljoin(base, link) for link in links if link.startswith("./")]
    assert names == [unquote_to_bytes(row.removeprefix(base)) for row in rows]
    for _, has in reader.tags:
        assert not any(name.startswith("on") for name in has)
        assert all(text is None or text.isprintable() for text in has.values())


def test_names_of_others_are_only_names() -> None:
    """
    Whatever they look like.
    """
    check_names(b"", HOSTILE)
    for name in HOSTILE:
        check_names(name + b"/", HOSTILE)


@exploring()
@given(st.lists(NAMES, max_size=4), NAMES)
def test_any_bytes_are_only_names(names: list[bytes], folder: bytes) -> None:
    """
    In a row, and as a folder.
    """
    check_names(folder + b"/", names)


def test_what_cannot_be_seen_is_shown_by_its_number() -> None:
    """
    In the row, the heading, and the name of the button.
    """
    page = page_of(b"a\xe2\x80\xae/", [value(b"a\xe2\x80\xae/b\xffc")], Visitor(), None)
    reader = read(page)
    labels = [has.get("aria-label") for tag, has in reader.tags if tag == "button"]

    assert "Delete b<\\xff>c" in labels
    assert 2 == reader.texts.count("U+202E")
    assert "\\xff" in reader.texts
    assert "‮" not in page.decode()


def test_row_says_what_is_known() -> None:
    """
    Of a value its size and date; of a folder nothing.
    """
    entries: list[Entry] = [Folder(b"f/inner/"), value(b"f/a", 1536)]
    reader = read(page_of(b"f/", entries, Visitor(), "?limit=2&after=f/a"))
    links = [has["href"] for tag, has in reader.tags if tag == "a"]

    assert ["#entries", "../", "./inner/", "./a", "?limit=2&after=f/a"] == links
    assert "1 folder and 1 value on this page; there are more." in reader.texts
    assert "1.5 KiB" in reader.texts
    assert ("time", {"datetime": "1970-01-01T00:01:00Z"}) in reader.tags


def test_visitors_see_what_they_may_do() -> None:
    """
    No button to delete for those who may not, and what holds for all values.
    """
    for may in (True, False):
        visitor = Visitor("ann", may, may, writes_once=not may)
        reader = read(page_of(b"", [value(b"k")], visitor, None))
        buttons = [has for tag, has in reader.tags if "data-etag" in has]
        (main,) = [has for tag, has in reader.tags if tag == "main"]

        assert int(may) == len(buttons)
        assert all('ta"g' == has["data-etag"] for has in buttons)
        assert ("yes" if may else "no") == main["data-write"]
        assert ("no" if may else "yes") == main["data-once"]
        assert "ann" in reader.texts
        assert may is not ("cannot be replaced" in " ".join(reader.texts))


def test_policy_allows_only_this_page() -> None:
    """
    No script but its own, no handler in an attribute, nothing of other servers.
    """
    assert PAGE_POLICY.startswith("default-src 'none'; ")
    assert "unsafe" not in PAGE_POLICY
    assert not re.search(r"https?:|\*", PAGE_POLICY)
    reader = read(page_of(b"", [value(b"k")], Visitor(), None))
    assert not any("style" in has for _, has in reader.tags)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        *((0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (102_350, "100 KiB")),
        *((1_023_999, "1000 KiB"), (1_048_576, "1.0 MiB"), (5 * 2**40, "5.0 TiB")),
        (2**60, "1048576 TiB"),
    ],
)
def test_sizes_are_short(size: int, text: str) -> None:
    """
    Three or four digits, as long as there is a unit.
    """
    assert text == size_text(size)
