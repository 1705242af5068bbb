"""
``kvd upgrade``: new code takes over from a running daemon.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

import pytest

import kvd
from kvd.admin.control.asking import ControlSocket
from kvd.errors import ChangeImpossible, ControlUnusable
from tests.integration.http import ask
from tests.integration.twistd import EXEC, Twistd
from tests.patience import PATIENCE_SECONDS
from tests.processes import has_ended, state_of

pytestmark = pytest.mark.integration


class Upgradable:
    """
    A daemon whose settings file and code can be replaced, in a folder of its own.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.config = folder / "kvd.toml"
        self.config.write_text(f'store = "file:{folder}/values"\nprocs = 2\n')
        self.control = str(folder / "control")
        self.options = [
            *["--config=kvd.toml", f"--control={self.control}", *options],
            *[f"--listen=unix:{folder}/socket", "--listen=tcp:0:interface=127.0.0.1"],
        ]

    def serve(self, pid_file: str = "", prelude: str = "") -> Twistd:
        """
        The daemon. The one that takes over, and with `EXEC` the first one too, finds
        modules in its folder first.
        """
        before = [f"--pidfile={pid_file}"]
        return Twistd(self.options, self.folder, before=before, prelude=prelude)

    def asking(self) -> closing[ControlSocket]:
        """
        Its control socket.
        """
        return closing(ControlSocket(self.control))

    def pid(self) -> int:
        """
        Of the daemon that answers.
        """
        with self.asking() as asked:
            return int(asked.status()["pid"])

    def refusal(self) -> str:
        """
        Why it is not upgraded.
        """
        with self.asking() as asked, pytest.raises(ChangeImpossible) as caught:
            asked.upgrade()
        return caught.value.sentence

    def replace_code(self, text: str) -> None:
        """
        Put another ``kvd`` before the one that is installed.
        """
        (self.folder / "kvd.py").write_text(text)


def until(condition: Callable[[], bool]) -> None:
    """
    Wait for it.
    """
    last = monotonic() + PATIENCE_SECONDS
    while not condition():
        assert monotonic() < last
        sleep(0.02)


def children(pid: int) -> list[int]:
    """
    The processes that a process has started.
    """
    return [
        int(child)
        for thread in Path(f"/proc/{pid}/task").iterdir()
        for child in (thread / "children").read_text().split()
    ]


def offset_of(port: int, url: str) -> str | None:
    """
    How much of an upload has come; None while a request writes it.
    """
    return ask(port, "HEAD", url).fields.get("upload-offset")


def command_of(pid: int) -> bytes:
    """
    The command line of a process.
    """
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.fixture(scope="module")
def steady(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Upgradable, int]]:
    """
    A daemon that is never upgraded, and its port.
    """
    daemon = Upgradable(tmp_path_factory.mktemp("steady"))
    with daemon.serve() as process:
        before = daemon.pid()
        yield daemon, process.port
        assert before == daemon.pid()
        assert 201 == ask(process.port, "PUT", "/last", b"value").status


