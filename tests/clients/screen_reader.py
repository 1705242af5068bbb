"""
The listing of a folder and the status page, in Chromium, as a screen reader reads them
from the beginning to the end, and what it says while one uses them.

It is Guidepup's virtual screen reader: it speaks by the WAI-ARIA, ACCNAME and HTML-AAM
specifications, as no single product does, and into a list.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

from tests.clients.running import TIMEOUT_SECONDS, from_npm
from tests.integration.chromium import Chromium
from tests.integration.twistd import Twistd

PACKAGES: Final = {"npm": "npm", "chromium": "chromium"}

PACKAGE: Final = "@guidepup/virtual-screen-reader"
VERSION: Final = "0.33.0"

KEYS: Final = ("a", "folder/b", "folder/inner/c", "folder/d.txt")

READ: Final = """
void (async () => {
  await virtual.start({ container: document.body });
  const phrases = [];
  while (phrases.length < 2000) {
    phrases.push(await virtual.lastSpokenPhrase());
    if (phrases.at(-1) === "end of document") break;
    await virtual.next();
  }
  await virtual.stop();
  return phrases;
})().then(
  (phrases) => { window.phrases = phrases; },
  (error) => { window.phrases = [`failed: ${error}`]; },
)
"""

LISTING: Final = (
    "link, Skip to the entries",
    "navigation, Folders above",
    "link, kvd",
    "current page",
    "heading, folder, level 1",
    "searchbox, Search this page, placeholder Search this page",
    "button, Upload files",
    "status",
    "table, 1 folder and 2 values",
    "columnheader, Name",
    "button, Name",
    "columnheader, Size",
    "columnheader, Changed",
    "rowheader, inner/",
    "link, inner/",
    "rowheader, b",
    "link, b",
    "cell, 5 B, 5 bytes",
    "button, Delete b",
    "link, d.txt",
    "button, Delete d.txt",
    "end of table, 1 folder and 2 values",
    "end of document",
)
"""
What a reader has to hear of the listing, in this order.
"""

STATUS: Final = (
    "heading, kvd 0.1.0, level 1",
    "region, All workers together",
    "heading, 5xx / s, level 2",
    "image, Replies with an error over the last hour",
    "image, Requests per second over the last hour",
    "image, How busy each worker was, second by second",
    "table, Workers",
    "columnheader, Worker, The number of the worker, sorted in ascending order",
    "rowheader, 0",
    "cell, ready",
    "rowheader, 1",
    "end of table, Workers",
    "heading, Events, level 2",
    "link, /metrics",
    "end of document",
)


def main(folder: Path) -> None:
    """
    Both pages.
    """
    modules = from_npm(f"{PACKAGE}@{VERSION}").parent
    reader = _as_script((modules / PACKAGE / "lib/esm/index.browser.js").read_text())
    options = [
        *[f"--store=file:{folder}/values", "--procs=2", "--durability=process"],
        *["--control=off", "--status=tcp:0"],
    ]
    with (
        Twistd(options, folder) as daemon,
        Chromium(folder / "profile") as browser,
    ):
        client = HTTPConnection("127.0.0.1", daemon.port, timeout=TIMEOUT_SECONDS)
        for key in KEYS:
            client.request("PUT", f"/{key}", b"value")
            client.getresponse().read()
        client.close()

        browser.open(f"http://127.0.0.1:{daemon.port}/folder/")
        browser.value(reader)
        phrases = _read(browser)
        _check(phrases, LISTING)
        # There is one page.
        assert "navigation, Pages" not in phrases, phrases
        _check_said(browser, folder)

        browser.open(f"http://127.0.0.1:{daemon.status_port}/")
        browser.until("document.querySelectorAll('#workers tr').length === 2")
        browser.value(reader)
        status = _read(browser)
        _check(status, STATUS)
        daemon.stop()
    print(
        f"virtual screen reader {VERSION}: {len(phrases)} phrases of the listing and"
        f" {len(status)} of the status page, in their order; search, upload, refusal"
        " and deletion are said"
    )


def _as_script(module: str) -> str:
    """
    A module that can be evaluated in a page whose policy lets no module in.
    """
    exported = re.search(r"export\{(?:[^}]*,)?([\w$]+) as virtual\}", module)
    assert exported, "the screen reader exports another name now"
    body = module.replace(exported[0], f"window.virtual = {exported[1]}")
    return f"(() => {{{body}\n}})(); undefined"


def _read(browser: Chromium) -> Sequence[str]:
    browser.value("window.phrases = undefined")
    browser.value(READ)
    browser.until("window.phrases !== undefined")
    phrases: list[str] = json.loads(browser.value("JSON.stringify(window.phrases)"))
    return phrases


def _check(phrases: Sequence[str], expected: Sequence[str]) -> None:
    rest = iter(phrases)
    for phrase in expected:
        assert phrase in rest, f"{phrase!r} is not said, or too early: {phrases}"
    # A button or a link of which nothing is known.
    bare = {"button", "link", "searchbox", "image", "table", "cell, undefined"}
    assert not bare & {*phrases}, phrases


# ---- What is said while it is used -------------------------------------------------


@contextmanager
def _listening(browser: Chromium, phrase: str) -> Iterator[None]:
    """
    Wait until something has been said.
    """
    browser.value(
        "void virtual.start({ container: document.body })"
        ".then(() => { window.listens = true; })"
    )
    browser.until("window.listens")
    yield
    browser.value("window.log = []")
    browser.until(
        "(virtual.spokenPhraseLog().then((log) => { window.log = log; }),"
        f" window.log.includes({json.dumps(phrase)}))"
    )
    browser.value("void virtual.stop(); window.listens = false")


def _check_said(browser: Chromium, folder: Path) -> None:
    with _listening(browser, "polite: 1 of 3 entries match."):
        browser.value("document.querySelector('#search').focus()")
        browser.press("d", 68, "d")
    browser.press("Backspace", 8)
    upload = folder / "e"
    upload.write_bytes(b"another value")
    with _listening(browser, "polite: 1 of 1 file is uploaded."):
        browser.choose_files("#files", [upload])
    browser.until("document.querySelectorAll('#rows tr').length === 4")
    with _listening(browser, "polite: e is here already."):
        browser.choose_files("#files", [upload])
    with _listening(browser, "polite: e was deleted."):
        browser.value("document.querySelector('[aria-label=\"Delete e\"]').click()")
        browser.until("document.querySelector('#ask').open")
        browser.value("document.querySelector('#ask-yes').click()")
    browser.until("document.querySelectorAll('#rows tr').length === 3")
