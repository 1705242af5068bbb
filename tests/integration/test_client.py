"""
The ``kvd`` command against the true daemon, against nobody, and against others.
"""

from __future__ import annotations

import datetime
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from tests.integration.commands import as_shell_command, command_server, start_kvd
from tests.integration.forked import ForkedProcess
from tests.integration.http import ask
from tests.integration.small_disk import tmpfs
from tests.integration.twistd import Twistd
from tests.patience import PATIENCE_SECONDS
from tests.ports import unused_port

pytestmark = pytest.mark.integration

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twistd]:
    """
    One for all tests here that do not end it.
    """
    folder = tmp_path_factory.mktemp("daemon")
    with Twistd(serving(folder), folder) as twistd:
        yield twistd


def serving(folder: Path) -> list[str]:
    """
    What it serves.
    """
    return [
        *["--store", f"file:{folder}/values", "--durability", "process"],
        *["--policy", "roundrobin", "--procs", "2", "--control", "off"],
    ]


class Shell:
    """
    A shell in a folder.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port

    @property
    def environment(self) -> Mapping[str, str]:
        """
        With the daemon's URL.
        """
        return os.environ | {"KVD_URL": f"http://127.0.0.1:{self.port}"}

    def redirected(self, line: str) -> tuple[int, str]:
        """
        Run a line of sh, in which ``kvd`` is the command.

        Returns:
            Its status, and all that was said.
        """
        programs = self.folder.with_name(self.folder.name + "-programs")
        programs.mkdir(exist_ok=True)
        more = as_shell_command(programs)
        path = f"{programs}:{os.environ['PATH']}"
        done = subprocess.run(
            ["sh", "-c", line],
            cwd=self.folder,
            env={**self.environment, **more, "PATH": path},
            pass_fds=[command_server().fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE_SECONDS,
        )
        return done.returncode, done.stdout.decode("utf-8", "replace")

    def start(
        self, *arguments: str | bytes, output: int | None = None
    ) -> ForkedProcess[bytes]:
        """
        Begin a command.
        """
        return start_kvd(arguments, self.folder, self.environment, output)

    def run(
        self, *arguments: str | bytes, given: bytes = b""
    ) -> tuple[int, bytes, list[str]]:
        """
        Run a command.

        Returns:
            Its status, its output, and the lines of its complaints.
        """
        process = self.start(*arguments)
        out, err = process.communicate(given, timeout=PATIENCE_SECONDS)
        return process.wait(), out, err.decode("utf-8", "replace").splitlines()

    def succeed(self, *arguments: str | bytes, given: bytes = b"") -> bytes:
        """
        Run a command that has nothing to complain of.
        """
        status, out, complaints = self.run(*arguments, given=given)
        assert (0, []) == (status, complaints)
        return out

    def fail(self, *arguments: str | bytes) -> tuple[int, str]:
        """
        Run a command that fails.

        Returns:
            Its status and its only line of complaint.
        """
        status, _, complaints = self.run(*arguments)
        (complaint,) = complaints
        assert complaint.startswith("kvd: ")
        return status, complaint


@pytest.fixture
def shell(daemon: Twistd, tmp_path: Path) -> Shell:
    """
    Beside the daemon, in an empty folder.
    """
    return Shell(tmp_path, daemon.port)


# -- what it is for -----------------------------------------------------------


def test_files_go_and_come(shell: Shell) -> None:
    """
    Several at once, by their names.
    """
    files = {"one": b"1" * 10, "two with blanks": os.urandom(3 * MIB), "none": b""}
    for name, content in files.items():
        (shell.folder / name).write_bytes(content)
    shell.succeed("put", "go/", *files)

    (shell.folder / "back").mkdir()
    shell.succeed("get", *[f"go/{name}" for name in files], "back/")
    came = {path.name: path.read_bytes() for path in (shell.folder / "back").iterdir()}
    assert files == came

    shell.succeed("get", "go/one", "uno")
    assert b"1" * 10 == (shell.folder / "uno").read_bytes()
    assert 0o666 & ~umask() == (shell.folder / "uno").stat().st_mode & 0o777


def test_a_file_that_is_replaced_keeps_its_permissions(shell: Shell) -> None:
    """
    A secret does not become public with its next version.
    """
    shell.succeed("put", "secret", "-", given=b"new")
    path = shell.folder / "secret"
    path.write_bytes(b"old")
    path.chmod(0o600)
    shell.succeed("get", "secret")

    assert b"new" == path.read_bytes()
    assert 0o600 == path.stat().st_mode & 0o777


def umask() -> int:
    """
    Of this process.
    """
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_streams_go_and_come(shell: Shell) -> None:
    """
    Of unknown length, too.
    """
    value = os.urandom(2 * MIB)
    shell.succeed("put", "stream", "-", given=value)

    assert value == shell.succeed("get", "stream", "-")


def test_a_file_without_a_size_is_read_to_its_end(shell: Shell) -> None:
    """
    As those are that the kernel makes up. One that is empty stays so.
    """
    (shell.folder / "empty").touch()
    shell.succeed("put", "made-up", "/proc/version")
    shell.succeed("put", "empty", "empty")

    assert Path("/proc/version").read_bytes() == shell.succeed("get", "made-up", "-")
    assert b"" == shell.succeed("get", "empty", "-")


def test_memory_does_not_grow_with_the_value(shell: Shell) -> None:
    """
    On either way.
    """
    piece = os.urandom(MIB)
    putting = shell.start("put", "huge", "-")
    assert putting.stdin is not None
    for _ in range(HUGE_MIB):
        putting.stdin.write(piece)
    putting.stdin.flush()
    # All but what is left in the pipe has been read, and the end has not.
    assert peak_mib(putting.pid) < ENOUGH_MIB
    _, err = putting.communicate(timeout=PATIENCE_SECONDS)
    assert (0, b"") == (putting.returncode, err)

    getting = shell.start("get", "huge", "-")
    assert getting.stdout is not None
    for _ in range(HUGE_MIB - 1):
        assert piece == getting.stdout.read(MIB)
    # It cannot have ended: the pipe has less room than what is left.
    assert peak_mib(getting.pid) < ENOUGH_MIB
    assert piece == getting.stdout.read()
    _, err = getting.communicate(timeout=PATIENCE_SECONDS)
    assert (0, b"") == (getting.returncode, err)
    shell.succeed("rm", "huge")


HUGE_MIB = 200
ENOUGH_MIB = 120
"""
Half of it is Python, Twisted and treq.
"""


def peak_mib(pid: int) -> float:
    """
    The most memory that a living process has had at once.
    """
    with open(f"/proc/{pid}/status") as status:
        (line,) = (line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def test_any_name_is_a_key(shell: Shell) -> None:
    """
    Blanks, percent signs, bytes that are no text: nothing is decoded twice.
    """
    keys = b"odd/a b", b"odd/100%41", b"odd/\xff\xfe", "odd/\u00fc?#&".encode()
    for key in keys:
        shell.succeed("put", key, "-", given=key)
        assert key == shell.succeed("get", key, "-")
    assert sorted(keys) == sorted(shell.succeed("ls", "odd").splitlines())
    shell.succeed("rm", *keys)
    assert b"" == shell.succeed("ls", "odd")


def test_what_is_known_is_reported(shell: Shell) -> None:
    """
    To people and to programs.
    """
    shell.succeed("put", "known/a", "-", "--content-type", "text/plain", given=b"abc")
    facts = json.loads(shell.succeed("stat", "--json", "known/a"))
    assert ("known/a", 3, "text/plain") == (
        facts["key"],
        facts["size"],
        facts["content_type"],
    )
    assert facts["etag"].encode() in shell.succeed("stat", "known/a")

    listed = json.loads(shell.succeed("ls", "--json", "known"))
    assert (facts["key"], facts["etag"]) == (listed["key"], listed["etag"])
    assert listed["changed"].encode() in shell.succeed("ls", "--long", "known/")


def test_conditions_have_their_own_status(shell: Shell) -> None:
    """
    So that a script knows which was first.
    """
    (shell.folder / "file").write_bytes(b"x")
    shell.succeed("put", "--create", "first", "file")
    etag = json.loads(shell.succeed("stat", "--json", "first"))["etag"]

    assert 4 == shell.fail("put", "--create", "first", "file")[0]
    assert 4 == shell.fail("put", "--if-match", "other", "first", "file")[0]
    assert 4 == shell.fail("rm", "--if-match", "other", "first")[0]
    shell.succeed("put", "--if-match", etag, "first", "file")


def test_files_of_one_name_are_refused_before_any_is_stored(shell: Shell) -> None:
    """
    One of them would be lost. A slash before the key makes no other key of it.
    """
    for folder in "a", "b":
        (shell.folder / folder).mkdir()
        (shell.folder / folder / "one").write_text(folder)
    (shell.folder / "two").write_text("two")
    for files in (["two", "a/one", "b/one"], ["two", "a/one", "./a/one"]):
        status, out, complaints = shell.run("put", "same/", *files)
        assert (2, b"") == (status, out)
        [complaint] = complaints
        assert f"{files[1]!r} and {files[2]!r} would both be stored" in complaint
        assert "under 'same/one'" in complaint
    assert b"" == shell.succeed("ls", "same/")


@pytest.mark.parametrize(
    "keys", [["p/n", "q/n"], ["p/n", "/p/n"], ["p/n", "p/link"]], ids=" ".join
)
def test_keys_for_one_file_are_refused_before_any_is_fetched(
    shell: Shell, keys: list[str]
) -> None:
    """
    Whether they have the same name, or a link leads from one to the other.
    """
    shell.succeed("put", "here/k", "-", given=b"k")
    for key in {*keys, "p/n"}:
        shell.succeed("put", f"here/{key.lstrip('/')}", "-", given=key.encode())
    folder = shell.folder / "folder"
    folder.mkdir()
    (folder / "link").symlink_to("n")
    status, out, complaints = shell.run(
        "get", "here/k", *(f"here/{key}".replace("here//", "/here/") for key in keys),
        "folder",
    )  # fmt: skip

    assert (2, b"") == (status, out)
    [complaint] = complaints
    assert "would both be written to" in complaint
    assert ["link"] == [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("source", ["-", "file"])
def test_a_refusal_is_about_the_key(shell: Shell, source: str) -> None:
    """
    Wherever its value would have come from.
    """
    (shell.folder / "file").write_text("two")
    shell.succeed("put", "started", "-", given=b"one")
    status, out, complaints = shell.run(
        "put", "--create", "started", source, given=b"two"
    )

    assert (4, b"") == (status, out)
    [complaint] = complaints
    assert complaint.startswith("kvd: started: ")
    assert b"one" == shell.succeed("get", "started", "-")


def test_the_others_are_done_when_one_fails(shell: Shell) -> None:
    """
    Each failure has a line, the first decides the status.
    """
    (shell.folder / "good").write_bytes(b"x")
    status, _, complaints = shell.run("put", "some/", "missing", "good", "absent")
    assert 1 == status
    assert ["kvd: missing: ", "kvd: absent: "] == [
        line[: line.index(": ", 5) + 2] for line in complaints
    ]
    assert [b"some/good"] == shell.succeed("ls", "some").splitlines()


@pytest.mark.parametrize("source", ["file", "-"])
def test_a_refusal_does_not_wait_for_the_value(shell: Shell, source: str) -> None:
    """
    Nor has the part that was not sent anything to complain of.
    """
    shell.succeed("put", "taken", "-", given=b"before")
    (shell.folder / "file").touch()
    os.truncate(shell.folder / "file", 200 * MIB)
    given = b"x" * 50 * MIB if source == "-" else b""
    status, _, complaints = shell.run("put", "--create", "taken", source, given=given)

    assert (4, 1) == (status, len(complaints))
    assert b"before" == shell.succeed("get", "taken", "-")


def test_ipv6_is_spoken(tmp_path: Path) -> None:
    """
    To an address in brackets.
    """
    options = [*serving(tmp_path), "--listen=tcp:0:interface=[::1]"]
    with Twistd(options, tmp_path) as daemon:
        there = ["--url", f"http://[::1]:{daemon.port}"]
        shell = Shell(tmp_path, daemon.port)
        shell.succeed(*there, "put", "key", "-", given=b"value")
        assert b"value" == shell.succeed(*there, "get", "key", "-")


# -- what is written wrongly --------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["put", "key"], 2, "FILE"),
        (["put", "key", "a", "b"], 2, "key/"),
        (["put", "prefix/", "-"], 2, "no name"),
        (["put", "/", "file"], 1, "No such file"),
        (["put", "", "file"], 2, "at least one"),
        (["get", "a", "b", "no-folder"], 2, "no-folder"),
        (["get", "ends/"], 2, "name; -r fetches all below a prefix"),
        (["get", "", "file"], 2, "'' is not a key"),
        (["stat", "/"], 2, "'/' is not a key, which ends in a name; kvd ls -l"),
        (["rm", "a", "ends/"], 2, "name; -r removes all below a prefix"),
        (["stat", "a//b"], 1, "Bad Request"),
        (["put", "key", "-", "--if-match", b"\xff"], 2, "'\\udcff' holds more than"),
        (["put", "key", "-", "--content-type", "a\nb:c"], 2, "'a\\nb:c' holds more"),
        (["rm", "key", "--if-match", "\x01"], 2, "'\\x01' holds more than printable"),
        ([], 2, "kvd: Missing command. Try: kvd --help"),
        (["bench"], 2, "kvd: Missing command. Try: kvd bench --help"),
        (["nonsense"], 2, "no command 'nonsense'; known: serve, put, get, rm"),
        (["statu"], 2, "Did you mean 'status'? Try: kvd --help"),
        (["procs", "many"], 2, "'many' is not a number of workers: give a whole numb"),
        (["procs", "0"], 2, "from 1 to 4096. Try: kvd procs --help"),
        (["drain", "x"], 2, "'x' is not the number of a worker: give a whole"),
        (["top", "-n", "x"], 2, "'x' is not a number of updates"),
        (["top", "--interval", "x"], 2, "the longest is 1h"),
        (["ls", "--url", "http://kvd"], 2, "the command: kvd --url URL ls"),
        (["--url", "localhost:8080", "ls"], 2, "http://127.0.0.1:8080"),
        (["--url", "http://a b:80", "ls"], 2, "http://127.0.0.1:8080"),
        (["put", "key", "missing"], 1, "No such file"),
        (["put", "missing", "key/"], 1, "give the key first, and then the"),
        (["put", "key", "."], 1, ".: it is a folder: -r sends what is in it."),
        (["ls", "nothing*"], 3, "no key matches 'nothing*'."),
        (["rm", "nothing*"], 3, "It is a pattern only with -r."),
        (["ls", "127.0.0.1:8080/a"], 2, "'127.0.0.1:8080/a' is almost a URL"),
        (["put", "-r", ".", "htp://kvd/a/"], 2, "'htp://kvd/a/' is almost a URL"),
        (["put", "a//b", "-"], 1, "empty segments"),
        (["get", "nothing/here"], 3, "nothing/here"),
    ],
)
def test_mistakes_are_answered_in_a_line(
    shell: Shell, arguments: list[str | bytes], status: int, words: str
) -> None:
    """
    With what was given, and what would be right.
    """
    got, complaint = shell.fail(*arguments)

    assert status == got
    assert words in complaint
    assert [] == list(shell.folder.iterdir())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("kvd ls >/dev/full", "standard output cannot be written: No space left"),
        ("kvd ls --json >/dev/full", "standard output cannot be written: No space"),
        ("kvd stat there >/dev/full", "standard output cannot be written: No space"),
        ("kvd get there - >/dev/full", "standard output cannot be written: No space"),
        ("kvd --help >/dev/full", "No space left"),
        ("kvd ls >&-", "standard output is closed"),
        ("kvd stat there >&-", "standard output is closed"),
        ("kvd get there - >&-", "standard output is closed"),
        ("kvd put new - <&-", "standard input: it is closed"),
        ("kvd put new - 0>file", "cannot be read: Bad file descriptor"),
        ("kvd put new /proc/self/mem", "cannot be read: Input/output error"),
    ],
)
def test_streams_that_cannot_be_used_are_reported_in_a_line(
    shell: Shell, line: str, words: str
) -> None:
    """
    Which one, and why.
    """
    assert ask(shell.port, "PUT", "/there", b"value").status in (201, 204)
    status, said = shell.redirected(line)

    assert 1 == status
    assert said.startswith("kvd: ")
    assert 1 == len(said.splitlines())
    assert words in said
    assert 404 == ask(shell.port, "HEAD", "/new").status


def test_what_has_no_use_for_a_stream_can_do_without(shell: Shell) -> None:
    """
    And a failure still has its status.
    """
    (shell.folder / "file").write_bytes(b"value")
    everything_closed = "<&- >&- 2>&-"

    assert (0, "") == shell.redirected(f"kvd put closed file {everything_closed}")
    assert (0, "") == shell.redirected(f"kvd get closed back {everything_closed}")
    assert b"value" == (shell.folder / "back").read_bytes()
    assert (3, "") == shell.redirected("kvd get nothing-here back 2>&-")
    assert (3, "") == shell.redirected("kvd get nothing-here back 2>/dev/full")


def test_what_nobody_reads_ends_quietly(shell: Shell) -> None:
    """
    Also if it is short.
    """
    shell.succeed("put", "short", "-", given=b"value")
    for arguments in (["ls"], ["stat", "short"], ["get", "short", "-"]):
        reading, writing = os.pipe()
        os.close(reading)
        process = shell.start(*arguments, output=writing)
        os.close(writing)
        _, err = process.communicate(timeout=PATIENCE_SECONDS)
        assert (128 + signal.SIGPIPE, b"") == (process.returncode, err)


def test_a_folder_that_is_gone_is_reported(shell: Shell) -> None:
    """
    In which one still stands.
    """
    shell.succeed("put", "there", "-", given=b"value")
    status, said = shell.redirected("mkdir gone; cd gone; rmdir ../gone; kvd get there")

    assert 1 == status
    assert "kvd: there: ./there cannot be written: No such file or directory.\n" == said


# -- others, and nobody -------------------------------------------------------


@contextmanager
def somebody(*replies: bytes) -> Iterator[int]:
    """
    A server that says one thing after the other, and the last to everybody else.
    """
    to_say = [*replies[::-1]]
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(to_say[-1])
                if len(to_say) > 1:
                    to_say.pop()

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_nobody_there_is_reported(tmp_path: Path) -> None:
    """
    At once, and once.
    """
    shell = Shell(tmp_path, unused_port())
    for name in "a", "b":
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "back").mkdir()
    for arguments in (["ls"], ["get", "a", "b", "back"], ["put", "p/", "a", "b"]):
        status, complaint = shell.fail(*arguments)
        assert 5 == status
        assert complaint.endswith(
            f"127.0.0.1:{shell.port} cannot be reached: Connection refused."
        )
    assert [] == os.listdir(tmp_path / "back")


def test_silence_is_reported(tmp_path: Path) -> None:
    """
    By a server that accepts and never answers, once for all that is asked.
    """
    for name in "a", "b":
        (tmp_path / name).write_bytes(b"value")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        shell = Shell(tmp_path, silent.getsockname()[1])
        for arguments in (
            *(["ls"], ["ls", "-U"], ["get", "a", "c"], ["stat", "a", "b"]),
            # Each that is underway is reported, since nobody knows how it ended.
            *(["rm", "--jobs=1", "a", "b"], ["put", "--jobs=1", "p/", "a", "b"]),
        ):
            status, complaint = shell.fail("--timeout=200ms", *arguments)
            assert 5 == status
            assert "has not answered: no byte moved for 0.2 seconds" in complaint
            changes = arguments[0] in {"put", "rm"}
            assert changes == complaint.endswith("is unknown.")
    assert ["a", "b"] == sorted(os.listdir(tmp_path))


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 404 No\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi",
        b"220 mail.example.org ESMTP\r\n",
        b"\0\xff\0\xff" * 10,
    ],
)
def test_another_server_is_not_taken_for_kvd(tmp_path: Path, reply: bytes) -> None:
    """
    Whatever it says, nothing is stored here.
    """
    with somebody(reply) as port:
        shell = Shell(tmp_path, port)
        for arguments in (["ls"], ["get", "a"], ["stat", "a"], ["rm", "a"]):
            status, complaint = shell.fail(*arguments)
            assert 5 == status
            assert f"127.0.0.1:{port}" in complaint
    assert [] == os.listdir(tmp_path)


def test_tls_that_is_not_trusted_is_reported_in_a_line(tmp_path: Path) -> None:
    """
    Nor is what does not speak it.
    """
    with somebody(b"HTTP/1.1 200 OK\r\n\r\n") as port:
        plain = Shell(tmp_path, port).fail("--url", f"https://127.0.0.1:{port}", "ls")
    with nobody_known() as port:
        other = Shell(tmp_path, port).fail("--url", f"https://127.0.0.1:{port}", "ls")

    assert (5, 5) == (plain[0], other[0])
    assert "does not speak TLS" in plain[1]
    assert "shows a certificate that is not trusted here" in other[1]


@contextmanager
def nobody_known() -> Iterator[int]:
    """
    A server that speaks TLS, with a certificate of its own making, for nobody.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nobody")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(1)
    certificate = x509.CertificateBuilder(
        name, name, key.public_key(), 1, now - day, now + day
    ).sign(key, hashes.SHA256())
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate(certificate)
    context.use_privatekey(key)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            tls = SSL.Connection(context, connection)
            tls.set_accept_state()
            with connection, pytest.raises(SSL.Error, match="unknown ca"):
                tls.do_handshake()

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


