"""
The tests that rclone has for each of its backends, for S3 and for WebDAV, from Debian's
package of its sources.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from tests.clients.running import ADDRESS, fails_or_not, settings_in
from tests.clients.suites import (
    GO_SOURCES,
    build_with_go,
    judge,
    left_out,
    s3_daemon,
)
from tests.clients.webdav import daemon as webdav_daemon

SOURCES: Final = GO_SOURCES / "src/github.com"

S3_TESTS: Final = "github.com/rclone/rclone/backend/s3"

PACKAGES: Final = {
    "go": "golang-go",
    str(
        GO_SOURCES / "src" / S3_TESTS / "s3_test.go"
    ): "golang-github-rclone-rclone-dev",
    # That package imports it, and does not ask for it.
    str(SOURCES / "coreos/go-semver/semver/semver.go"): (
        "golang-github-coreos-go-semver-dev"
    ),
}

# Debian's has WebDAV's tests end before they begin.
WEBDAV_TESTS: Final = """
package suite

import (
	"testing"

	"github.com/rclone/rclone/backend/webdav"
	"github.com/rclone/rclone/fstest/fstests"
)

func TestIntegration(t *testing.T) {
	fstests.Run(t, &fstests.Opt{
		RemoteName: "TestWebDAV:",
		NilObject:  (*webdav.Object)(nil),
	})
}
"""

_END: Final = re.compile(r"^ *--- (PASS|FAIL|SKIP): (\S+)", re.MULTILINE)
_FAILURE: Final = re.compile(r"^\s*Test:\s+(\S+)$", re.MULTILINE)


def main(folder: Path) -> None:
    """
    Both backends.
    """
    # rclone would not start with it.
    os.environ.pop("AWS_CA_BUNDLE", None)
    # Where rclone looks for programs that start servers.
    (folder / "fstest" / "testserver" / "init.d").mkdir(parents=True)
    suite = folder / "src" / "suite"
    suite.mkdir(parents=True)
    (suite / "webdav_test.go").write_text(WEBDAV_TESTS)
    for name, package in (("s3", S3_TESTS), ("webdav", "suite")):
        build_with_go(folder, "test", "-c", "-o", str(folder / f"{name}.test"), package)
    with s3_daemon(folder) as s3:
        (shown,) = (each for each in settings_in("s3", "ini") if "type = s3" in each)
        shown = re.sub("(?m)^access_key_id = .*", f"access_key_id = {s3.key}", shown)
        shown = re.sub(
            "(?m)^secret_access_key = .*", f"secret_access_key = {s3.secret}", shown
        )
        told = _tested(folder, "s3", shown.replace(ADDRESS, s3.address))
        print(f"rclone's tests of S3: {judge(told, left_out('rclone_s3'))}")
    dav = folder / "dav"
    dav.mkdir()
    with webdav_daemon(dav) as twistd:
        (shown,) = settings_in("webdav", "ini")
        shown = shown.replace(ADDRESS, f"127.0.0.1:{twistd.port}")
        told = _tested(folder, "webdav", shown)
        print(f"rclone's tests of WebDAV: {judge(told, left_out('rclone_webdav'))}")
        twistd.stop()


def _tested(folder: Path, name: str, shown: str) -> dict[str, str | None]:
    remote = {"s3": "TestS3", "webdav": "TestWebDAV"}[name]
    config = folder / f"{name}.conf"
    config.write_text(shown.replace("[kvd]", f"[{remote}]"))
    said = fails_or_not(
        folder,
        str(folder / f"{name}.test"),
        *["-test.v", "-test.run", "^TestIntegration$", "-remote", f"{remote}:"],
        environment={"RCLONE_CONFIG": str(config)},
    )
    return outcomes_in(said)


def outcomes_in(said: str) -> dict[str, str | None]:
    """
    The outcomes of Go's tests. One that has others in it fails with them; it is told
    only if it fails by itself.
    """
    ends = {name: end for end, name in _END.findall(said)}
    assert ends, said
    outcomes: dict[str, str | None] = {}
    for name, end in ends.items():
        inner = {ends[other] for other in ends if other.startswith(f"{name}/")}
        if not inner or (end == "FAIL" and "FAIL" not in inner):
            outcomes[name] = None if end == "PASS" else end
    outcomes |= dict.fromkeys(_FAILURE.findall(said), "FAIL")
    return {
        name: wrong and f"{wrong}: {_said_of(name, said)}"
        for name, wrong in outcomes.items()
    }


def _said_of(name: str, said: str) -> str:
    """
    What is between the beginning of a test and that of the next one.
    """
    _, _, rest = said.partition(f"=== RUN   {name}\n")
    return rest.partition("=== ")[0]
