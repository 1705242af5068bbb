"""
Whether the kvd that is installed has what is compiled, and whether that works here:
``python tests/native/smoke.py``. Needs nothing but kvd itself, whatever it requires.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from kvd.native import compiled

BODY = b"value"
SECOND = 1_000_000_000
REQUEST = b"GET /key HTTP/1.1\r\nHost: kvd\r\n\r\n"


def check_splice(splice: Any) -> None:
    """
    Bytes go from a socket through a pipe into a file.
    """
    near, far = socket.socketpair()
    far.send(BODY)
    pipe_out, pipe_in = os.pipe()
    with near, far, tempfile.TemporaryFile() as target:
        moved = splice.move(
            near.fileno(), pipe_in, pipe_out, 4096, target.fileno(), len(BODY), 0
        )
        assert len(BODY) == moved
        assert os.pread(target.fileno(), 100, 0) == BODY
    os.close(pipe_in)
    os.close(pipe_out)


def make_fast_path(
    kind: Any,
    root: int,
    lock: int,
    counts: object,
    make_template: Callable[[Any], object],
    make_parts: Callable[[Any, Any], object],
    logs_in: Callable[[Any], object] = bool,
) -> Any:
    """
    A fast path with no limits and no threads, of a store that has only its folder.

    Args:
        kind: The compiled class.
        root: The folder of values.
        lock: The file of locks, which only writers need.
        counts: What counts for it.
        make_template: Answers what to do with a head.
        make_parts: Answers how a reply is put together.
        logs_in: Answers whether a client with a password is served.
    """
    return kind(
        root=root,
        lock=lock,
        exchanges=False,
        finds_unwritten=False,
        most_recent=10,
        kept=None,
        has_epochs=False,
        sync_threads=-1,
        usage=None,
        keeping=(10, 10, 10, 10, b"%"),
        dates=(2, 2**33),
        metadata_fields=b"",
        message=(9000, 9),
        min_free=0,
        folder_mode=0o755,
        flags=(os.O_RDONLY, os.O_WRONLY | os.O_CREAT, os.O_WRONLY | os.O_TMPFILE),
        head_bytes=9000,
        target_bytes=9000,
        plain=b"key",
        sending=(9000, 9000, 0, 0, 0),
        report=tuple_of,
        remainder=tuple_of,
        partial=tuple_of,
        counts=counts,
        make_template=make_template,
        make_parts=make_parts,
        logs_in=logs_in,
        prune=print,
        clock=time.monotonic,
        has_hits=False,
        guesses=False,
    )


def check_fast_path(fast_path: Any) -> None:
    """
    A GET is answered from the file, and reported; a file of others is left.
    """
    with tempfile.TemporaryDirectory() as path:
        file = os.path.join(path, "key")
        with open(file, "wb") as value:
            value.write(BODY)
        os.utime(file, (SECOND, SECOND))
        root = os.open(path, os.O_RDONLY)
        missing = b"HTTP/1.1 404 Not Found\r\nDate: ", b"\r\nLength: ", b"", b""
        template = fast_path.get_template(
            *(7, False, True, True, (200,) * 16),
            *(b"\r\nConnection: keep-alive\r\n\r\n", missing),
        )
        first, rest = b"HTTP/1.1 200 OK\r\nDate: ", (b"\r\nID: ", b"\r\nOf: ")
        parts = (
            (first, *rest, b"\r\nLength: ", b""),
            (first, *rest, b"\r\nPart: ", b"-", b"/", b"\r\nLength: ", b""),
            (first, *rest, b""),
        )
        row = memoryview(bytearray(128)).cast("Q")
        served = make_fast_path(
            fast_path.FastPath,
            root,
            root,
            fast_path.RequestCounts(row, tuple(range(7)), b"\2" * 1000, (0,), 0, 7),
            lambda head: template,
            lambda lines, ending: parts,
        )
        served.report_to(True, False, lambda are_many: None)
        near, far = socket.socketpair()
        with near, far:
            far.send(REQUEST)
            assert REQUEST == served.serve(near.fileno())
            line = f"2 {'0' * 32} {len(BODY)} {SECOND}.000000\n"
            os.setxattr(file, "user.kvd", line.encode())
            for _ in range(1000):
                far.send(REQUEST)
                assert fast_path.SERVED == served.serve(near.fileno())
                reply = far.recv(1000)
            assert reply.endswith(b"\r\nConnection: keep-alive\r\n\r\n" + BODY), reply
            reports, _ = served.take_reports()
            assert ("GET", "/key", 200, len(BODY)) == reports[-1][5:9]
            assert 1000 == row[3] == row[9]
            os.unlink(file)
            far.send(REQUEST)
            assert fast_path.SERVED == served.serve(near.fileno())
            assert far.recv(1000).startswith(b"HTTP/1.1 404 ")
        os.close(root)


def check_dispatch(dispatch: Any) -> None:
    """
    A connection is accepted, and a scoreboard read.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        with socket.create_connection(listener.getsockname()):
            ((descriptor, family),) = dispatch.accept(listener.fileno(), 2, 9)
            os.close(descriptor)
    assert 2 == family
    words = memoryview(bytearray(8 * 8)).cast("Q")
    words[5], words[6], words[7] = 1, 5, 3
    assert ((1,), (2,)) == dispatch.tasks(words, 4, 1, 1, 2, 3)


def check_reactor(reactor: Any) -> None:
    """
    A turn is counted.
    """
    words = memoryview(bytearray(8 * 4)).cast("Q")
    turns = reactor.Turns(words, 0, 1, 2, (3,), 0)
    turns.woke()
    assert words[0]
    turns.waits()
    assert [0, 1] == [words[0], words[3]]


def tuple_of(*parts: object) -> tuple[object, ...]:
    """
    What is reported.
    """
    return parts


def main() -> None:
    """
    Check all of it.
    """
    splice, fast_path = compiled("_splice"), compiled("_fast_path")
    dispatch, reactor = compiled("_dispatch"), compiled("_reactor")
    if splice is None or fast_path is None or dispatch is None or reactor is None:
        sys.exit("kvd is installed without what is compiled")
    check_splice(splice)
    check_dispatch(dispatch)
    check_reactor(reactor)
    check_fast_path(fast_path)
    print(os.path.basename(fast_path.__file__ or ""), "works with", sys.version)


if __name__ == "__main__":
    main()