@contextmanager
def busy_at_first(bodies: list[bytes]) -> Iterator[int]:
    """
    A server that sends the first request away before it has read it, waits for
    the end of that connection, and takes the second.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            first, _ = server.accept()
            with first:
                first.recv(1000)
                first.sendall(BUSY)
                try:
                    while first.recv(MIB):
                        pass
                except ConnectionResetError:
                    # The client has no need to send the rest.
                    pass
            second, _ = server.accept()
            with second, second.makefile("rb") as request:
                while (line := request.readline()) != b"\r\n":
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                bodies.append(request.read(length))
                second.sendall(CREATED)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n"
    b'Content-Length: 19\r\nRetry-After: 0\r\n\r\n{"detail":"ending"}'
)
CREATED = b'HTTP/1.1 201 Created\r\nETag: "e"\r\nContent-Length: 0\r\n\r\n'


def test_a_file_that_was_sent_away_is_sent_again_from_its_beginning(
    tmp_path: Path,
) -> None:
    """
    Also if it was still being read.
    """
    value = os.urandom(12 * MIB)
    (tmp_path / "file").write_bytes(value)
    bodies: list[bytes] = []
    with busy_at_first(bodies) as port:
        Shell(tmp_path, port).succeed("put", "key", "file")

    assert [True] == [value == body for body in bodies]


# -- what ends midway ---------------------------------------------------------


def test_a_daemon_that_dies_midway_leaves_no_half_file(tmp_path: Path) -> None:
    """
    And a put that nobody confirmed is not called done.
    """
    folder = tmp_path / "daemon"
    folder.mkdir()
    here = tmp_path / "here"
    here.mkdir()
    with Twistd(serving(folder), folder) as daemon:
        shell = Shell(here, daemon.port)
        shell.succeed("put", "large", "-", given=b"x" * 30 * MIB)
        # The reader of its output takes nothing, so it cannot have ended.
        getting = shell.start("get", "large", "-")
        to_file = shell.start("put", "other", "-")
        assert to_file.stdin is not None
        assert getting.stdout is not None
        to_file.stdin.write(b"x" * 100_000)
        to_file.stdin.flush()
        getting.stdout.read(1000)
        daemon.process.kill()
        daemon.process.wait()
        for process in (getting, to_file):
            _, err = process.communicate(timeout=PATIENCE_SECONDS)
            assert 5 == process.returncode
            assert 1 == len(err.splitlines())
    assert [] == os.listdir(here)


def test_an_interrupted_get_leaves_no_half_file(shell: Shell) -> None:
    """
    The status says what ended it, as shells expect.
    """
    shell.succeed("put", "long", "-", given=os.urandom(20 * MIB))
    for number in (signal.SIGINT, signal.SIGTERM):
        with slow_copy_of(shell.port) as port:
            slow = Shell(shell.folder, port)
            process = slow.start("get", "long")
            while not any(file.stat().st_size for file in shell.folder.iterdir()):
                time.sleep(0.01)
            process.send_signal(number)
            _, err = process.communicate(timeout=PATIENCE_SECONDS)
        assert 128 + number == process.returncode
        assert b"" == err
        assert [] == list(shell.folder.iterdir())


def test_a_command_that_waits_for_a_reader_is_ended_by_a_second_signal(
    shell: Shell,
) -> None:
    """
    The first is not enough where the reader takes nothing.
    """
    shell.succeed("put", "stuck", "-", given=b"x" * 5 * MIB)
    process = shell.start("get", "stuck", "-")
    assert process.stdout is not None
    process.stdout.read(1)
    try:
        for _ in range(3000):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.01)
            if process.poll() is not None:
                break
    finally:
        process.kill()
        process.communicate()

    assert process.returncode in {128 + signal.SIGTERM, -signal.SIGTERM}


@contextmanager
def slow_copy_of(port: int) -> Iterator[int]:
    """
    A server that begins to give what the daemon has, and goes no further.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = threading.Event()

        def serve() -> None:
            connection, _ = server.accept()
            with connection, socket.create_connection(("127.0.0.1", port)) as origin:
                origin.sendall(connection.recv(65536))
                # More than the head, which can come alone.
                connection.sendall(origin.recv(200_000, socket.MSG_WAITALL))
                ended.wait(PATIENCE_SECONDS)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        ended.set()
        thread.join()


