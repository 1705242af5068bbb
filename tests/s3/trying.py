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
        The status of kvd; 0 if it was to end.
    """
    # As ^C: what was started has to end too.
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="kvd-engine-") as folder:
        # What is started hears of ^C from here, in order: kvd finishes its requests
        # while the engine serves.
        engine = SeaweedFS(Path(folder), NODES, apart=True)
        interrupted = False
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
                process_group=0,
            )
            while (status := _status_of(kvd)) is None:
                interrupted = True
                kvd.terminate()
        except KeyboardInterrupt:
            # While the nodes started.
            interrupted, status = True, 0
        finally:
            engine.stop()
    if interrupted:
        print("kvd and the nodes have ended, and their folder is removed", flush=True)
        return 0
    return status if status >= 0 else 128 - status


def _status_of(kvd: subprocess.Popen[bytes]) -> int | None:
    """
    The status of kvd when it has ended; None: this process is to end before.
    """
    try:
        return kvd.wait()
    except KeyboardInterrupt:
        return None


if __name__ == "__main__":
    sys.exit(main())
