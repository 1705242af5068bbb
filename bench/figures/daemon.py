"""
The steps that several figures share: reading a daemon's memory, requests, and output.
"""

from __future__ import annotations

import re
import socket
from pathlib import Path

from kvd.lab.measuring.processes import tree


def workers(pid: int) -> list[int]:
    """
    The worker processes of a daemon, which have no children.
    """
    return [p for p in tree(pid) if len(tree(p)) == 1]


def memory_mib(pid: int, field: str = "Rss") -> float:
    """
    Memory of a process, as a field of smaps_rollup.
    """
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    matched = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
    assert matched
    return int(matched[1]) / 1024


def forget_peak(pid: int) -> None:
    """
    Reset the peak of a process's memory (proc(5)).
    """
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_mib(pid: int) -> float:
    """
    The peak of a process's memory.
    """
    matched = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert matched
    return int(matched[1]) / 1024


def connect(port: int) -> socket.socket:
    """
    A connection to a daemon.
    """
    return socket.create_connection(("127.0.0.1", port))


def ask(sock: socket.socket, target: str, *fields: str) -> None:
    """
    Send a GET.
    """
    lines = [f"GET {target} HTTP/1.1", "Host: localhost", *fields, "", ""]
    sock.sendall("\r\n".join(lines).encode())


def store_small(port: int, target: str) -> None:
    """
    Put a value of 4 KiB.
    """
    with connect(port) as sock:
        head = (
            f"PUT {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4096\r\n\r\n"
        )
        sock.sendall(head.encode() + bytes(4096))
        reply = sock.recv(1000)
        assert reply.split()[1] in (b"201", b"204"), reply


def show(what: str, value: float, unit: str, limit: float | None = None) -> None:
    """
    Print a figure beside its limit.
    """
    line = f"{what}: {value:.3g} {unit}"
    if limit is not None:
        missed = "" if value <= limit else "  MISSED"
        line += f" (at most {limit:g}){missed}"
    print(line, flush=True)
