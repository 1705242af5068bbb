"""
The page of a folder, of the true daemon, in a true browser.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, unquote_to_bytes
from urllib.request import urlopen

import pytest
from argon2 import PasswordHasher

from tests.integration.chromium import Chromium
from tests.integration.twistd import Twistd
from tests.patience import PATIENCE_SECONDS

pytestmark = pytest.mark.integration

RIGHTS = f"""
[anonymous.rights]
"/" = ["read", "list", "write", "delete"]
"/private/" = []
"/open/" = ["read", "list"]

[users.ann]
password = "{PasswordHasher(1, 8, 1).hash("secret")}"
[users.ann.rights]
"/private/" = ["read", "list", "write", "delete"]

[users.bob.rights]
"/private/" = ["read", "list"]

[users.bob]
password = "{PasswordHasher(1, 8, 1).hash("secret")}"
"""

HOSTILE = [
    b"<img src=x onerror=document.title=1>",
    b"</script><script>document.title=1",
    b"javascript:document.title=1",
    b'"><b>',
    b"a?b#c%2e%2e\\d",
    "a‮gpj.exe".encode(),
    b"inv\xff\xfealid",
    "caf\u00e9 \u05e9\u05dc.pdf".encode(),
    b" spaces ",
    b"n" * 255,
]

SCRIPT = b"""<!DOCTYPE html><title>still</title><p>a value</p>
<script>document.title = "ran"; fetch("/page/ran", {method: "PUT", body: "x"});</script>
<img src="x" onerror="fetch('/page/ran', {method: 'PUT', body: 'x'})">
<form method="post" action="/page/ran"></form>
<script>document.forms[0].submit()</script>
"""

ROWS = "[...document.querySelectorAll('#rows tr:not([hidden]) a')]"
NAMES = f"{ROWS}.map((each) => each.textContent)"
SAID = "document.querySelector('#said').textContent"
JOBS = "[...document.querySelectorAll('#jobs li')].map((each) => each.textContent)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """
    One for all tests.
    """
    with Chromium(tmp_path_factory.mktemp("browser") / "profile") as browser:
        yield browser


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twistd]:
    """
    One for all tests; each has a folder of its own.
    """
    folder = tmp_path_factory.mktemp("daemon")
    rights = folder / "rights.toml"
    rights.write_text(RIGHTS)
    rights.chmod(0o600)
    options = [f"--store=file:{folder}/values", "--control=off", "--procs=1"]
    options += ["--durability=process", f"--users={rights}", "--dialect=/dav/=webdav"]
    with Twistd(options, folder) as daemon:
        yield daemon


class Peer:
    """
    A program that uses the daemon beside the browser.
    """

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(
        self, method: str, key: bytes, body: bytes = b"", **fields: str
    ) -> tuple[int, bytes]:
        """
        The status and the body of a reply.
        """
        named = {name.replace("_", "-"): value for name, value in fields.items()}
        client = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        with closing(client):
            client.request(method, f"/{quote(key)}", body or None, named)
            reply = client.getresponse()
            return reply.status, reply.read()

    def type_of(self, key: bytes) -> str | None:
        """
        The type that a value has.
        """
        with urlopen(
            f"http://127.0.0.1:{self.port}/{quote(key)}", timeout=PATIENCE_SECONDS
        ) as reply:
            return cast(HTTPResponse, reply).getheader("Content-Type")

    def put(self, key: bytes, body: bytes = b"value", **fields: str) -> None:
        """
        Store a value.
        """
        assert self.ask("PUT", key, body, **fields)[0] in (201, 204)

    def values(self, prefix: bytes) -> dict[bytes, int]:
        """
        What is stored, and its sizes.
        """
        _, listed = self.ask("GET", prefix)
        lines = [json.loads(line) for line in listed.splitlines()]
        return {unquote_to_bytes(line["key"]): line["size"] for line in lines}


@pytest.fixture
def peer(daemon: Twistd) -> Peer:
    """
    A program.
    """
    return Peer(daemon.port)


class Breaking:
    """
    A way to the daemon on which one connection breaks in the middle of a body.
    """

    def __init__(self, port: int, after: int) -> None:
        """
        Args:
            port: Of the daemon.
            after: How many bytes of one connection break it.
        """
        self._port = port
        self._after = after
        self.breaks = 0
        self.bytes = 0
        """How many bytes clients have sent."""
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                self._ends += [client, server]
                self._start(self._pass, client, server, True)
                self._start(self._pass, server, client, False)

    def _pass(self, one: socket.socket, other: socket.socket, counts: bool) -> None:
        passed = 0
        with suppress(OSError):
            while data := one.recv(1 << 16):
                other.sendall(data)
                passed += len(data)
                self.bytes += len(data) if counts else 0
                if counts and passed > self._after and not self.breaks:
                    self.breaks += 1
                    break
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """
        Break all connections, and accept no more.
        """
        for end in (self._listener, *self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)
        for end in (self._listener, *self._ends):
            end.close()


def url(place: Any, path: str) -> str:
    """
    Of something that the daemon has.
    """
    return f"http://127.0.0.1:{place.port}/{path}"


def test_folders_are_read_without_scripts(
    daemon: Twistd, browser: Chromium, peer: Peer
) -> None:
    """
    Names, sizes, dates, links, pages; nothing is shown that would need a script.
    """
    for key in (b"read/b/c", b"read/a", b"read/z"):
        peer.put(key, b"x" * 2048)
    browser.open(url(daemon, "read/?limit=2"), scripts=False)

    assert ["a", "b/"] == browser.value(NAMES)
    assert "2.0 KiB" == browser.value("document.querySelector('#rows td').textContent")
    heads = (
        "[...document.querySelectorAll('thead th[scope=col]')].map((e) => e.innerText)"
    )
    assert ["Name", "Size", "Changed (UTC)"] == browser.value(heads)
    buttons = "[...document.querySelectorAll('button, input')]"
    assert not browser.value(f"{buttons}.some((each) => each.offsetParent !== null)")
    following = browser.value("document.querySelector('#pages a').href")
    browser.open(following, scripts=False)
    assert ["z"] == browser.value(NAMES)
    above = browser.value("document.querySelector('header a').href")
    assert url(daemon, "") == above
    assert [] == browser.complaints


def test_folder_is_found_without_its_slash(
    daemon: Twistd, browser: Chromium, peer: Peer
) -> None:
    """
    Once its last value is gone, its name is free for a value; the browser has not kept
    where it was sent.
    """
    key = "slash/an \u00fcber: folder".encode()
    peer.put(key + b"/k")
    path = quote(key)
    browser.open(url(daemon, path + "?limit=7"))

    assert f"/{path}/?limit=7".replace(":", "%3A") == browser.value(
        "location.pathname + location.search"
    )
    assert ["k"] == browser.value(NAMES)
    assert [] == browser.complaints
    peer.ask("DELETE", key + b"/k")
    peer.put(key, b"a value now", Content_Type="text/plain")
    browser.open(url(daemon, path + "?limit=7"))
    assert "a value now" == browser.value("document.body.innerText")


@pytest.mark.parametrize("dark", [False, True])
def test_page_fits_narrow_and_wide(
    daemon: Twistd, browser: Chromium, peer: Peer, dark: bool
) -> None:
    """
    In light and dark colours, with names of any bytes, of which none is more than a
    name; and each link leads to its value.
    """
    for name in HOSTILE:
        if b"/" not in name:
            peer.put(b"names/" + name, name)
        else:
            peer.put(b"names/" + name.replace(b"/", b"_"), name)
    for width in (360, 1600):
        browser.open(url(daemon, "names/"), width=width, dark=dark)
        assert width == browser.value("document.documentElement.scrollWidth")
        assert len(HOSTILE) == browser.value(f"{ROWS}.length")
        ground = browser.value("getComputedStyle(document.body).backgroundColor")
        (red,) = ground[4:].split(",")[:1]
        assert dark is (int(red) < 128)
        browser.picture()
    stored = peer.values(b"names/")
    links = browser.value(f"{ROWS}.map((each) => new URL(each.href).pathname)")
    assert set(stored) == {unquote_to_bytes(link)[1:] for link in links}
    assert "/names/ · kvd" == browser.value("document.title")
    assert [] == browser.complaints


def test_search_and_order(daemon: Twistd, browser: Chromium, peer: Peer) -> None:
    """
    Of the entries of this page, with folders first; what is found is said.
    """
    for name, size in (("b2", 30), ("b10", 20), ("a", 10)):
        peer.put(f"order/{name}".encode(), b"x" * size)
    peer.put(b"order/c/d")
    browser.open(url(daemon, "order/"))
    assert ["c/", "a", "b10", "b2"] == browser.value(NAMES)
    heads = "[...document.querySelectorAll('thead button')]"
    for number, orders in (
        (0, (["c/", "a", "b2", "b10"], ["c/", "b10", "b2", "a"])),
        (1, (["c/", "b2", "b10", "a"], ["c/", "a", "b10", "b2"])),
    ):
        for names in orders:
            browser.value(f"{heads}[{number}].click()")
            assert names == browser.value(NAMES)
    sorted_by = "document.querySelector('[aria-sort]').getAttribute('aria-sort')"
    assert "ascending" == browser.value(sorted_by)
    browser.value("document.querySelector('#search').focus()")
    browser.press("B", 66, "B")
    assert ["b10", "b2"] == browser.value(NAMES)
    browser.until(f"{SAID} === '2 of 4 entries match.'")
    browser.press("x", 88, "x")
    assert [] == browser.value(NAMES)
    assert browser.value("!document.querySelector('#none').hidden")
    assert [] == browser.complaints


def test_uploads_by_button_and_by_drop(
    daemon: Twistd, browser: Chromium, peer: Peer, tmp_path: Path
) -> None:
    """
    Files, and folders with all that is in them, byte for byte. A value of the same name
    stays, unless it is to be replaced.
    """
    large = bytes(range(256)) * 4096 * 3
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name, body in (
        ("a b?#%.txt", b"small"),
        ("empty", b""),
        ("large", large),
        ("deep/x", b"1"),
        ("deep/er/y", b"2"),
    ):
        (tmp_path / name).write_bytes(body)
    browser.open(url(daemon, "up/"))
    chosen = [tmp_path / name for name in ("a b?#%.txt", "empty", "large")]
    browser.choose_files("#files", chosen)
    browser.until(f"{SAID} === '3 of 3 files are uploaded.'")
    browser.until(f"{ROWS}.length === 3")
    assert large == peer.ask("GET", b"up/large")[1]
    assert b"small" == peer.ask("GET", b"up/a b?#%.txt")[1]

    browser.drop_files(300, 300, [tmp_path / "deep"])
    browser.until(f"{SAID} === '2 of 2 files are uploaded.'")
    browser.until(f"{NAMES}.includes('deep/')")
    assert {b"up/deep/x": 1, b"up/deep/er/y": 1} == peer.values(b"up/deep/")

    (tmp_path / "empty").write_bytes(b"no longer")
    browser.choose_files("#files", [tmp_path / "empty"])
    browser.until(f"{JOBS}.length === 1 && {JOBS}[0].includes('is here already')")
    assert b"" == peer.ask("GET", b"up/empty")[1]
    assert "Replace" == browser.value(
        "document.querySelector('#jobs button').textContent"
    )
    browser.value("document.querySelector('#jobs button').click()")
    browser.until("document.querySelector('#uploads').hidden")
    assert b"no longer" == peer.ask("GET", b"up/empty")[1]
    # The browser itself notes the refusal that the page expects.
    assert all("412" in each for each in browser.complaints)


def test_uploaded_text_can_be_read(
    daemon: Twistd, browser: Chromium, peer: Peer, tmp_path: Path
) -> None:
    """
    UTF-8 is declared where it is; what is in another encoding, or no text at all, keeps
    the type that the browser gives it.
    """
    utf_8 = "text/plain; charset=utf-8"
    long = 1024 * 1024
    files = {
        "utf-8": ("Grüße, \N{SNOWMAN}".encode(), utf_8),
        "ascii": (b"hello", utf_8),
        "empty": (b"", utf_8),
        "latin-1": ("Grüße".encode("latin-1"), "text/plain"),
        "utf-16": ("hello".encode("utf-16-le"), "text/plain"),
        # A character lies across the end of the part that is looked at.
        "long-utf-8": (b"x" + (long // 2 + 9) * "ü".encode(), utf_8),
        "long-latin-1": (long * b"x" + "ü".encode("latin-1"), "text/plain"),
    }
    for name, (body, _) in files.items():
        (tmp_path / f"{name}.txt").write_bytes(body)
    (tmp_path / "picture.png").write_bytes(b"hello")
    browser.open(url(daemon, "texts/"))
    browser.choose_files("#files", sorted(tmp_path.iterdir()))
    browser.until(f"{SAID} === '8 of 8 files are uploaded.'")
    for name, (body, type_) in files.items():
        key = b"texts/%b.txt" % name.encode()
        assert type_ == peer.type_of(key)
        assert body == peer.ask("GET", key)[1]
    assert "image/png" == peer.type_of(b"texts/picture.png")
    browser.open(url(daemon, "texts/utf-8.txt"))
    assert "Grüße, \N{SNOWMAN}" == browser.value("document.body.textContent")


def test_broken_upload_goes_on(
    daemon: Twistd, browser: Chromium, peer: Peer, tmp_path: Path
) -> None:
    """
    A connection that breaks costs nothing but time: what has come is not sent again.
    """
    body = bytes(range(251)) * 80_000
    (tmp_path / "value").write_bytes(body)
    with closing(Breaking(daemon.port, 18_000_000)) as way:
        browser.open(url(way, "broken/"))
        browser.choose_files("#files", [tmp_path / "value"])
        browser.until(f"{SAID} === '1 of 1 file is uploaded.'")
        assert 1 == way.breaks
        # The last of it may still have been in the sockets: some megabytes.
        assert way.bytes < 1.6 * len(body)
    assert body == peer.ask("GET", b"broken/value")[1]


def test_large_file_is_sent_at_once_where_it_cannot_go_on(
    daemon: Twistd, browser: Chromium, peer: Peer, tmp_path: Path
) -> None:
    """
    Below the prefix of a dialect that does not have that.
    """
    body = bytes(range(251)) * 20_000
    (tmp_path / "value").write_bytes(body)
    browser.open(url(daemon, "dav/"))
    browser.choose_files("#files", [tmp_path / "value"])
    browser.until(f"{SAID} === '1 of 1 file is uploaded.'")
    assert body == peer.ask("GET", b"dav/value")[1]


def test_deletion_is_of_what_was_shown(
    daemon: Twistd, browser: Chromium, peer: Peer
) -> None:
    """
    It is asked for, with the keyboard alone; the focus stays among the entries. A value
    that was replaced meanwhile stays.
    """
    for name in (b"a", b"b", b"c"):
        peer.put(b"gone/" + name)
    browser.open(url(daemon, "gone/"))
    focused = "document.activeElement.getAttribute('aria-label')"
    browser.value("document.querySelector('#search').focus()")
    while browser.value(focused) != "Delete b":
        browser.press("Tab", 9)
    browser.press("Enter", 13, "\r")
    browser.until("document.querySelector('dialog').open")
    browser.press("Escape", 27)
    browser.until("!document.querySelector('dialog').open")
    assert "Delete b" == browser.value(focused)
    assert 3 == len(peer.values(b"gone/"))
    # Asked again before the page has heard that the question before was answered.
    browser.press("Enter", 13, "\r")
    browser.until("document.querySelector('dialog').open")
    again = (
        "document.querySelector('dialog').close('no'); document.activeElement.click()"
    )
    browser.value(again)
    browser.until("document.querySelector('dialog').open")
    for key, code, text in (("Tab", 9, ""), ("Enter", 13, "\r")):
        browser.press(key, code, text)
    browser.until(f"{SAID} === 'b was deleted.'")
    assert "Delete c" == browser.value(focused)
    assert {b"gone/a", b"gone/c"} == {*peer.values(b"gone/")}

    peer.put(b"gone/a", b"newer")
    browser.value("document.querySelector('#rows button').click()")
    browser.value("document.querySelector('#ask-yes').click()")
    browser.until(f"{SAID} === 'a has changed meanwhile, and was not deleted.'")
    assert b"newer" == peer.ask("GET", b"gone/a")[1]
    browser.value("document.querySelector('#ask-yes').click()")
    assert all("412" in each for each in browser.complaints)


def test_page_offers_what_its_reader_may_do(
    daemon: Twistd, browser: Chromium, peer: Peer, tmp_path: Path
) -> None:
    """
    A user who may not is offered nothing, and a refusal is told in kvd's words.
    """
    ann = "Basic YW5uOnNlY3JldA=="
    peer.put(b"private/k", b"x", Authorization=ann)
    hidden = "document.querySelector('#choose').hidden"
    (tmp_path / "mine").write_bytes(b"of ann")
    browser.open(url(daemon, "private/").replace("//", "//ann:secret@", 1))
    assert "Signed in as ann" == browser.value(
        "document.querySelector('.who').textContent"
    )
    browser.choose_files("#files", [tmp_path / "mine"])
    browser.until(f"{NAMES}.includes('mine')")
    assert b"of ann" == peer.ask("GET", b"private/mine", Authorization=ann)[1]
    assert [] == browser.complaints

    browser.open(url(daemon, "private/").replace("//", "//bob:secret@", 1))
    assert ["k", "mine"] == browser.value(NAMES)
    assert browser.value(hidden)
    assert 0 == browser.value("document.querySelectorAll('#rows button').length")

    # Nobody has asked for a password here. The browser sends the one that it remembers,
    # once kvd wants one.
    browser.open(url(daemon, "open/"))
    browser.choose_files("#files", [tmp_path / "mine"])
    browser.until(f"{JOBS}.length === 1 && {JOBS}[0].includes('Try again')")
    assert "The user bob may not write this" in browser.value(JOBS)[0]
    assert {} == peer.values(b"open/")


def test_values_run_no_script(daemon: Twistd, browser: Chromium, peer: Peer) -> None:
    """
    Whatever page they are, none runs, and none can change anything.
    """
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><script>%b</script></svg>'
    run = b"document.documentElement.id = 'ran'; fetch('/page/ran', {method: 'PUT'})"
    pages = {b"page/html": ("text/html", SCRIPT)}
    pages[b"page/svg"] = "image/svg+xml", svg % run
    pages[b"page/xml"] = (
        "text/xml",
        b'<html xmlns="http://www.w3.org/1999/xhtml"><script>%b</script></html>' % run,
    )
    for key, (kind, body) in pages.items():
        peer.put(key, body, Content_Type=kind)
        browser.open(url(daemon, key.decode()))
        assert "ran" not in browser.value("document.title")
        assert "ran" != browser.value("document.documentElement.id")
        assert "null" == browser.value("self.origin")
    assert {*pages} == {*peer.values(b"page/")}
