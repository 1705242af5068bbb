"""
Folders on their way to the true daemon and back: ``kvd put -r``, ``kvd get -r``,
patterns, and ``kvd sync`` between a folder and a daemon.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_client import MIB, Shell, serving, somebody
from tests.integration.twistd import Twistd
from tests.patience import PATIENCE_SECONDS
from tests.ports import unused_port

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twistd]:
    """
    One for all tests here; each has a prefix of its own.
    """
    folder = tmp_path_factory.mktemp("daemon")
    with Twistd(serving(folder), folder) as twistd:
        yield twistd


@pytest.fixture
def shell(daemon: Twistd, tmp_path: Path) -> Shell:
    """
    Beside the daemon, in an empty folder.
    """
    return Shell(tmp_path, daemon.port)


def make_files(folder: Path, files: dict[str, bytes]) -> None:
    """
    Write files, with the folders above them.
    """
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def files_in(folder: Path) -> dict[str, bytes]:
    """
    All files below a folder.
    """
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def some_files() -> dict[str, bytes]:
    """
    Of many sizes and kinds of names; which, the seed decides.
    """
    seed = random.randrange(1 << 32)
    print(f"{seed=}")
    chance = random.Random(seed)
    names = [f"{number % 3}/{chance.randrange(3)}/{number:x}" for number in range(9)]
    names += ["top", ".hidden", "a b/100%41", "ü?#&/[x]*"]
    return {name: chance.randbytes(chance.choice((0, 9, 70_000))) for name in names}


def test_a_folder_goes_and_comes(shell: Shell) -> None:
    """
    With everything in it, by keys and by URLs, whose order is that of cp.
    """
    files = some_files()
    make_files(shell.folder / "there", files)
    at = shell.environment["KVD_URL"]
    shell.succeed("put", "-r", "tree/one", "there")
    shell.succeed("put", "-r", "there", f"{at}/tree%2Ftwo/", "--jobs", "2")
    shell.succeed("get", "-r", "tree/one/", "back/one")
    shell.succeed("get", "-r", f"{at}/tree/two", "back/two")

    assert files == files_in(shell.folder / "back" / "one")
    assert files == files_in(shell.folder / "back" / "two")
    assert 2 * len(files) == len(shell.succeed("ls", "tree").splitlines())


def test_what_dialects_keep_for_themselves_stays(shell: Shell) -> None:
    """
    Records of theirs are listed, but they refuse them in requests.
    """
    make_files(shell.folder, {"in/value": b"1", "record": b"2"})
    shell.succeed("put", "-r", "own", "in")
    for record in (".kvd-locks", "a/.kvd-collection", ".kvd-multipart/id/7"):
        shell.succeed("put", f"own/{record}", "record")
    shell.succeed("get", "-r", "own", "got")
    shell.succeed("sync", f"{shell.environment['KVD_URL']}/own", "synced")

    assert {"value": b"1"} == files_in(shell.folder / "got")
    assert {"value": b"1"} == files_in(shell.folder / "synced")
    assert 4 == len(shell.succeed("ls", "own").splitlines())


def test_two_files_for_one_key_are_refused_before_any_is_sent(shell: Shell) -> None:
    """
    Also where one of them is deep in a folder.
    """
    make_files(shell.folder, {"a/x/one": b"1", "b/x/one": b"2", "a/two": b"3"})
    status, complaint = shell.fail("put", "-r", "twice/", "a", "b")

    assert 2 == status
    assert "'a/x/one' and 'b/x/one' would both be stored under" in complaint
    assert b"" == shell.succeed("ls", "twice")


def test_two_keys_for_one_file_are_refused_before_any_is_fetched(shell: Shell) -> None:
    """
    Of two prefixes.
    """
    make_files(shell.folder / "in", {"p/x/n": b"1", "q/x/n": b"2"})
    shell.succeed("put", "-r", "merged", "in")
    status, complaint = shell.fail("get", "-r", "merged/p", "merged/q", "out")

    assert 2 == status
    assert "would both be written to 'out/x/n'" in complaint
    assert not (shell.folder / "out").exists()


def test_what_is_no_file_is_told(shell: Shell) -> None:
    """
    A link stays out unless -L is given, and is no failure; a pipe, a link to nothing
    and a circle of links are. All the rest is sent.
    """
    top = shell.folder / "top"
    make_files(top, {"file": b"1", "below/file": b"2"})
    (top / "link").symlink_to("file")
    (top / "linked").symlink_to("below")
    status, _, complaints = shell.run("put", "-r", "links/out", "top")
    assert 0 == status
    assert [
        "kvd: top/link: a link was left out",
        "kvd: top/linked: a link was left",
    ] == [
        line[: len(start)]
        for line, start in zip(
            complaints,
            ["kvd: top/link: a link was left out", "kvd: top/linked: a link was left"],
            strict=True,
        )
    ]
    (shell.folder / "entry").symlink_to("top")
    os.mkfifo(top / "pipe")
    (top / "nowhere").symlink_to("missing")
    (top / "below" / "up").symlink_to("..")
    status, _, complaints = shell.run("put", "-r", "-L", "links/in", "entry")
    assert 1 == status
    told = " ".join(complaints)
    assert "entry/pipe: it is a device, a pipe or a socket" in told
    assert "entry/nowhere: the link leads to nothing" in told
    assert "entry/below/up: it is a link to a folder that it is in" in told
    assert [
        *(b"links/in/below/file", b"links/in/file", b"links/in/link"),
        *(b"links/in/linked/file", b"links/out/below/file", b"links/out/file"),
    ] == [key for key in shell.succeed("ls", "links").splitlines() if b"up" not in key]


def test_names_that_cannot_be_keys_are_told(shell: Shell) -> None:
    """
    The others are sent.
    """
    make_files(shell.folder / "in", {"good": b"1", "line\nend": b"2"})
    status, complaint = shell.fail("put", "-r", "named", "in")

    assert 1 == status
    assert "control" in complaint
    assert b"named/good\n" == shell.succeed("ls", "named")


def test_nothing_is_written_through_a_link_in_the_folder(shell: Shell) -> None:
    """
    Nor over one, nor where a file is in the place of a folder.
    """
    make_files(
        shell.folder / "in", {"away/x": b"1", "link": b"2", "file/x": b"3", "ok": b"4"}
    )
    make_files(shell.folder, {"out/file": b"mine", "else": b"mine"})
    (shell.folder / "elsewhere").mkdir()
    (shell.folder / "out" / "away").symlink_to("../elsewhere")
    (shell.folder / "out" / "link").symlink_to("../else")
    shell.succeed("put", "-r", "through", "in")
    status, _, complaints = shell.run("get", "-r", "through", "out", "--jobs", "1")

    assert (1, 3) == (status, len(complaints))
    assert [] == list((shell.folder / "elsewhere").iterdir())
    assert b"mine" == (shell.folder / "else").read_bytes()
    assert b"4" == (shell.folder / "out" / "ok").read_bytes()


def test_patterns_stand_for_keys(shell: Shell) -> None:
    """
    In listings and downloads. A key that has a value is no pattern.
    """
    names = ["a.o", "b.o", "c.h", "sub/d.o", "sub/deep/e.o"]
    make_files(shell.folder / "in", {name: name.encode() for name in names})
    shell.succeed("put", "-r", "glob/build", "in")

    def listed(pattern: str) -> list[str]:
        lines = shell.succeed("ls", pattern).decode().splitlines()
        return [line.removeprefix("glob/build/") for line in lines]

    assert ["a.o", "b.o"] == listed("glob/build/*.o")
    assert ["a.o", "b.o", "sub/d.o", "sub/deep/e.o"] == listed("glob/build/**/*.o")
    assert ["sub/d.o", "sub/deep/e.o"] == listed("glob/*/sub/")
    at = shell.environment["KVD_URL"]
    assert ["c.h"] == listed(f"{at}/glob/build/?.[h-i]")
    shell.succeed("get", "glob/**/d*/*", "out")
    assert {"build/sub/deep/e.o": b"sub/deep/e.o"} == files_in(shell.folder / "out")
    shell.succeed("get", "glob/**/*.h", "glob/build/*.h", "both")
    assert {"build/c.h", "c.h"} == set(files_in(shell.folder / "both"))
    shell.succeed("put", "glob/build/*.o", "-", given=b"itself")
    assert b"itself" == shell.succeed("get", "glob/build/*.o", "-")
    status, complaint = shell.fail("get", "glob/*.nothing", "out")
    assert (3, "kvd: no key matches 'glob/*.nothing'.") == (status, complaint)


def test_a_folder_and_a_daemon_are_made_alike(shell: Shell) -> None:
    """
    Either way, what is new or was changed is copied, and what is extra is removed if
    that is asked for. Downloads have the time of the value.
    """
    files = some_files()
    there = shell.folder / "there"
    make_files(there, files)
    url = shell.environment["KVD_URL"] + "/alike/tree/"

    def sync(*arguments: str) -> str:
        return shell.succeed("sync", *arguments).decode().splitlines()[-1]

    size = sum(map(len, files.values()))
    would = f"{len(files)} would be copied ({size} bytes), 0 equal"
    assert would == sync("there", url, "--dry-run")
    assert b"" == shell.succeed("ls", "alike")
    copied = f"{len(files)} copied ({size} bytes), 0 equal"
    assert copied == sync("there", url)
    nothing = f"0 copied (0 bytes), {len(files)} equal"
    assert nothing == sync("there", url)
    assert nothing == sync("there", url, "--checksum")

    assert copied == sync(url, "back")
    assert files == files_in(shell.folder / "back")
    assert nothing == sync(url, "back")
    assert nothing == sync("back", url)

    (there / "top").write_bytes(b"changed")
    (there / "a b" / "100%41").unlink()
    rest = len(files) - 2
    assert f"1 copied (7 bytes), {rest} equal" == sync("there", url)
    assert f"0 copied (0 bytes), {rest + 1} equal, 1 removed" == sync(
        "there", url, "--delete"
    )
    assert f"1 copied (7 bytes), {rest} equal, 1 removed" == sync(
        url, "back", "--delete"
    )
    assert files_in(there) == files_in(shell.folder / "back")


def test_what_only_digests_tell_apart_is_found(shell: Shell) -> None:
    """
    It is the newer one at the destination, and is replaced if that is asked for.
    """
    make_files(shell.folder, {"in/one": b"one", "out/one": b"two"})
    os.utime(shell.folder / "in" / "one", (1, 1))
    url = shell.environment["KVD_URL"] + "/told"
    shell.succeed("sync", "in", url)

    def sync(*options: str) -> bytes:
        return shell.succeed("sync", "out", url, "--checksum", *options)

    os.utime(shell.folder / "out" / "one", (1, 1))
    assert b"0 equal, 1 newer at the destination" in sync()
    assert b"one" == shell.succeed("get", "told/one", "-")
    assert b"1 copied (3 bytes)" in sync("--overwrite")
    assert b"two" == shell.succeed("get", "told/one", "-")


def test_nothing_is_removed_for_a_source_that_is_not_whole(shell: Shell) -> None:
    """
    Because a part could not be read, or because there is nothing at all.
    """
    make_files(shell.folder, {"in/one": b"1", "in/two": b"2"})
    (shell.folder / "empty").mkdir()
    url = shell.environment["KVD_URL"] + "/whole/"
    shell.succeed("sync", "in", url)
    status, complaint = shell.fail("sync", "empty", url, "--delete")
    assert (1, True) == (status, "--force" in complaint)
    (shell.folder / "in" / "one").unlink()
    os.mkfifo(shell.folder / "in" / "pipe")
    status, _, complaints = shell.run("sync", "in", url, "--delete")
    assert 1 == status
    assert "nothing is removed" in complaints[-1]
    # A link that stays out keeps what it led to when it was sent.
    (shell.folder / "in" / "pipe").unlink()
    (shell.folder / "in" / "two").rename(shell.folder / "moved")
    (shell.folder / "in" / "two").symlink_to("../moved")
    (shell.folder / "in" / "new").write_bytes(b"3")
    shell.run("sync", "in", url, "--delete")
    assert b"whole/new\nwhole/two\n" == shell.succeed("ls", "whole")
    shell.succeed("sync", "empty", url, "--delete", "--force")
    assert b"" == shell.succeed("ls", "whole")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["http://a/", "http://b/"], "both are daemons"),
        (["http://a/%zz", "b"], "write the sign itself as %25"),
        (["http://a/x", "file:b"], "'file:b' is a store, and"),
        (["a", "http://b/", "--prefix=c"], "--prefix is about stores"),
        (["file:a", "file:b", "-L"], "-L is about folders"),
        (["http://a/", "b", "-L"], "-L is about links in a folder that is sent"),
    ],
)
def test_mistakes_are_answered_in_a_line(
    shell: Shell, arguments: list[str], words: str
) -> None:
    """
    With what would be right.
    """
    status, complaint = shell.fail("sync", *arguments)

    assert (2, True) == (status, words in complaint)


def test_all_below_a_prefix_is_removed_if_that_is_confirmed(shell: Shell) -> None:
    """
    Nothing is, unless somebody could say yes, or has said so.
    """
    make_files(shell.folder, {"in/a/one": b"1", "in/a/two": b"2", "in/b": b"3"})
    shell.succeed("put", "-r", "gone", "in")
    status, complaint = shell.fail("rm", "-r", "gone/a")
    assert (2, True) == (status, "give --yes too" in complaint)
    assert 3 == len(shell.succeed("ls", "gone").splitlines())
    shell.succeed("rm", "-r", "--yes", shell.environment["KVD_URL"] + "/gone/a/")
    assert b"gone/b\n" == shell.succeed("ls", "gone")
    status, complaint = shell.fail("rm", "-r", "--yes", "gone/a")
    assert (3, "kvd: no key is below 'gone/a'.") == (status, complaint)


def test_an_interruption_leaves_no_half_files(shell: Shell) -> None:
    """
    However many values are underway.
    """
    make_files(shell.folder, {"in/small": b"1"})
    (shell.folder / "in" / "large").touch()
    os.truncate(shell.folder / "in" / "large", 100 * MIB)
    shell.succeed("put", "-r", "broken/off", "in", "--quiet")
    getting = shell.start("get", "-r", "broken/off", "out")
    assert getting.stderr is not None
    while not list((shell.folder / "out").glob(".large.*")):
        assert getting.poll() is None
        time.sleep(0.001)
    getting.send_signal(signal.SIGINT)
    _, err = getting.communicate(timeout=PATIENCE_SECONDS)

    assert (130, b"") == (getting.returncode, err)
    assert [] == [
        one.name for one in (shell.folder / "out").iterdir() if "." in one.name
    ]
    shell.succeed("rm", "-ry", "broken")


def test_keys_of_a_hostile_server_do_not_leave_the_folder(tmp_path: Path) -> None:
    """
    Whatever it lists.
    """
    keys = ["p/../../up", "p/.", "p//abs", "p/a/../../../up", "p/line%0Aend", "q/else"]
    body = "".join(
        f'{{"key": "{key}", "size": 2, "etag": "\\"e\\"",'
        f' "changed": "2026-01-01T00:00:00.000Z"}}\n'
        for key in sorted(keys)
    )
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n"
    reply = f"{head}Content-Type: application/x-ndjson\r\n\r\n{body}".encode()
    work = tmp_path / "work"
    work.mkdir()
    with somebody(reply) as port:
        status, out, complaints = Shell(work, port).run("get", "-r", "p", "out")

    assert (1, b"0 fetched (0 bytes)\n", 5) == (status, out, len(complaints))
    assert [work] == list(tmp_path.iterdir())
    assert [] == list(work.rglob("*"))


def test_a_restart_of_the_daemon_is_waited_for(tmp_path: Path) -> None:
    """
    Nothing was sent to one that cannot be reached.
    """
    make_files(tmp_path, {"in/one": b"1", "in/two": b"2"})
    port = unused_port()
    putting = Shell(tmp_path, port).start("put", "-r", "late", "in", "--quiet")
    with Twistd([*serving(tmp_path), f"--listen=tcp:{port}"], tmp_path) as daemon:
        out, err = putting.communicate(timeout=PATIENCE_SECONDS)
        assert (0, b"", b"") == (putting.returncode, out, err)
        assert b"late/one\nlate/two\n" == Shell(tmp_path, daemon.port).succeed("ls")


def test_what_is_no_file_at_the_destination_is_told(shell: Shell) -> None:
    """
    What they lead to stays as it is, and so do they.
    """
    make_files(shell.folder, {f"in/{name}": b"2" for name in ("one", "two", "pipe")})
    (shell.folder / "mine").write_bytes(b"mine")
    (shell.folder / "out").mkdir()
    os.mkfifo(shell.folder / "out" / "pipe")
    (shell.folder / "out" / "one").symlink_to("../mine")
    url = shell.environment["KVD_URL"] + "/pointed"
    shell.succeed("sync", "in", url)
    status, _, complaints = shell.run("sync", url, "out", "--jobs=1")

    assert (1, 2) == (status, len(complaints))
    assert "out/one is a link, and is left alone" in complaints[0]
    assert "out/pipe is no regular file, and is left alone" in complaints[1]
    assert b"mine" == (shell.folder / "mine").read_bytes()
    assert b"2" == (shell.folder / "out" / "two").read_bytes()