def test_a_value_that_is_replaced_meanwhile_is_not_pieced_together(
    tmp_path: Path,
) -> None:
    """
    Nor is the condition called the user's.
    """
    half = b'HTTP/1.1 200 OK\r\nContent-Length: 4\r\nETag: "e"\r\n\r\nha'
    other = (
        b"HTTP/1.1 412 Precondition Failed\r\nContent-Length: 19\r\n"
        b'Content-Type: application/problem+json\r\n\r\n{"detail": "other"}'
    )
    with somebody(half, other) as port:
        status, complaint = Shell(tmp_path, port).fail("get", "key", "file")

    assert 5 == status
    assert "replaced" in complaint
    assert [] == list(tmp_path.iterdir())


def test_a_reader_that_goes_away_ends_it_quietly(shell: Shell) -> None:
    """
    As with ``kvd get … - | head``.
    """
    shell.succeed("put", "piped", "-", given=b"x" * 10 * MIB)
    process = shell.start("get", "piped", "-")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()

    assert 128 + signal.SIGPIPE == process.wait(PATIENCE_SECONDS)
    assert b"" == process.stderr.read()
    process.stderr.close()
    assert process.stdin is not None
    process.stdin.close()


CANCEL = """
import io, sys
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater, react
from kvd.client import Client

class Source:
    length = None
    def __init__(self):
        self.asked = Deferred()
        self.given = 0
    def rewind(self):
        return False
    def next_piece(self):
        self.given += 1
        if self.given < 20:
            return b"new" * 50_000
        self.asked.callback(None)
        return Deferred()

class Sink(io.BytesIO):
    def __init__(self):
        super().__init__()
        self.begun = Deferred()
    def write(self, data):
        self.begun.callback(None)
        return Deferred()

async def cancelled(reactor, call, when):
    calling = Deferred.fromCoroutine(call)
    await when
    # Nobody can cancel himself: not from within the source or the sink.
    await deferLater(reactor, 0)
    calling.cancel()
    try:
        await calling
    except CancelledError:
        return
    raise AssertionError("it was not cancelled")

async def main(reactor, url):
    client = Client(url)
    await client.put("k", b"old" * 1_000_000)
    source, sink = Source(), Sink()
    await cancelled(reactor, client.put("k", source), source.asked)
    await cancelled(reactor, client.get("k", sink), sink.begun)
    again = io.BytesIO()
    await client.get("k", again)
    assert again.getvalue() == b"old" * 1_000_000
    await client.put("k", b"newer")
    assert [entry.size async for entry in client.list_in_order()] == [5]

react(lambda reactor: Deferred.fromCoroutine(main(reactor, sys.argv[1])))
"""


