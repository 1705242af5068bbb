"""
The functional tests of minio-py, the library of MinIO for Python, which are meant for
any server of S3.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from tests.clients.running import run
from tests.clients.suites import judge, left_out, s3_daemon, source_from_pypi

PACKAGES: Final[dict[str, str | None]] = {}

VERSION: Final = "7.2.20"

# The tests end with the first one that fails.
RUN_ALL: Final = """
import sys

sys.path.insert(0, sys.argv[1])
import tests

call = tests._call_test

def go_on(*arguments, **named):
    try:
        call(*arguments, **named)
    except tests.TestFailed:
        pass

tests._call_test = go_on
tests.main()
"""


def main(folder: Path) -> None:
    """
    All of them.
    """
    source, python = source_from_pypi("minio", VERSION)
    with s3_daemon(folder) as s3:
        environment = {
            "SERVER_ENDPOINT": s3.address,
            "ACCESS_KEY": s3.key,
            "SECRET_KEY": s3.secret,
            "ENABLE_HTTPS": "0",
            "MINT_MODE": "full",
        }
        tests = str(source / "tests" / "functional")
        said = run(folder, python, "-c", RUN_ALL, tests, environment=environment)
    outcomes: dict[str, str | None] = {}
    for line in said.splitlines():
        if line.startswith("{"):
            told = json.loads(line)
            wrong = told.get("error") or told["status"]
            passed = told["status"] == "PASS"
            outcomes[told["name"].partition(":")[2]] = None if passed else wrong
    print(f"minio-py {VERSION}: {judge(outcomes, left_out('minio_py'))}")