def test_requests_in_progress_end_at_the_old_daemon(tmp_path: Path) -> None:
    """
    An upload, and a connection that waits. An upload that breaks off there is resumed
    at the new one. Signals to the process that was started first reach the daemon that
    serves, whose PID file is the same.
    """
    # However long the upgrade takes.
    daemon = Upgradable(tmp_path, "--body-timeout=1h", "--drain-timeout=1h")
    with daemon.serve("kvd.pid") as process:
        first = process.process.pid
        assert first == daemon.pid() == int((tmp_path / "kvd.pid").read_text())
        with (
            socket.create_connection(("127.0.0.1", process.port)) as uploading,
            socket.create_connection(("127.0.0.1", process.port)) as breaking,
            socket.socket(socket.AF_UNIX) as idle,
            daemon.asking() as asked,
        ):
            head = b"PUT /half HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\n"
            uploading.sendall(head + b"half")
            breaking.sendall(
                b"PUT /parts HTTP/1.1\r\nHost: localhost\r\nContent-Length: 12\r\n"
                b"Upload-Complete: ?1\r\n\r\nfour"
            )
            said = breaking.recv(4096)
            found = re.match(rb"HTTP/1\.1 104 [^\r]*\r\nLocation: (\S+)", said)
            assert found is not None, said
            url = found[1].decode()
            idle.connect(f"{tmp_path}/socket")
            idle.sendall(b"GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert idle.recv(4096).startswith(b"HTTP/1.1 404 ")
            daemon.config.write_text(
                f'store = "file:{tmp_path}/values"\nprocs = 1\npolicy = "leastbusy"\n'
            )
            asked.upgrade()
            status = asked.status()
            assert "leastbusy" == status["policy"]
            assert 1 == len(status["workers"])
            second = status["pid"]
            assert first != second
            assert second == int((tmp_path / "kvd.pid").read_text())
            assert 404 == ask(process.port, "GET", "/half").status
            uploading.sendall(b"half")
            assert uploading.recv(4096).startswith(b"HTTP/1.1 201 ")
            breaking.sendall(b"more")
        until(lambda: "8" == offset_of(process.port, url))
        fields = {"Content-Type": "application/partial-upload", "Upload-Offset": "8"}
        fields |= {"Upload-Complete": "?1"}
        assert 201 == ask(process.port, "PATCH", url, b"last", fields).status
        assert b"fourmorelast" == ask(process.port, "GET", "/parts").body
        assert b"halfhalf" == ask(process.port, "GET", "/half").body
        until(lambda: b"stand_in" in command_of(first))
        # A second time; the first process stands in still.
        with daemon.asking() as asked:
            asked.upgrade()
        third = daemon.pid()
        until(lambda: [third] == children(first))
        with socket.socket(socket.AF_UNIX) as connected:
            connected.connect(f"{tmp_path}/socket")
        assert -signal.SIGTERM == process.stop()
        assert not (tmp_path / "kvd.pid").exists()
        assert not (tmp_path / "socket").exists()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ('store = "null:"', "store is 'null:', and the running kvd has 'file:"),
        ("users = '/no/such/file'", "/no/such/file"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    steady: tuple[Upgradable, int], settings: str, sentence: str
) -> None:
    """
    In a sentence, and the old daemon goes on.
    """
    daemon, port = steady
    before = daemon.config.read_text()
    lines = {line.split(" = ")[0]: line for line in before.splitlines()}
    lines[settings.split(" = ")[0]] = settings
    daemon.config.write_text("\n".join(lines.values()))
    try:
        assert sentence in daemon.refusal()
        assert 200 == ask(port, "GET", "/").status
    finally:
        daemon.config.write_text(before)


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("this is no Python", "SyntaxError: invalid syntax"),
        ("import os; os.kill(os.getpid(), 9)", "it ended without a word"),
    ],
)
def test_code_that_does_not_start_is_reported(
    steady: tuple[Upgradable, int], code: str, sentence: str
) -> None:
    """
    With its own last line, and the old daemon goes on.
    """
    daemon, port = steady
    daemon.replace_code(code)
    try:
        refusal = daemon.refusal()
    finally:
        (daemon.folder / "kvd.py").unlink()

    assert refusal.startswith("the new kvd does not start, and this one goes on: ")
    assert sentence in refusal
    assert 200 == ask(port, "GET", "/").status


FAILS_TO_SERVE: Final = """
from kvd.daemon.supervisor import SupervisorService

def fail(self, reactor):
    raise RuntimeError("no workers get connections")

SupervisorService._distribute = fail
"""


FAILS_TO_ANSWER: Final = """
sys.modules["kvd.admin.control.site"] = None
"""
"""
What answers the operator cannot be imported.
"""


@pytest.mark.parametrize("later", [FAILS_TO_SERVE, FAILS_TO_ANSWER])
def test_one_that_fails_as_it_begins_to_serve_leaves_all_in_place(
    steady: tuple[Upgradable, int], later: str
) -> None:
    """
    The files of the sockets are the old daemon's still, which goes on.
    """
    daemon, _ = steady
    daemon.replace_code(new_code("", later))
    try:
        assert "this one goes on" in daemon.refusal()
    finally:
        (daemon.folder / "kvd.py").unlink()

    with socket.socket(socket.AF_UNIX) as connected:
        connected.connect(f"{daemon.folder}/socket")
    assert daemon.pid()


