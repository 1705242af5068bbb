"""
Users of the real daemon: what they may do, when the rights file changes, and where
their secrets are not.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from http.client import HTTPConnection
from pathlib import Path

import pytest
from tomlkit import TOMLDocument

from bench.clients.programs import CCACHE_WAITS
from kvd.access.editing import add_token, change, remove_user, set_user
from kvd.access.passwords import hash_password
from kvd.access.tokens import make_token
from tests.integration.commands import run_kvd
from tests.integration.http import ask, ask_over
from tests.integration.test_hangup import read_until
from tests.integration.twistd import Twistd
from tests.patience import PATIENCE_SECONDS

pytestmark = pytest.mark.integration

PASSWORD = "secret-of-ci"


def kvd(
    *arguments: str, given: str = "", environment: Mapping[str, str] | None = None
) -> str:
    """
    What the command prints.
    """
    environment = os.environ | (environment or {})
    done = run_kvd(*arguments, given=given, environment=environment)
    done.check_returncode()
    return done.stdout


def user_with_token(path: Path, name: str, rights: Mapping[str, Sequence[str]]) -> str:
    """
    Add a user to a rights file; the user's token.
    """
    token = make_token()

    def edit(document: TOMLDocument) -> None:
        set_user(document, name, None, rights)
        add_token(document, name, token, "", None)

    change(str(path), edit)
    return token


def bearer(token: str) -> dict[str, str]:
    """
    A field.
    """
    return {"Authorization": f"Bearer {token}"}


def basic(user: str, password: str) -> dict[str, str]:
    """
    Likewise.
    """
    pair = b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


def all_texts(folder: Path) -> str:
    """
    All that stands in files below a folder.
    """
    return "".join(
        path.read_bytes().decode("latin-1")
        for path in folder.rglob("*")
        if path.is_file()
    )


def test_secrets_are_nowhere(tmp_path: Path) -> None:
    """
    Neither what the daemon prints and writes nor the list of processes has a token or a
    password, right or wrong.
    """
    users = str(tmp_path / "users.toml")
    given = {"KVD_USERS": users}
    kvd("user", "add", "ci", "--allow=/=read,write", given=PASSWORD, environment=given)
    token = kvd("user", "token", "ci", environment=given).strip()
    secrets = [PASSWORD, token, "wrong-guess", make_token()]
    secrets += [b64encode(f"ci:{each}".encode()).decode() for each in secrets]
    options = ["--procs=2", "--durability=process", f"--users={users}"]
    options += ["--access-log=./access.log", "--record=./record"]
    options += ["--status=tcp:0", "--control=./control"]
    with Twistd(options, tmp_path) as daemon:
        good = [bearer(token), basic("ci", PASSWORD), basic("ci", token)]
        for secret in secrets[:4]:
            for fields in (bearer(secret), basic("ci", secret)):
                right = fields in good
                # More failures would be slowed down.
                for _ in range(3 if right else 1):
                    reply = ask(daemon.port, "PUT", "/k", b"value", fields)
                    assert right == (reply.status in (201, 204)), reply
                    assert not [each for each in secrets if each in str(reply)]
            refused = ask(daemon.port, "GET", f"/k?access_token={secret}")
            assert 400 == refused.status
        shown = [
            ask(daemon.status_port, "GET", target).body.decode("latin-1")
            for target in ("/", "/metrics", "/status.json")
        ]
        shown.append(kvd("status", "--control", str(tmp_path / "control"), "--json"))
        shown += [
            Path(path).read_bytes().decode("latin-1")
            for process in Path("/proc").glob("[0-9]*")
            for path in (process / "cmdline",)
            if path.exists()
        ]
    shown += daemon.lines
    shown.append(all_texts(tmp_path))

    assert [] == [s for s in secrets for text in shown if s in text]


@pytest.mark.parametrize("policy", ["gated", "roundrobin"])
def test_rights_change_on_hangup(tmp_path: Path, policy: str) -> None:
    """
    While others load the daemon; a wrong file changes nothing, and the log says what
    is wrong.
    """
    users = tmp_path / "users.toml"
    one = user_with_token(users, "one", {"/": ["read"]})
    options = ["--procs=2", f"--policy={policy}", f"--users={users}"]
    options += ["--durability=process", "--store=file:./values", "--control=off"]
    (tmp_path / "values").mkdir()
    (tmp_path / "values" / "k").write_text("value")
    with Twistd(options, tmp_path) as daemon:
        port = daemon.port

        def statuses(token: str) -> set[int]:
            return {
                ask(port, "GET", "/k", None, bearer(token)).status for _ in range(4)
            }

        seen: list[int] = []
        done = threading.Event()

        def load() -> None:
            while not done.is_set():
                seen.append(ask(port, "GET", "/k", None, bearer(one)).status)

        thread = threading.Thread(target=load)
        thread.start()
        try:
            assert {200} == statuses(one)
            text = users.read_text()
            users.write_text(text.replace("read", "raed"))
            daemon.process.send_signal(signal.SIGHUP)
            read_until(daemon, "Did you mean 'read'")
            assert {200} == statuses(one)

            users.write_text(text)
            two = user_with_token(users, "two", {})
            daemon.process.send_signal(signal.SIGHUP)
            read_until(daemon, "settings: done")
            assert ({200}, {403}) == (statuses(one), statuses(two))
        finally:
            done.set()
            thread.join()
        assert {200} == set(seen)

        change(str(users), lambda document: remove_user(document, "one"))
        daemon.process.send_signal(signal.SIGHUP)
        read_until(daemon, "settings: done")
        assert ({401}, {403}) == (statuses(one), statuses(two))


def pairs(
    daemon: Twistd, open_ones: ExitStack, value: bytes, fields: Mapping[str, str]
) -> tuple[list[HTTPConnection], list[HTTPConnection]]:
    """
    Uploads that have begun, and further connections. Of each two, one is at each
    worker.

    Args:
        open_ones: Closes them.
        value: What is uploaded; its first 1,000 bytes are sent.
        fields: Those of the uploads.
    """

    def connect() -> HTTPConnection:
        one = HTTPConnection("127.0.0.1", daemon.port, timeout=PATIENCE_SECONDS)
        open_ones.callback(one.close)
        return one

    uploads, kept = [[connect() for _ in range(2)] for _ in range(2)]
    for number, upload in enumerate(uploads):
        upload.putrequest("PUT", f"/upload{number}")
        for name, said in fields.items():
            upload.putheader(name, said)
        upload.putheader("Content-Length", str(len(value)))
        upload.endheaders(value[:1000])
    return uploads, kept


def ask_until(
    status: int, connection: HTTPConnection, fields: Mapping[str, str] | None = None
) -> None:
    """
    Get a value again and again, until the status is the expected one.
    """
    until = time.monotonic() + PATIENCE_SECONDS
    found = 0
    while found != status and time.monotonic() < until:
        found = ask_over(connection, "GET", "/k", None, fields).status
    assert status == found


def test_a_withdrawn_right_waits_for_no_client(tmp_path: Path) -> None:
    """
    Uploads hold both workers, so none can be replaced. All the same, neither serves a
    user who was removed: not on connections that are open, nor on the fast path, nor on
    new ones. The uploads end well.
    """
    users = tmp_path / "users.toml"
    gone = user_with_token(users, "gone", {"/": ["read"]})
    stays = user_with_token(users, "stays", {"/": ["read", "write"]})
    options = ["--procs=2", "--policy=roundrobin", f"--users={users}"]
    options += ["--durability=process", "--store=file:./values", "--control=off"]
    options += ["--drain-timeout=600"]
    (tmp_path / "values").mkdir()
    (tmp_path / "values" / "k").write_text("value")
    value = b"x" * 200_000
    with Twistd(options, tmp_path) as daemon, ExitStack() as open_ones:
        uploads, kept = pairs(daemon, open_ones, value, bearer(stays))
        for one in [*kept, *kept, *kept]:
            assert 200 == ask_over(one, "GET", "/k", None, bearer(gone)).status

        change(str(users), lambda document: remove_user(document, "gone"))
        daemon.process.send_signal(signal.SIGHUP)
        for one in kept:
            ask_until(401, one, bearer(gone))
        for _ in range(4):
            assert 401 == ask(daemon.port, "GET", "/k", None, bearer(gone)).status
            assert 200 == ask(daemon.port, "GET", "/k", None, bearer(stays)).status

        for upload in uploads:
            upload.send(value[1000:])
            assert 201 == upload.getresponse().status
        read_until(daemon, "settings: done")
        assert value == ask(daemon.port, "GET", "/upload1", None, bearer(stays)).body


def test_the_first_rights_file_waits_for_no_client(tmp_path: Path) -> None:
    """
    Nor does its end. Uploads hold both workers, so none can be replaced. All the same,
    both go by a file that the settings name only now: on connections that are open, on
    the fast path and on new ones, with tokens and with passwords.
    """
    users, settings = tmp_path / "users.toml", tmp_path / "kvd.toml"
    token = user_with_token(users, "one", {"/": ["read"]})
    hashed = hash_password(PASSWORD)
    change(
        str(users), lambda document: set_user(document, "ci", hashed, {"/": ["read"]})
    )
    settings.write_text("")
    options = ["--procs=2", "--policy=roundrobin", f"--config={settings}"]
    options += ["--durability=process", "--store=file:./values", "--control=off"]
    options += ["--drain-timeout=600"]
    (tmp_path / "values").mkdir()
    (tmp_path / "values" / "k").write_text("value")
    value = b"x" * 200_000
    with Twistd(options, tmp_path) as daemon, ExitStack() as open_ones:
        uploads, kept = pairs(daemon, open_ones, value, {})
        for one in [*kept, *kept, *kept]:
            assert 200 == ask_over(one, "GET", "/k").status

        settings.write_text(f'users = "{users}"\n')
        daemon.process.send_signal(signal.SIGHUP)
        read_until(daemon, "all workers have the rights file")
        for one in kept:
            ask_until(401, one)
            assert 200 == ask_over(one, "GET", "/k", None, bearer(token)).status
            assert 200 == ask_over(one, "GET", "/k", None, basic("ci", PASSWORD)).status
        for _ in range(4):
            assert 401 == ask(daemon.port, "GET", "/k").status
            assert 403 == ask(daemon.port, "PUT", "/n", b"", bearer(token)).status
            assert 200 == ask(daemon.port, "GET", "/k", None, bearer(token)).status

        settings.write_text("")
        daemon.process.send_signal(signal.SIGHUP)
        read_until(daemon, "no rights file any more")
        for one in kept:
            ask_until(200, one)

        for upload in uploads:
            upload.send(value[1000:])
            assert 201 == upload.getresponse().status
        read_until(daemon, "settings: done")
        assert value == ask(daemon.port, "GET", "/upload1").body


@pytest.mark.parametrize("policy", ["reuseport", "leastbusy"])
def test_rates_are_those_of_all_workers_together(tmp_path: Path, policy: str) -> None:
    """
    An address, and a user, get a burst and what the time allows, whichever workers
    their connections come to.
    """
    rate = 30
    users = tmp_path / "users.toml"
    token = user_with_token(users, "ci", {"/": ["read"]})
    text = users.read_text()
    users.write_text(
        text.replace("[users.ci]", f"[users.ci]\nrequests-per-second = {rate}")
    )
    assert users.read_text() != text
    options = ["--procs=4", f"--policy={policy}", "--store=null:", "--control=off"]
    for more, fields in (
        ([f"--max-address-rate={rate}"], {}),
        ([f"--users={users}"], bearer(token)),
    ):
        with Twistd([*options, *more], tmp_path) as daemon:
            began = time.monotonic()
            statuses = [
                ask(daemon.port, "GET", "/k", None, fields).status
                for _ in range(4 * rate)
            ]
            seconds = time.monotonic() - began
        assert {404, 429} >= set(statuses)
        granted = statuses.count(404)
        assert rate <= granted <= rate * (1 + seconds) + 1


def send_from(source: str, port: int, password: str) -> socket.socket:
    """
    A connection from an address, with a request that has a password.
    """
    (name, value), *_ = basic("ci", password).items()
    connection = socket.create_connection(
        ("127.0.0.1", port), PATIENCE_SECONDS, source_address=(source, 0)
    )
    head = f"GET /k HTTP/1.1\r\nHost: localhost\r\n{name}: {value}\r\n\r\n"
    connection.sendall(head.encode())
    return connection


def test_a_right_guess_is_not_told_at_once(tmp_path: Path) -> None:
    """
    To a client that hangs up on each guess that is not answered at once: neither over
    one worker nor over the other, though both know the password. Others are served at
    once meanwhile.
    """
    users = str(tmp_path / "users.toml")
    environment = {"KVD_USERS": users}
    kvd("user", "add", "ci", "--allow=/=read", given=PASSWORD, environment=environment)
    options = ["--procs=2", "--policy=roundrobin", "--store=null:", f"--users={users}"]
    office, guesser, elsewhere = "127.0.0.2", "127.0.0.3", "127.0.0.4"
    with Twistd([*options, "--control=off"], tmp_path) as daemon, ExitStack() as stack:

        def served(source: str) -> bytes:
            with send_from(source, daemon.port, PASSWORD) as connection:
                return connection.recv(12)

        assert {b"HTTP/1.1 404"} == {served(office) for _ in range(8)}
        for number in range(200):
            send_from(guesser, daemon.port, f"guess {number}").close()
        right = [
            stack.enter_context(send_from(guesser, daemon.port, PASSWORD))
            for _ in range(8)
        ]
        for source in (office, elsewhere):
            assert {b"HTTP/1.1 404"} == {served(source) for _ in range(8)}
        answered = []
        for connection in right:
            connection.setblocking(False)
            with suppress(BlockingIOError):
                answered.append(connection.recv(12))
        # They are refused where too many wait.
        assert {b"HTTP/1.1 429"} >= set(answered)


def test_a_wrong_file_refuses_the_start(tmp_path: Path) -> None:
    """
    With one sentence that names the file.
    """
    users = tmp_path / "users.toml"
    users.write_text("[users.ci]\npasword = 3")
    for mode, sentence in ((0o600, "Did you mean 'password'"), (0o644, "chmod 600")):
        users.chmod(mode)
        refused = pytest.raises(AssertionError, match=f"kvd: --users: .*{sentence}")
        with refused, Twistd([f"--users={users}"], tmp_path):
            pass


def test_the_command_sends_credentials(tmp_path: Path) -> None:
    """
    From a file with a token, or from a netrc file; neither may be open to others.
    """
    given = {"KVD_USERS": str(tmp_path / "users.toml")}
    kvd(
        "user",
        "add",
        "ci",
        "--allow=/=read,write,list",
        given=PASSWORD,
        environment=given,
    )
    (tmp_path / "token").write_text(kvd("user", "token", "ci", environment=given))
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login ci password {PASSWORD}\n")
    (tmp_path / "value").write_text("value")
    options = ["--procs=1", f"--users={given['KVD_USERS']}", "--control=off"]
    with Twistd(options, tmp_path) as daemon:
        url = {"KVD_URL": f"http://127.0.0.1:{daemon.port}", "HOME": str(tmp_path)}
        value = str(tmp_path / "value")
        for name, option in (("token", "--token-file"), ("netrc", "--netrc")):
            path = tmp_path / name
            path.chmod(0o644)
            run = ["put", name, value]
            with pytest.raises(subprocess.CalledProcessError):
                kvd(option, str(path), *run, environment=url)
            path.chmod(0o600)
            kvd(option, str(path), *run, environment=url)
        with pytest.raises(subprocess.CalledProcessError):
            kvd("ls", environment=url)
        (tmp_path / "netrc").rename(tmp_path / ".netrc")
        assert "netrc\ntoken\n" == kvd("ls", environment=url)


def test_ccache_pushes_as_a_writer_and_pulls_as_anybody(tmp_path: Path) -> None:
    """
    With the token of a writer, without credentials, and with a reader's password; what
    a client without rights pushes is refused, and it compiles all the same.
    """
    users = tmp_path / "users.toml"
    writer = user_with_token(users, "ci", {"/": ["read", "write"]})
    hashed = hash_password(PASSWORD)
    change(
        str(users),
        lambda document: set_user(document, "human", hashed, {"/": ["read"]}),
    )
    text = users.read_text()
    users.write_text(text.replace('#"/" = ["read"]', '"/" = ["read"]'))
    (tmp_path / "a.c").write_text("int main(void) { return 0; }\n")
    options = ["--procs=2", f"--users={users}", "--control=off", "--store=file:values"]
    with Twistd(options, tmp_path) as daemon:
        at = f"127.0.0.1:{daemon.port}|layout=subdirs|{CCACHE_WAITS}"

        def stored() -> int:
            values = (tmp_path / "values").rglob("*")
            return sum(path.is_file() and ".kvd" not in path.parts for path in values)

        def compile_at(storage: str) -> bool:
            """
            Returns:
                Whether nothing had to be compiled.
            """
            environment = os.environ | {
                "CCACHE_REMOTE_STORAGE": storage,
                "CCACHE_DIR": tempfile.mkdtemp(dir=tmp_path),
            }
            for command in (
                ["ccache", "gcc", "-c", "a.c"],
                ["ccache", "--print-stats"],
            ):
                printed = subprocess.run(
                    command,
                    cwd=tmp_path,
                    env=environment,
                    stdout=subprocess.PIPE,
                    text=True,
                    check=True,
                ).stdout
            return "cache_miss\t0" in printed

        assert not compile_at(f"http://{at}")
        assert not compile_at(f"http://human:{PASSWORD}@{at}")
        assert 0 == stored()
        assert not compile_at(f"http://{at}|bearer-token={writer}")
        assert 0 < stored()
        assert compile_at(f"http://{at}")
        assert compile_at(f"http://human:{PASSWORD}@{at}")
        assert compile_at(f"http://ci:{writer}@{at}")
        assert not compile_at(f"http://human:guess@{at}")


def test_the_log_warns_of_passwords_in_the_clear(tmp_path: Path) -> None:
    """
    Where other machines can connect.
    """
    users = tmp_path / "users.toml"
    users.touch(0o600)
    options = ["--procs=1", f"--users={users}", "--listen=tcp:0", "--control=off"]
    with Twistd(options, tmp_path) as daemon:
        read_until(daemon, "passwords and tokens go there unencrypted")
    assert not re.search("no authorisation", "".join(daemon.lines))
