"""
fsspec and pyarrow, with the program in ``docs/clients/fsspec.rst``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.clients.running import (
    ADDRESS,
    damage,
    fails,
    from_pypi,
    run,
    settings_in,
)
from tests.integration.twistd import Twistd

PACKAGES: Final = {"curl": "curl"}

ROWS: Final = 2_500_000
"""Of 16 bytes each."""
GROUP_ROWS: Final = 25_000
WRITE: Final = f"""
import pyarrow
from pyarrow import parquet

numbers = pyarrow.array(range({ROWS}))
table = pyarrow.table({{"number": numbers, "same": numbers}})
parquet.write_table(
    table, "table.parquet", row_group_size={GROUP_ROWS}, compression="none",
    use_dictionary=False,
)
"""
VERSIONS: Final = (
    "import fsspec, pyarrow; print(fsspec.__version__, pyarrow.__version__)"
)

FOREIGN: Final = """
import os
import threading

own = {str(thread.native_id) for thread in threading.enumerate()}
names = [
    open(f"/proc/self/task/{task}/comm").read().strip()
    for task in os.listdir("/proc/self/task")
    if task not in own
]
print("foreign:", *(name for name in names if not name.startswith("jemalloc")))
"""
"""
Prints the threads that are not Python's, but for that of the allocator, which has no
Python objects.

Any other may still let go of a Python object when Python ends, and ends the process
with SIGABRT then, though all was read: one run of fifty on a busy machine
(https://github.com/apache/arrow/issues/34314).
"""


def main(folder: Path) -> None:
    """
    Read a part of a file; of a damaged one, and of a deleted one.
    """
    python = str(from_pypi("fsspec", "fsspec", "aiohttp", "pyarrow") / "python")
    options = [
        *[f"--store=file:{folder}/values", "--durability=process", "--procs=2"],
        *["--policy=roundrobin", "--control=off", f"--access-log={folder}/log"],
    ]
    with Twistd(options, folder) as daemon:
        size = read(folder, f"127.0.0.1:{daemon.port}", python)
        daemon.stop()
    lines = [line.split() for line in (folder / "log").read_text().splitlines()]
    parts = [int(line[7]) for line in lines if line[4] == "GET" and line[6] == "206"]
    assert parts
    assert sum(parts) < size / 10
    fsspec, pyarrow = run(folder, python, "-c", VERSIONS).split()
    print(
        f"fsspec {fsspec} with pyarrow {pyarrow}: {len(parts)} ranges of {sum(parts)}"
        f" bytes in all read from {size}; a damaged and a deleted file are errors"
    )


def read(folder: Path, address: str, python: str) -> int:
    """
    Run what the page shows.

    Returns:
        The size of the file.
    """
    run(folder, python, "-c", WRITE)
    table = folder / "table.parquet"
    url = f"http://{address}/data/"
    run(folder, "curl", "--fail", "--silent", "--upload-file", str(table), url)
    (shown,) = settings_in("fsspec", "py")
    shown = shown.replace(ADDRESS, address)
    said = run(folder, python, "-c", shown + FOREIGN)
    assert [f"{GROUP_ROWS} {50 * GROUP_ROWS}", "foreign:"] == said.splitlines()
    stored = folder / "values" / "data" / "table.parquet"
    size = stored.stat().st_size
    # The end of a Parquet file says what is where.
    damage(stored, size - 7)
    assert "parquet" in fails(folder, python, "-c", shown)
    stored.unlink()
    assert "FileNotFoundError" in fails(folder, python, "-c", shown)
    return size
