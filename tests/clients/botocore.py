"""
The tests that botocore, the library of boto3 and aws-cli, has for S3 itself.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from tests.clients.running import fails_or_not
from tests.clients.suites import judge, left_out, s3_daemon, source_from_pypi

PACKAGES: Final[dict[str, str | None]] = {}

VERSION: Final = "1.44.8"

TESTS: Final = "tests/integration/test_s3.py"

# Each bucket is made ready for AWS with two operations that kvd has not; and then the
# tests sleep, until all of S3 knows what they have stored. The models of all services
# would be read first.
PRELUDE: Final = """
import time
from types import SimpleNamespace

import botocore.client
import botocore.session

botocore.session.Session.get_available_services = lambda self: ["s3"]

call = botocore.client.BaseClient._make_api_call

def without_two(self, operation, arguments):
    if operation in ("DeletePublicAccessBlock", "PutBucketEncryption"):
        return {}
    return call(self, operation, arguments)

botocore.client.BaseClient._make_api_call = without_two

def pytest_collection_modifyitems(items):
    import tests.integration.test_s3 as module
    module.BaseS3ClientTest.DEFAULT_DELAY = 0
    module.time = SimpleNamespace(sleep=lambda seconds: None, time=time.time)
"""

CONFIG: Final = """
[default]
endpoint_url = http://{address}
s3 =
  addressing_style = path
  signature_version = s3v4
"""


def main(folder: Path) -> None:
    """
    All of them.
    """
    source, python = source_from_pypi("botocore", VERSION, "pytest")
    shutil.copytree(source / "tests", folder / "tests")
    (folder / "conftest.py").write_text(PRELUDE)
    with s3_daemon(folder) as s3:
        (folder / "config").write_text(CONFIG.format(address=s3.address))
        said = fails_or_not(
            folder,
            *[python, "-m", "pytest", "-q", "-p", "no:cacheprovider", TESTS],
            *["--tb=short", "--junitxml=report.xml"],
            environment=s3.aws | {"AWS_CONFIG_FILE": str(folder / "config")},
        )
    report = folder / "report.xml"
    assert report.exists(), said
    outcomes: dict[str, str | None] = {}
    for test in ElementTree.parse(report).iter("testcase"):
        kind = test.attrib["classname"].rpartition(".")[2]
        wrong = [each for each in test if each.tag in ("failure", "error", "skipped")]
        told = "\n".join(each.text or each.tag for each in wrong)
        outcomes[f"{kind}.{test.attrib['name']}"] = told or None
    print(f"botocore {VERSION}: {judge(outcomes, left_out('botocore'))}")