IS_ASKED_TO_END: Final = """
from kvd.daemon.upgrade.predecessor import Predecessor

async def wait_and_signal(self, *arguments):
    allowed = await wait(self, *arguments)
    os.kill(os.getpid(), signal.SIGTERM)
    return allowed

wait, Predecessor.allowed = Predecessor.allowed, wait_and_signal
"""
"""
The new daemon is asked to end as it is allowed to serve.
"""


def test_one_that_is_asked_to_end_leaves_the_old_one_its_place(tmp_path: Path) -> None:
    """
    And its PID file. Else nobody would serve.
    """
    daemon = Upgradable(tmp_path)
    with daemon.serve("kvd.pid") as process:
        process.read_on()
        daemon.replace_code(new_code("", IS_ASKED_TO_END))
        assert "this one goes on" in daemon.refusal()
        until(lambda: "Server Shut Down." in "".join(process.lines))
        old = process.process.pid
        assert old == daemon.pid() == int((tmp_path / "kvd.pid").read_text())
        assert 200 == ask(process.port, "GET", "/").status
    assert "Traceback" not in "".join(process.lines)


STOP: Final = "os.kill(os.getpid(), signal.SIGSTOP)"

BEFORE_ITS_WORKERS: Final = f"""
import subprocess
begin = subprocess.Popen.__init__
def stop_and_begin(*arguments, **named):
    subprocess.Popen.__init__ = begin
    {STOP}
    begin(*arguments, **named)
subprocess.Popen.__init__ = stop_and_begin
"""
"""
It has read its settings when it stops.
"""


def new_code(first: str, later: str) -> str:
    """
    Code that is another kvd's until it has found the one that is installed.

    Args:
        first: What it does before.
        later: What it does then.
    """
    return (
        f"import os, signal, sys\n{first}\n"
        "sys.path.remove(os.getcwd()) if os.getcwd() in sys.path else"
        f" sys.path.remove(''); del sys.modules['kvd']; import kvd\n{later}"
    )


def starting(
    daemon: Upgradable, answers: list[str], stops: str = STOP, later: str = ""
) -> tuple[threading.Thread, int]:
    """
    Begin an upgrade to code that takes a while to start.

    Args:
        daemon: What is upgraded.
        answers: Gets what comes of it.
        stops: Has the new process stop, at once or later.
        later: Has it do so when it has found kvd.

    Returns:
        Who waits for it, and the new process, which is stopped.
    """
    old = daemon.pid()
    daemon.replace_code(new_code(stops, later))

    def upgrade() -> None:
        try:
            with daemon.asking() as asked:
                asked.upgrade()
            answers.append("done")
        except (ChangeImpossible, ControlUnusable) as error:
            answers.append(error.sentence)

    waiting = threading.Thread(target=upgrade)
    waiting.start()
    stopped: list[int] = []

    def is_stopped() -> bool:
        for child in children(old):
            if state_of(child) == "T":
                stopped.append(child)
        return bool(stopped)

    until(is_stopped)
    return waiting, stopped[0]


def test_only_one_upgrade_at_a_time(steady: tuple[Upgradable, int]) -> None:
    """
    A second one is refused, as is any other change. When the new daemon is killed, the
    old one goes on.
    """
    daemon, port = steady
    answers: list[str] = []
    waiting, new = starting(daemon, answers)
    try:
        assert "another change is under way: upgrade" in daemon.refusal()
        assert 200 == ask(port, "GET", "/").status
    finally:
        os.kill(new, signal.SIGKILL)
        waiting.join(PATIENCE_SECONDS)
        (daemon.folder / "kvd.py").unlink()

    assert "the new kvd does not start, and this one goes on" in answers[0]
    assert 200 == ask(port, "GET", "/").status


