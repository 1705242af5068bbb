"""
The functional tests of minio-go, the library of MinIO for Go, from Debian's package of
its sources: one program, which is compiled here.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

from tests.clients.running import run
from tests.clients.suites import (
    GO_SOURCES,
    build_with_go,
    judge,
    left_out,
    s3_daemon,
)

SOURCE: Final = GO_SOURCES / "src/github.com/minio/minio-go/v7/functional_tests.go"

PACKAGES: Final = {
    "go": "golang-go",
    str(SOURCE): "golang-github-minio-minio-go-v7-dev",
}

# In place of the program's own: it names each test, and goes on after a panic.
MAIN: Final = """
func run(name string, test func()) {
	fmt.Printf("TEST %s\\n", name)
	defer func() {
		if wrong := recover(); wrong != nil {
			fmt.Printf("PANIC %v\\n", wrong)
		}
	}()
	test()
}

func main() {
	log.SetOutput(os.Stdout)
	log.SetFormatter(&mintJSONFormatter{})
	log.SetLevel(log.InfoLevel)
"""

_CALLED: Final = re.compile(r"^\t+(test\w+)\(\)$", re.MULTILINE)


def main(folder: Path) -> None:
    """
    All of them, also those that are for TLS or for a service of keys alone.
    """
    program = _compiled(folder)
    with s3_daemon(folder) as s3:
        environment = {
            "SERVER_ENDPOINT": s3.address,
            "ACCESS_KEY": s3.key,
            "SECRET_KEY": s3.secret,
            "ENABLE_HTTPS": "0",
            "MINT_MODE": "full",
            "RUN_ON_FAIL": "1",
        }
        said = run(folder, program, environment=environment)
    print(f"minio-go: {judge(_outcomes(said), left_out('minio_go'))}")


def _compiled(folder: Path) -> str:
    before, head, after = SOURCE.read_text().partition("\nfunc main() {")
    assert head, f"{SOURCE} has no main."
    # With this tag it would be a part of the library.
    before = re.sub(r"^//( \+build|go:build) mint\n", "", before, flags=re.MULTILINE)
    names = dict.fromkeys(_CALLED.findall(after))
    calls = "".join(f'\trun("{name}", {name})\n' for name in names)
    (folder / "main.go").write_text(f"{before}{MAIN}{calls}}}\n")
    program = str(folder / "minio-go-tests")
    build_with_go(folder, "build", "-o", program, "main.go")
    return program


def _outcomes(said: str) -> dict[str, str | None]:
    """
    A test passes if it says so, and nothing else.
    """
    outcomes: dict[str, str | None] = {}
    for text in re.split(r"^TEST ", said, flags=re.MULTILINE)[1:]:
        name, *lines = text.splitlines()
        told = [json.loads(line) for line in lines if line.startswith("{")]
        has_passed = bool(told) and len(told) == len(lines)
        has_passed = has_passed and all(each["status"] == "PASS" for each in told)
        outcomes[name] = None if has_passed else "\n".join(lines) or "It said nothing."
    return outcomes
