"""
litmus against the true daemon, and locks that clients want at the same time. ``make
test-clients`` runs rclone, cadaver and davfs2 too.
"""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.webdav import daemon, litmus
from tests.integration.http import ask
from tests.integration.twistd import Twistd

pytestmark = pytest.mark.integration

CLIENTS = 6
ROUNDS = 5
LOCK = (
    b'<lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope>'
    b"<locktype><write/></locktype></lockinfo>"
)


@pytest.fixture(scope="module")
def twistd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twistd]:
    """
    Two workers that take connections in turn.
    """
    with daemon(tmp_path_factory.mktemp("webdav")) as twistd:
        yield twistd


def test_litmus_passes(twistd: Twistd, tmp_path: Path) -> None:
    """
    Whole.
    """
    litmus(tmp_path, f"127.0.0.1:{twistd.port}")


def test_of_locks_at_the_same_time_one_is_granted(twistd: Twistd) -> None:
    """
    Whichever worker is asked: on a collection, or on a value in it.
    """
    assert 201 == ask(twistd.port, "MKCOL", "/dav/race/").status
    assert 201 == ask(twistd.port, "PUT", "/dav/race/value", b"value").status
    for _ in range(ROUNDS):
        begin = threading.Barrier(CLIENTS)
        granted: list[tuple[str, str]] = []
        others: list[int] = []

        def lock(
            path: str,
            begin: threading.Barrier = begin,
            granted: list[tuple[str, str]] = granted,
            others: list[int] = others,
        ) -> None:
            begin.wait()
            reply = ask(twistd.port, "LOCK", path, LOCK)
            if reply.status == 200:
                granted.append((path, reply.fields["lock-token"]))
            else:
                others.append(reply.status)

        paths = ["/dav/race/", "/dav/race/value"] * (CLIENTS // 2)
        threads = [threading.Thread(target=lock, args=[path]) for path in paths]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert 1 == len(granted), (granted, others)
        assert {207, 423} >= set(others)
        ((path, token),) = granted
        unlock = {"Lock-Token": token}
        assert 204 == ask(twistd.port, "UNLOCK", path, b"", unlock).status