@pytest.mark.parametrize(
    ("number", "serves"), [(signal.SIGTERM, False), (signal.SIGKILL, True)]
)
def test_the_old_daemon_ends_meanwhile(
    tmp_path: Path, number: int, serves: bool
) -> None:
    """
    If it was asked to end, the new one ends too. If it was killed, the new one takes
    its place: connections that waited in the queue are served.
    """
    daemon = Upgradable(tmp_path)
    with daemon.serve() as process:
        with daemon.asking() as asked:
            workers = [row["pid"] for row in asked.status()["workers"]]
        answers: list[str] = []
        waiting, new = starting(daemon, answers)
        os.kill(process.process.pid, number)
        waiting.join(PATIENCE_SECONDS)
        assert ["done"] != answers
        if not serves:
            process.process.wait()
            until(lambda: has_ended(new))
            return
        (tmp_path / "kvd.py").unlink()
        # Until they notice, they take connections, which end with them.
        until(lambda: all(has_ended(worker) for worker in workers))
        try:
            with socket.create_connection(("127.0.0.1", process.port)) as queued:
                queued.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                os.kill(new, signal.SIGCONT)
                queued.settimeout(PATIENCE_SECONDS)
                assert queued.recv(4096).startswith(b"HTTP/1.1 200 ")
            until(lambda: Path(daemon.control).exists())
            assert new == daemon.pid()
        finally:
            os.kill(new, signal.SIGTERM)
            until(lambda: has_ended(new))


def test_signals_to_the_old_daemon_meanwhile_reach_the_new_one(tmp_path: Path) -> None:
    """
    The new one has read the settings already, and its log is in the file that was
    renamed. What a rights file withdraws must not be allowed again when it serves.
    """
    daemon = Upgradable(tmp_path)
    with daemon.serve() as process:
        process.read_on()
        answers: list[str] = []
        waiting, new = starting(daemon, answers, BEFORE_ITS_WORKERS)
        try:
            text = daemon.config.read_text()
            daemon.config.write_text(f'{text}policy = "leastbusy"\n')
            os.kill(process.process.pid, signal.SIGHUP)
            os.kill(process.process.pid, signal.SIGUSR1)
            until(lambda: 1 == reopened(process))
        finally:
            (tmp_path / "kvd.py").unlink()
            os.kill(new, signal.SIGCONT)
        waiting.join(PATIENCE_SECONDS)
        assert ["done"] == answers
        with daemon.asking() as asked:
            until(lambda: "leastbusy" == asked.status()["policy"])
            assert new == asked.status()["pid"]
        until(lambda: 2 == reopened(process))


AS_IT_SERVES: Final = f"""
def stop_and_restore(self):
    Predecessor.restore_stderr = restore
    {STOP}
    restore(self)
from kvd.daemon.upgrade.predecessor import Predecessor
restore, Predecessor.restore_stderr = Predecessor.restore_stderr, stop_and_restore
"""
"""
It stops when its workers accept, before it says so.
"""


def test_upgraded_daemons_end_without_an_error_in_the_log(tmp_path: Path) -> None:
    """
    The first one, which stands in, and the next, which exits; with all that they have.
    """
    daemon = Upgradable(tmp_path, f"--status=unix:{tmp_path}/status")
    log = tmp_path / "log"
    command = [sys.executable, "-m", "kvd.cli.main", "serve", *daemon.options]
    with (
        log.open("wb") as output,
        subprocess.Popen(command, cwd=tmp_path, stdout=output, stderr=output) as first,
    ):
        try:
            until(lambda: "kvd serves" in log.read_text())
            with daemon.asking() as asked:
                asked.upgrade()
            until(lambda: b"stand_in" in command_of(first.pid))
            second = daemon.pid()
            with daemon.asking() as asked:
                asked.upgrade()
            until(lambda: has_ended(second))
        finally:
            first.terminate()
    text = log.read_text()

    assert 2 == text.count("serves in the place of this one")
    assert [] == re.findall(r".*#(?:warn|error|critical)\].*", text)


