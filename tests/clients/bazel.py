"""
Bazel stores what it builds with a writer's token, and others take it from kvd, with a
reader's token and without credentials.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from tests.integration.test_users import user_with_token
from tests.integration.twistd import Twistd

RIGHTS: Final = """
[anonymous.rights]
"/" = ["read"]

[prefixes."/cas/"]
content-addressed = true
"""
BUILD: Final = 'genrule(name = "made", outs = ["made.txt"], cmd = "echo built > $@")\n'
TIMEOUT_SECONDS: Final = 300
PACKAGES: Final = {"bazel": "bazel-bootstrap"}
HIT: Final = "remote cache hit"


def main(folder: Path) -> None:
    """
    Build as a writer, as a reader and as nobody.
    """
    rights = folder / "users.toml"
    rights.touch(0o600)
    rights.write_text(RIGHTS)
    writer = user_with_token(rights, "ci", {"/": ["read", "write"]})
    reader = user_with_token(rights, "dev", {"/": ["read"]})
    options = [
        *[f"--store=file:{folder}/values", "--durability=process", "--procs=2"],
        *[f"--users={rights}", "--control=off", f"--access-log={folder}/log"],
    ]
    with Twistd(options, folder) as daemon:
        url = f"http://127.0.0.1:{daemon.port}"
        assert HIT not in build(folder / "refused", url, reader)
        assert HIT not in build(folder / "first", url, writer)
        assert HIT in build(folder / "second", url, reader)
        assert HIT in build(folder / "third", url, None)
        daemon.stop()
    lines = [line.split() for line in (folder / "log").read_text().splitlines()]
    stored = {line[5][:4] for line in lines if line[3:5] == ["ci", "PUT"]}
    assert {"/ac/", "/cas"} == stored
    assert {"403"} == {line[6] for line in lines if line[3:5] == ["dev", "PUT"]}
    print("Bazel stores as a writer, and takes it as a reader and as nobody")


def build(folder: Path, url: str, token: str | None) -> str:
    """
    What Bazel says of a build in a folder of its own.
    """
    sources = folder / "sources"
    sources.mkdir(parents=True)
    (sources / "WORKSPACE").touch()
    (sources / "BUILD").write_text(BUILD)
    command = [
        *["bazel", "--batch", f"--output_user_root={folder}/root", "build"],
        *[f"--remote_cache={url}", "//:made"],
    ]
    if token is not None:
        command.append(f"--remote_header=Authorization=Bearer {token}")
    done = subprocess.run(
        command,
        cwd=sources,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    # Its files may not be written to.
    subprocess.run(["chmod", "-R", "u+w", str(folder)], check=True)
    return done.stdout
