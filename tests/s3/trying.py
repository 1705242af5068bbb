"""
``make engine``: three nodes of SeaweedFS on this machine, and a kvd before them, until
^C. All that they keep is in a temporary folder, and goes with them.

Arguments are given to kvd.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.s3.memory_engine import BUCKET
from tests.s3.seaweedfs import SeaweedFS

NODES = 3


def main() -> int:
    """
    Run all of it.

    Returns:
        The status of kvd.
    """
    # As ^C: what was started has to end too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="kvd-engine-") as folder:
        engine = SeaweedFS(Path(folder), NODES)
        try:
            print(f"{NODES} nodes of SeaweedFS start in {folder}", flush=True)
            engine.start()
            store = f"s3://{BUCKET}/kvd?endpoint={','.join(engine.urls)}"
            print(f"kvd starts with --store '{store}'", flush=True)
            twistd = str(Path(sys.executable).with_name("twistd"))
            command = [twistd, "-n", "--pidfile=", "kvd", f"--store={store}"]
            kvd = subprocess.Popen(
                [*command, *sys.argv[1:]],
                cwd=folder,
                env={**os.environ, **engine.environment},
            )
            while True:
                try:
                    return kvd.wait()
                except KeyboardInterrupt:
                    # It finishes its requests, whoever else was interrupted.
                    kvd.terminate()
        except KeyboardInterrupt:
            return 130
        finally:
            engine.stop()


if __name__ == "__main__":
    sys.exit(main())