def test_what_the_old_daemon_does_to_the_last_is_undone(tmp_path: Path) -> None:
    """
    It has its workers share one socket of all, by a program that it attaches when the
    new daemon has attached its own. Then the new one's workers get connections all the
    same.
    """
    daemon = Upgradable(tmp_path, "--policy=reuseport")
    with daemon.serve() as process:
        answers: list[str] = []
        waiting, new = starting(daemon, answers, "", AS_IT_SERVES)
        try:
            with daemon.asking() as asked:
                asked.change("policy", {"policy": "shared"})
        finally:
            (tmp_path / "kvd.py").unlink()
            os.kill(new, signal.SIGCONT)
        waiting.join(PATIENCE_SECONDS)
        assert ["done"] == answers
        with daemon.asking() as asked:
            assert "reuseport" == asked.status()["policy"]
            for _ in range(50):
                assert 404 == ask(process.port, "GET", "/k").status
            assert all(row["accepted"] for row in asked.status()["workers"])


IN_WHICH_ORDER: Final = """
from kvd.admin.answering import Answering
from kvd.daemon.upgrade.predecessor import Predecessor

def note(what):
    with open("order", "a") as file:
        print(what, file=file)

async def await_and_note(self, *arguments):
    found = await accepts_no_more(self, *arguments)
    note("the old one accepts no more")
    return found

def pause_and_note(self):
    pause(self)
    note("the operator waits")

def note_and_resume(self):
    note("the operator is answered")
    resume(self)

accepts_no_more = Predecessor.accepts_no_more
pause, resume = Answering.pause, Answering.resume
Predecessor.accepts_no_more = await_and_note
Answering.pause, Answering.resume = pause_and_note, note_and_resume
"""
"""
It tells in a file what came first.
"""


def test_only_one_of_both_daemons_answers_the_operator(tmp_path: Path) -> None:
    """
    Else the new one could be upgraded in its turn, and end, before the old one has left
    its place: to the new one, which is then gone.
    """
    daemon = Upgradable(tmp_path)
    with daemon.serve(), daemon.asking() as asked:
        daemon.replace_code(new_code("", IN_WHICH_ORDER))
        asked.upgrade()
        assert asked.status()["workers"]
    order = (tmp_path / "order").read_text().splitlines()
    assert [
        "the operator waits",
        "the old one accepts no more",
        "the operator is answered",
    ] == order


def test_a_daemon_that_ends_attaches_nothing(tmp_path: Path) -> None:
    """
    It is asked to end when the new one accepts already, and gives up the upgrade. Its
    own sockets are closed, which is nothing to warn of.
    """
    # However long the end takes.
    daemon = Upgradable(tmp_path, "--body-timeout=1h", "--drain-timeout=1h")
    with daemon.serve() as process:
        process.read_on()
        head = b"PUT /half HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\n"
        with socket.create_connection(("127.0.0.1", process.port)) as uploading:
            uploading.sendall(head + b"half")
            with daemon.asking() as asked:
                until(lambda: any(row["in_progress"] for row in rows_of(asked)))
            answers: list[str] = []
            waiting, new = starting(daemon, answers, "", AS_IT_SERVES)
            os.kill(process.process.pid, signal.SIGTERM)
            waiting.join(PATIENCE_SECONDS)
            assert ["kvd is ending"] == answers
            os.kill(new, signal.SIGCONT)
            until(lambda: has_ended(new))
            uploading.sendall(b"half")
            assert uploading.recv(4096).startswith(b"HTTP/1.1 201 ")
        process.process.wait()
    assert [] == [line for line in process.lines if "#warn" in line]
    told = [
        line for line in process.lines if "upgrade: not done: kvd is ending" in line
    ]
    assert 1 == len(told)


AS_IT_IS_READ: Final = """
from kvd.daemon.upgrade.successor import Successor

async def wait_and_signal(self, word, check):
    await until(self, word, check)
    if word == "serves":
        os.kill(os.getpid(), signal.SIGTERM)

until, Successor.until = Successor.until, wait_and_signal
"""
"""
The old daemon reads that the new one serves, and is asked to end before it has heeded
that.
"""

AS_IT_LEAVES: Final = """
from kvd.daemon.upgrade.successor import Successor

def confirm_and_signal(self):
    confirm(self)
    os.kill(os.getpid(), signal.SIGTERM)

confirm, Successor.confirm = Successor.confirm, confirm_and_signal
"""
"""
The old daemon says that it accepts no more, and is asked to end.
"""


