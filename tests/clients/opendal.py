"""
OpenDAL with WebDAV and S3, and the program in ``docs/clients/sccache.rst``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.clients.running import ADDRESS, from_pypi, run, settings_in
from tests.integration.twistd import Twistd

PACKAGES: Final[dict[str, str | None]] = {}

LARGE_BYTES: Final = 40_000_000

TEST: Final = f"""
import os
import sys
from pathlib import Path

def refused(call, *arguments):
    try:
        call(*arguments)
    except opendal.exceptions.NotFound:
        return
    raise AssertionError(call)

large = os.urandom({LARGE_BYTES})
for operator, stored in ((webdav, "dav"), (s3, "s3/opendal")):
    stored = Path(sys.argv[1]) / stored
    operator.write("tree/large", large)
    assert large == bytes(operator.read("tree/large"))
    assert {LARGE_BYTES} == operator.stat("tree/large").content_length
    with operator.open("tree/large", "rb") as file:
        file.seek({LARGE_BYTES} - 5)
        assert large[-5:] == file.read()
    operator.write("tree/sp ace é/small", b"value")
    names = sorted(entry.path for entry in operator.scan("tree/"))
    files = [name for name in names if not name.endswith("/")]
    assert ["tree/large", "tree/sp ace é/small"] == files, names
    inner = sorted(entry.path for entry in operator.list("tree/"))
    assert ["tree/large", "tree/sp ace é/"] == [i for i in inner if i != "tree/"], inner
    operator.copy("tree/large", "tree/copy")
    assert large == bytes(operator.read("tree/copy"))
    if operator is webdav:
        operator.rename("tree/copy", "tree/moved")
        refused(operator.read, "tree/copy")
        operator.delete("tree/moved")
    damaged = stored / "tree" / "sp ace é" / "small"
    with damaged.open("r+b") as file:
        file.write(b"V")
    assert b"Value" == bytes(operator.read("tree/sp ace é/small"))
    damaged.unlink()
    refused(operator.read, "tree/sp ace é/small")
    operator.remove_all("tree/")
    assert not [path for path in (stored / "tree").rglob("*") if path.is_file()]
print(opendal.__version__)
"""


def main(folder: Path) -> None:
    """
    Each dialect.
    """
    python = str(from_pypi("opendal", "opendal==0.47.12") / "python")
    (shown,) = settings_in("sccache", "py")
    options = [
        *["--dialect=/dav/=webdav", "--dialect=/s3/=s3", "--procs=2", "--control=off"],
        *[f"--store=file:{folder}/values", "--durability=process"],
        "--policy=roundrobin",
    ]
    with Twistd(options, folder) as daemon:
        program = folder / "program.py"
        shown = shown.replace(ADDRESS, f"127.0.0.1:{daemon.port}")
        program.write_text(shown + TEST)
        version = run(folder, python, str(program), str(folder / "values")).strip()
        daemon.stop()
    print(
        f"opendal {version}: {LARGE_BYTES} bytes written, read and copied by WebDAV and"
        " by S3; a damaged and a deleted value"
    )
