"""
kvd with the dialects of clients, and what each client could use instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.building import Programs, find
from bench.loads import Running
from bench.servers import Nginx, serving
from kvd.lab.measuring.processes import tree, unused_port

DAV_MODULE: Final = Path("/usr/lib/nginx/modules/ngx_http_dav_ext_module.so")


@dataclass(frozen=True)
class NginxWebdav(Nginx):
    """
    nginx with the module that adds PROPFIND, as rclone needs it.
    """

    def before(self) -> str:
        return f"load_module {DAV_MODULE};"

    def methods(self) -> str:
        return "dav_methods PUT DELETE MKCOL COPY MOVE; dav_ext_methods PROPFIND;"


@dataclass(frozen=True)
class RcloneRestic:
    """
    ``rclone serve restic``, which keeps repositories in a folder.
    """

    @contextmanager
    def start(self, programs: Programs, folder: Path) -> Iterator[Running]:
        port = unused_port()
        command = [
            str(find("rclone", "rclone")), "serve", "restic", "--config=",
            f"--addr=127.0.0.1:{port}", f"{folder}/values",
        ]  # fmt: skip
        with serving(command, folder, port) as process:
            yield Running(port, tree(process.pid), folder)