@pytest.mark.parametrize("when", [AS_IT_IS_READ, AS_IT_LEAVES])
def test_asked_to_end_at_the_last_moment_both_do(tmp_path: Path, when: str) -> None:
    """
    Else the new one would go on, and whoever has stopped kvd could not know.
    """
    daemon = Upgradable(tmp_path)
    prelude = f"import os, signal\n{when}"
    with daemon.serve("kvd.pid", prelude=prelude) as process:
        process.read_on()
        old = process.process.pid
        answers: list[str] = []
        waiting, new = starting(daemon, answers)
        try:
            (tmp_path / "kvd.py").unlink()
            os.kill(new, signal.SIGCONT)
            until(lambda: has_ended(old) and has_ended(new))
        finally:
            for pid in (old, new):
                if not has_ended(pid):
                    os.kill(pid, signal.SIGKILL)
        waiting.join(PATIENCE_SECONDS)
        assert -signal.SIGTERM == process.process.wait()
    assert not Path(daemon.control).exists()
    assert not (tmp_path / "kvd.pid").exists()
    assert "Failed to unlink PID file" not in "".join(process.lines)


def rows_of(asked: ControlSocket) -> list[dict[str, Any]]:
    """
    What the status says of each worker.
    """
    rows: list[dict[str, Any]] = asked.status()["workers"]
    return rows


def reopened(daemon: Twistd) -> int:
    """
    How often a log was opened again.
    """
    return sum("SIGUSR1: the logs go on" in line for line in daemon.lines)


def test_replaced_files_are_not_loaded_beside_the_old_code(tmp_path: Path) -> None:
    """
    The files of kvd are replaced while it serves. A worker that dies is replaced by one
    of the old code, and so are all on request; what would load new files is refused.
    An upgrade runs what is there then.
    """
    package = tmp_path / "kvd"
    shutil.copytree(Path(kvd.__file__).parent, package)
    daemon = Upgradable(tmp_path)
    with daemon.serve(prelude=EXEC) as process, daemon.asking() as asked:
        old = [row["pid"] for row in asked.status()["workers"]]
        for path in package.rglob("*.py"):
            path.write_text("raise SystemExit('this is new')")
        os.kill(old[0], signal.SIGKILL)
        until(lambda: old[0] not in (pids := ready(asked)) and bool(pids))
        asked.change("restart", {})
        assert 2 == len(ready(asked) - {*old})
        assert 201 == ask(process.port, "PUT", "/k", b"value").status
        with pytest.raises(ChangeImpossible, match="files of kvd have been replaced"):
            asked.change("policy", {"policy": "leastbusy"})
        assert "this is new" in daemon.refusal()
        # What is installed is found then.
        shutil.rmtree(package)
        asked.upgrade()
        assert b"value" == ask(process.port, "GET", "/k").body


def ready(asked: ControlSocket) -> set[int]:
    """
    The processes of the workers; empty if one is not ready.
    """
    rows = asked.status()["workers"]
    pids = {row["pid"] for row in rows if row["state"] == "ready"}
    return pids if len(pids) == len(rows) else set()


def test_room_is_made_while_the_old_daemon_finishes_its_requests(
    tmp_path: Path,
) -> None:
    """
    However long that takes: in a store that is full, and evicts.
    """
    limits = ["--max-size=64KiB", "--full=evict"]
    waits = ["--body-timeout=1h", "--drain-timeout=1h"]
    daemon = Upgradable(tmp_path, *limits, *waits)
    with daemon.serve() as process, daemon.asking() as asked:
        for number in range(20):
            assert 201 == ask(process.port, "PUT", f"/{number}", bytes(8000)).status
        with socket.create_connection(("127.0.0.1", process.port)) as uploading:
            head = b"PUT /half HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\n"
            uploading.sendall(head + b"half")
            until(lambda: any(row["in_progress"] for row in asked.status()["workers"]))
            asked.upgrade()
            until(lambda: bool(asked.status()["usage"][0]["counted"]))
            for number in range(20, 40):
                assert 201 == ask(process.port, "PUT", f"/{number}", bytes(8000)).status
            uploading.sendall(b"half")
            assert uploading.recv(4096).startswith(b"HTTP/1.1 201 ")
        (usage,) = asked.status()["usage"]
        assert usage["taken"] <= 65536
