"""
Pictures of the status page, to be looked at: ``python -m
tests.integration.status_pictures FOLDER``.

The numbers are made up, but it is kvd that makes the replies of them: an hour of work
with errors, a disk that is full, a worker that hangs; and a daemon that is gone.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.task import Clock

from kvd.admin.control.status import WorkerState, describe
from kvd.admin.status.history import History
from kvd.admin.status.ledger import NOTHING
from kvd.admin.status.page import PAGE, PAGE_POLICY
from kvd.admin.status.readiness import readiness
from kvd.ipc.counts import Sums
from kvd.settings import Settings
from kvd.store.space import Space
from kvd.workers.heartbeat import ProcessState
from tests.admin.status.worked import scoreboard, served
from tests.integration.chromium import Chromium

WORKERS = 8
SECONDS = 3600
WIDTHS = {"wide": 1920, "usual": 1280, "narrow": 360}

GOOD = Space("", 31 << 30, 100 << 30, 5_900_000, 6_500_000)
FULL = Space("The disk of the store is full: No space left on device.", 0, 100 << 30)

EVENTS = [
    ("change", "info", "restart: begun"),
    ("change", "info", "restart: done"),
    ("switch", "info", "policy roundrobin instead of gated"),
    (
        "restart",
        "warn",
        "worker 5 (process 4242) was killed by SIGKILL (9); it is replaced",
    ),
    (
        *("hang", "error"),
        "worker 3 (process 4711) has not responded for 30.1 seconds (--hang-timeout)"
        " and is killed; it is replaced, and what it served is lost",
    ),
]


def an_hour() -> History:
    """
    The history of a daemon that worked for an hour, and did not always succeed.
    """
    random = Random(1)
    sums = [NOTHING] * WORKERS
    now = Clock()
    began = time.time() - SECONDS

    def work(before: Sums, second: int) -> Sums:
        wave = 1 + math.sin(second / 400)
        more = served(int(300 * wave) + random.randrange(60), 6 + random.randrange(2))
        missing = served(random.randrange(12), 5, "4xx")
        bad = served(random.randrange(30) * (2200 < second < 2500), 16, "5xx")
        total = before.total + more.total + missing.total + bad.total
        requests = before.requests + more.requests + missing.requests + bad.requests
        return replace(
            before,
            total=total,
            requests=requests,
            accepted=requests,
            bytes_in=before.bytes_in + 900_000,
            bytes_out=before.bytes_out + 4_000_000,
            busy_seconds=before.busy_seconds + min(1, 0.3 * wave * random.random()),
        )

    history = History(lambda: list(sums), now, lambda: began + now.seconds())
    history.start()
    for second in range(SECONDS):
        sums[:] = [work(each, second) for each in sums]
        now.advance(1)
    history.stop()
    return history


def replies(history: History, space: Space, stalled: bool) -> Mapping[str, Any]:
    """
    What the status site replies.
    """
    states = ["stalled" if stalled and n == 3 else "ready" for n in range(WORKERS)]
    workers = [WorkerState(n, 4700 + n, state, 0) for n, state in enumerate(states)]
    usage = [
        {
            "prefix": "/",
            "taken": 61 << 30,
            "limit": 64 << 30,
            "values": 812_345,
            "evicted": 12_000,
            "evicted_bytes": 1 << 30,
            "expired": 0,
            "uploads": 0,
            "evicts": True,
            "counted": True,
        }
    ]
    with scoreboard(WORKERS) as board:
        for worker in range(WORKERS):
            board.own_row(worker)
        settings = Settings(procs=WORKERS, policy="roundrobin")
        evictor = ProcessState("evictor", 4800, "stalled" if stalled else "ready", 0)
        status = describe(
            *(settings, [], workers, board, SECONDS), usage=usage, processes=[evictor]
        )
    newest = history.newest
    assert newest is not None
    for row in status["workers"]:
        row["open"], row["requests"] = 10 + row["worker"], 1_000_000 + row["worker"]
        if row["state"] == "stalled":
            row["silent_seconds"] = 12.5
    ready, sentence = readiness(status, space)
    status |= {
        "last_second": newest.summary(),
        "disk": {
            "complaint": space.complaint,
            "free_bytes": space.free_bytes,
            "bytes": space.bytes,
            "free_inodes": space.free_inodes,
            "inodes": space.inodes,
        },
        "ready": ready == 200,
        "readiness": sentence.strip(),
        "events": [
            {
                "at": time.time() - 900 + 100 * at,
                "kind": kind,
                "level": level,
                "text": text,
            }
            for at, (kind, level, text) in enumerate(EVENTS)
        ],
    }
    past = {
        "interval_seconds": 1,
        "kept_samples": 300,
        "balance_seconds": 10,
        "samples": [sample.as_remembered() for sample in history.samples],
        "step_seconds": 10,
        "kept_steps": 360,
        "steps": [step.as_remembered() for step in history.steps],
    }
    return {"/status.json": status, "/history.json": past}


@contextmanager
def serving(content: Mapping[str, Any]) -> Iterator[str]:
    """
    Serve the page and what it asks for.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = PAGE
            if self.path in content:
                body = json.dumps(content[self.path]).encode()
            self.send_response(200)
            if body is PAGE:
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Security-Policy", PAGE_POLICY)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """
            Nothing.
            """

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


SHOWN = "document.body.dataset.live > 0"


def pictures(folder: Path) -> Iterator[tuple[str, bytes]]:
    """
    Make them, one by one.

    Args:
        folder: For the browser.
    """
    history = an_hour()
    with ExitStack() as stack:
        browser = stack.enter_context(Chromium(folder / "profile"))
        with serving(replies(history, GOOD, stalled=False)) as url:
            for name, width in WIDTHS.items():
                browser.open(url, width=width)
                browser.until(SHOWN)
                wide = "document.documentElement.scrollWidth"
                assert browser.value(wide) <= width, f"{name} has to be scrolled"
                yield name, browser.picture()
                assert [] == browser.complaints
            browser.open(url, dark=True)
            browser.until(SHOWN)
            yield "dark", browser.picture()
            assert [] == browser.complaints
        with serving(replies(history, FULL, stalled=True)) as url:
            browser.open(url)
            browser.until(SHOWN)
            yield "full", browser.picture()
            assert [] == browser.complaints
        browser.until("document.body.classList.contains('stale')")
        yield "dead", browser.picture()


def main() -> None:
    """
    Write all pictures.
    """
    target = Path(sys.argv[1])
    target.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, picture in pictures(Path(folder)):
            (target / f"{name}.png").write_bytes(picture)
            print(target / f"{name}.png", flush=True)


if __name__ == "__main__":
    main()
