"""
The status page of the true daemon, in a true browser.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from kvd.admin.control.asking import ControlSocket
from tests.integration.chromium import Chromium
from tests.integration.twistd import Twistd
from tests.patience import PATIENCE_SECONDS
from tests.ports import unused_port

pytestmark = pytest.mark.integration

WORKERS = 3


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """
    One for all tests: it takes longer to start than to show a page.
    """
    with Chromium(tmp_path_factory.mktemp("browser") / "profile") as browser:
        yield browser


@contextmanager
def load(port: int) -> Iterator[None]:
    """
    Clients that go on asking, each over a connection for each request; they leave the
    processors to the browser.
    """
    enough = threading.Event()

    def go_on() -> None:
        while not enough.wait(0.02):
            client = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
            client.request("PUT", "/k", b"x" * 1000)
            client.getresponse().read()
            client.close()

    threads = [threading.Thread(target=go_on) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        enough.set()
        for thread in threads:
            thread.join()


def cell(worker: int, field: str) -> str:
    """
    JavaScript for what stands in a cell of the table.
    """
    return (
        f'document.querySelector(\'[data-worker="{worker}"]'
        f' [data-field="{field}"]\').textContent'
    )


def number(script: str) -> str:
    """
    JavaScript for a text as a number.
    """
    return f"parseFloat({script}.replace(',', ''))"


def sorting_works(browser: Chromium) -> None:
    """
    A click on a heading sorts the workers by that column, a second one reverses that.
    """
    head = "[...document.querySelectorAll('#heads th')].find((each) => each.title.{})"
    head = head.format("startsWith('The process id')")
    shown = "[...document.querySelectorAll('#workers [data-field=pid]')]"
    pids = browser.value(f"{shown}.map((each) => parseInt(each.textContent))")
    for order, reverse in (("descending", True), ("ascending", False)):
        browser.value(f"{head}.querySelector('button').click()")
        assert order == browser.value(f"{head}.getAttribute('aria-sort')")
        found = browser.value(f"{shown}.map((each) => parseInt(each.textContent))")
        assert sorted(pids, reverse=reverse) == found


def test_the_page_shows_the_workers_as_they_work(
    tmp_path: Path, browser: Chromium
) -> None:
    """
    Each with its numbers, which change by themselves; and the balance over time. They
    can be sorted. What happens to a worker is among the events, the newest first.
    """
    options = ["--store=null:", "--control=off", "--policy=roundrobin"]
    options += [f"--procs={WORKERS}", "--status=tcp:0"]
    with Twistd(options, tmp_path) as daemon:
        browser.open(f"http://127.0.0.1:{daemon.status_port}/")
        browser.until("document.querySelectorAll('#workers tr').length === 3")
        for worker in range(WORKERS):
            assert str(worker) == browser.value(cell(worker, "worker"))
            assert "ready" == browser.value(cell(worker, "state"))
            assert "0" == browser.value(cell(worker, "requests"))
        assert "kvd: roundrobin, 3 workers" == browser.value("document.title")

        with load(daemon.port):
            for worker in range(WORKERS):
                browser.until(f"{number(cell(worker, 'rate'))} > 0")
                seen = browser.value(number(cell(worker, "requests")))
                browser.until(f"{number(cell(worker, 'requests'))} > {seen}")
            balance = "document.querySelector('[data-tile=balance] b').textContent"
            browser.until(f"{number(balance)} > 0.9")
            browser.until("document.querySelector('#balance .line.first') !== null")
            browser.until("document.querySelector('#balance .line.second') !== null")
            # Some of the picture has another colour than a worker without work.
            browser.until(
                "new Set(new Uint32Array(document.querySelector('#map')"
                ".getContext('2d').getImageData(60, 0, 1200, 50).data.buffer)).size > 2"
            )

        sorting_works(browser)
        events = "document.querySelector('#events').firstElementChild"
        assert "Nothing since the start." == browser.value(f"{events}.textContent")
        pid = int(browser.value(cell(1, "pid")))
        os.kill(pid, signal.SIGKILL)
        browser.until(f"{cell(1, 'pid')}.endsWith('(+1)')")
        browser.until(f"{events}.querySelector('b.restart') !== null")
        event = browser.value(f"{events}.querySelector('span').textContent")
        assert f"worker 1 (process {pid}) was killed by SIGKILL" in event
        assert [] == browser.complaints


def test_the_page_shows_what_a_shadow_would_have_done(
    tmp_path: Path, browser: Chromium
) -> None:
    """
    How often it agreed, and what each worker got beside what it would have got;
    that there is nothing to see; and nothing, where there is none.
    """
    control = tmp_path / "control"
    options = ["--store=null:", f"--control={control}", "--policy=roundrobin"]
    options += [f"--procs={WORKERS}", "--status=tcp:0", "--shadow=leastbusy"]
    hidden = "document.querySelector('#shadow-card').hidden"
    words = "document.querySelector('#shadow-words')"
    with Twistd(options, tmp_path) as daemon:
        browser.open(f"http://127.0.0.1:{daemon.status_port}/")
        browser.until(
            f"{words}.textContent === 'No connection has been dispatched yet.'"
        )
        fact = "document.querySelector('[data-fact=shadow] dd').textContent"
        assert "leastbusy" == browser.value(fact)

        with load(daemon.port):
            agreed = "document.querySelector('#agreement-words').textContent"
            browser.until(f"/^The same worker for \\d+ %, another/.test({agreed})")
            for kind in ("first", "second"):
                bars = f"[...document.querySelectorAll('#shadow .bar.{kind}')]"
                seen = f"{bars}.filter((bar) => bar.height.baseVal.value > 9)"
                browser.until(f"{seen}.length === {WORKERS}")
            assert browser.value(f"{words}.hidden")

        asked = ControlSocket(str(control))
        asked.change("policy", {"policy": "reuseport"})
        browser.until(
            f"!{words}.hidden && {words}.textContent === 'No data: under"
            " reuseport the supervisor dispatches no connections.'"
        )
        asked.change("shadow", {"shadow": "off"})
        asked.close()
        browser.until(hidden)
        assert "none" == browser.value(fact)
        assert [] == browser.complaints


def test_the_page_says_when_nobody_answers(tmp_path: Path, browser: Chromium) -> None:
    """
    And goes on by itself when somebody does again.
    """
    # Known before: the page asks the second daemon where it asked the first.
    site = unused_port()
    options = ["--store=null:", "--control=off", "--procs=1", f"--status=tcp:{site}"]
    live = "document.querySelector('#live').textContent"
    with Twistd(options, tmp_path):
        browser.open(f"http://127.0.0.1:{site}/", dark=True)
        browser.until(f"{live} === 'live'")
    browser.until(f"{live}.startsWith('no answer, the numbers are ')")
    assert browser.value("document.body.classList.contains('stale')")
    with Twistd(options, tmp_path) as daemon:
        browser.until(f"{live} === 'live'")
        assert not browser.value("document.body.classList.contains('stale')")
        browser.until(f"{cell(0, 'pid')} !== ''")
        fact = "document.querySelector('[data-fact=process] dd').textContent"
        browser.until(f"{fact} === '{daemon.process.pid}'")


def test_the_page_says_what_is_wrong_and_nothing_else(
    tmp_path: Path, browser: Chromium
) -> None:
    """
    A store that evicts is meant to be full. A worker that hangs is named above all.
    """
    site = unused_port()
    control = f"{tmp_path}/control"
    options = [
        *(f"--store=file:{tmp_path}/values", "--max-size=100KiB", "--full=evict"),
        *("--procs=2", f"--control={control}", f"--status=tcp:{site}"),
        "--hang-timeout=1h",
    ]
    alarm = "document.querySelector('#alarm')"
    with Twistd(options, tmp_path) as daemon:
        client = HTTPConnection("127.0.0.1", daemon.port, timeout=PATIENCE_SECONDS)
        for key in range(24):
            client.request("PUT", f"/{key}", b"x" * 4096)
            client.getresponse().read()
        client.close()
        browser.open(f"http://127.0.0.1:{site}/")
        bar = "document.querySelector('#disk > :last-child')"
        browser.until(f"{bar}?.textContent.includes('(96 % used)')")
        assert "" == browser.value(
            f"{bar}.querySelector('.full, .near-full')?.className ?? ''"
        )
        assert browser.value(f"{alarm}.hidden")
        with closing(ControlSocket(control)) as asked:
            worker = asked.status()["workers"][0]["pid"]
        os.kill(worker, signal.SIGSTOP)
        try:
            browser.until(f"{alarm}.textContent === 'Worker 0 is stalled.'")
            assert not browser.value(f"{alarm}.hidden")
            browser.until("document.title.startsWith('! kvd')")
        finally:
            os.kill(worker, signal.SIGCONT)
        browser.until(f"{alarm}.hidden")
    browser.until("document.title.startsWith('? kvd')")
