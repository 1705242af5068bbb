"""
The listing of a folder and the status page, in Chromium, as axe-core sees them: what
people with a screen reader or without a mouse cannot use.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final

from tests.clients.running import TIMEOUT_SECONDS, from_npm
from tests.integration.chromium import Chromium
from tests.integration.twistd import Twistd

PACKAGES: Final = {"npm": "npm", "chromium": "chromium"}

VERSION: Final = "4.14.1"

KEYS: Final = ("a", "folder/b", "folder/inner/c", "folder/d.txt")

LOOKS: Final = ((1280, False), (1280, True), (360, False))
"""
The width, and whether the colours are dark.
"""

RUN: Final = """
void axe.run({resultTypes: ["violations"]}).then(
    (found) => { window.found = found; },
    (error) => { window.found = {error: String(error)}; },
)
"""


def main(folder: Path) -> None:
    """
    Each page in each look.
    """
    modules = from_npm(f"axe-core@{VERSION}").parent
    axe = (modules / "axe-core" / "axe.min.js").read_text()
    options = [
        *[f"--store=file:{folder}/values", "--procs=2", "--durability=process"],
        *["--control=off", "--status=tcp:0", "--policy=roundrobin"],
        "--shadow=leastbusy",
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
        _kill_worker(daemon.status_port)
        upload = folder / "b"
        upload.write_bytes(b"another value")
        listing = f"http://127.0.0.1:{daemon.port}/folder/"
        status = f"http://127.0.0.1:{daemon.status_port}/"
        passed = 0
        for width, dark in LOOKS:
            browser.open(listing, width=width, dark=dark)
            # It is there already, so the page asks what to do.
            browser.choose_files("#files", [upload])
            browser.until("document.querySelector('#jobs button') !== null")
            passed += _check(browser, axe, listing)
            browser.open(status, width=width, dark=dark)
            browser.until("document.querySelector('#events .warn') !== null")
            passed += _check(browser, axe, status)
        daemon.stop()
    print(f"axe-core {VERSION}: {passed} rules hold on the pages, and none is broken")


def _kill_worker(status_port: int) -> None:
    """
    So that the status page has something to tell.
    """
    client = HTTPConnection("127.0.0.1", status_port, timeout=TIMEOUT_SECONDS)
    client.request("GET", "/status.json")
    worker, *_ = json.loads(client.getresponse().read())["workers"]
    client.close()
    os.kill(worker["pid"], signal.SIGKILL)


def _check(browser: Chromium, axe: str, url: str) -> int:
    """
    Returns how many rules hold.
    """
    # It is evaluated by the browser's tools: the page's policy lets nothing in.
    browser.value(f"{axe}; undefined")
    browser.value(RUN)
    browser.until("window.found !== undefined")
    found = json.loads(browser.value("JSON.stringify(window.found)"))
    assert "error" not in found, found
    said = "\n".join(_described(found["violations"]))
    assert not said, f"{url}:\n{said}"
    passes: int = len(found["passes"])
    assert passes
    return passes


def _described(violations: Any) -> Iterator[str]:
    for violation in violations:
        for node in violation["nodes"]:
            yield f"{violation['id']}: {violation['help']}: {node['html'][:200]}"
            yield f"    {node['failureSummary']}"