@pytest.mark.parametrize("procs", ["0", "2"])
def test_calls_that_are_cancelled_leave_values_as_they_were(
    tmp_path: Path, procs: str
) -> None:
    """
    In the middle of a body on its way in, and of one on its way out; the client serves
    on.
    """
    options = [f"--store=file:{tmp_path}/values", f"--procs={procs}", "--control=off"]
    with Twistd(options, tmp_path) as daemon:
        url = f"http://127.0.0.1:{daemon.port}"
        subprocess.run(
            [sys.executable, "-c", CANCEL, url], check=True, timeout=PATIENCE_SECONDS
        )

    assert b"newer" == (tmp_path / "values" / "k").read_bytes()
    uploads = [path for path in tmp_path.glob("values/.kvd/**/*") if path.is_file()]
    assert [] == [path for path in uploads if path.stat().st_size]


def test_a_listing_waits_for_a_slow_pager(tmp_path: Path) -> None:
    """
    It may stand still for longer than the daemon waits for a reader. All keys come,
    in their order: many more bytes than there is room for on the way.
    """
    letters = "é" * 120
    folder = tmp_path / "values" / letters / letters / letters
    folder.mkdir(parents=True)
    names = [f"{number:04}{'é' * 100}" for number in range(3500)]
    for name in names:
        (folder / name).touch()
    options = [*serving(tmp_path), "--reader-timeout", "0.5s"]
    with (
        Twistd(options, tmp_path) as daemon,
        Shell(tmp_path, daemon.port).start("ls") as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.readline()
        # Only what waits for a reader can notice that nobody reads.
        time.sleep(2)
        keys = [first, *process.stdout]
        said = process.stderr.read()

    assert (0, b"") == (process.returncode, said)
    expected = [f"{letters}/{letters}/{letters}/{name}\n" for name in names]
    assert "".join(expected) == b"".join(keys).decode()


def test_a_full_disk_leaves_no_half_file(shell: Shell) -> None:
    """
    Under no name at all.
    """
    shell.succeed("put", "too-much", "-", given=b"x" * 8 * MIB)
    with tmpfs(shell.folder / "small", "size=1m") as small:
        status, complaint = shell.fail("get", "too-much", f"{small}/file")
        assert 1 == status
        assert "No space left" in complaint
        assert [] == os.listdir(small)


def test_a_file_that_changes_while_it_is_put_is_refused(shell: Shell) -> None:
    """
    What was stored before stays.
    """
    shell.succeed("put", "changing", "-", given=b"before")
    path = shell.folder / "changing"
    path.write_bytes(b"x" * 15 * MIB)
    with stuck() as port:
        process = Shell(shell.folder, port).start("put", "changing", "changing")
        wait_for_read(process.pid, path)
        os.truncate(path, 5 * MIB)
        # It cannot have ended: nobody took it all. Now somebody does.
        ended_stuck(port)
        _, err = process.communicate(timeout=PATIENCE_SECONDS)

    assert 1 == process.returncode
    assert b"was changed while it was put" in err
    assert b"before" == shell.succeed("get", "changing", "-")


_release: dict[int, threading.Event] = {}


@contextmanager
def stuck() -> Iterator[int]:
    """
    A server that takes the beginning of a request, and the rest on request.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        go_on = _release[port] = threading.Event()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                go_on.wait(PATIENCE_SECONDS)
                try:
                    while connection.recv(MIB):
                        pass
                except ConnectionResetError:
                    # The client gave up, as it should.
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield port
        go_on.set()
        thread.join()


def ended_stuck(port: int) -> None:
    """
    Let it take the rest.
    """
    _release[port].set()


def wait_for_read(pid: int, path: Path) -> None:
    """
    Until a process has read something of a file.
    """
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                if os.readlink(f"/proc/{pid}/fd/{name}") != str(path):
                    continue
                with open(f"/proc/{pid}/fdinfo/{name}") as info:
                    if int(info.readline().split()[1]):
                        return
            except FileNotFoundError:
                continue
        time.sleep(0.01)
    raise AssertionError("nothing was read")
