"""
The file store, used by several processes at once.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import pytest
from twisted.internet.defer import execute
from twisted.internet.task import Clock

from kvd.model.conditions import UNCONDITIONAL
from kvd.store.file import FileStore
from tests.exploring import TIMES
from tests.integration.forked import ForkedProcess, fork_server
from tests.integration.store_child import KEY, LOOPS
from tests.patience import PATIENCE_SECONDS

pytestmark = pytest.mark.integration

MODULE = "tests.integration.store_child"
PROCESSES = 4


class Child:
    """
    One process that has the store open, forked by one that has loaded it.
    """

    def __init__(
        self, action: str, path: Path, times: int = 1, durability: str = "process"
    ) -> None:
        arguments = [action, str(path), durability, str(times)]
        given, giving = os.pipe()
        read, printed = os.pipe()
        streams = [given, printed, 2]
        server = fork_server(MODULE, f"from {MODULE} import main; main()")
        self.process = ForkedProcess[str](server, arguments, Path("/"), streams)
        os.close(given)
        os.close(printed)
        self.process.stdin = os.fdopen(giving, "w")
        self.process.stdout = os.fdopen(read)
        assert "ready" == self.line()

    def __enter__(self) -> "Child":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.communicate(timeout=PATIENCE_SECONDS)

    def line(self) -> str:
        """
        What it says next.
        """
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go_on(self) -> None:
        """
        Send it a line.
        """
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def result(self) -> int:
        """
        The number that it ends with.
        """
        number = self.line()
        self.process.wait(timeout=PATIENCE_SECONDS)
        return int(number)


def together(action: str, path: Path, times: int, durability: str) -> list[int]:
    """
    Several processes doing the same at the same time; what they end with.
    """
    children = [Child(action, path, times, durability) for _ in range(PROCESSES)]
    try:
        for child in children:
            child.go_on()
        return [child.result() for child in children]
    finally:
        for child in children:
            child.__exit__(None, None, None)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FileStore]:
    """
    The same store, in this process.
    """
    store = FileStore(str(tmp_path), "process", Clock(), execute)
    yield store
    store.close()


def body(store: FileStore) -> bytes:
    """
    The value of the key.
    """
    value = store.open(KEY)
    try:
        data = value.read(0, 1000)
        assert isinstance(data, bytes)
        return data
    finally:
        value.close()


def left_behind(path: Path) -> list[str]:
    """
    What is in the store's own folder but the locks.
    """
    return [
        name for name in os.listdir(path / ".kvd") if name not in ("attributes", "lock")
    ]


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_one_of_a_thousand_creates(
    tmp_path: Path, store: FileStore, durability: str
) -> None:
    """
    Of 1,000 uploads that may only create, in four processes, exactly one does.
    """
    created = together("create", tmp_path, 1000 // PROCESSES, durability)

    assert 1 == sum(created)
    assert body(store).isdigit()
    assert [] == left_behind(tmp_path)


def test_one_creates_at_the_same_moment(tmp_path: Path) -> None:
    """
    Of four processes that create one value at the same moment one does,
    however often they try.
    """
    created = together("race", tmp_path, 500, "process")

    assert 500 == sum(created)


@pytest.mark.parametrize(("durability", "times"), [("process", 100), ("disk", 10)])
def test_no_raise_of_a_counter_is_lost(
    tmp_path: Path, store: FileStore, durability: str, times: int
) -> None:
    """
    Sixteen loops in four processes raise a number by compare-and-swap; each
    raise counts once.
    """
    upload = store.begin_at_once(KEY, None)
    upload.write(b"0")
    upload.commit(UNCONDITIONAL)
    lost = together("count", tmp_path, times, durability)

    assert PROCESSES * LOOPS * times == int(body(store))
    assert sum(lost) > 0, "they never met, so nothing was tried"


@pytest.mark.explores
@pytest.mark.parametrize(("durability", "times"), [("process", 300), ("disk", 20)])
def test_folders_come_and_go(tmp_path: Path, durability: str, times: int) -> None:
    """
    Values that are published and removed in a deep folder, which is pruned
    all the time, never fail, and leave no folder.
    """
    times = round(times * TIMES)
    absent = together("churn", tmp_path, times, durability)

    assert all(number < times for number in absent)
    assert [".kvd"] == os.listdir(tmp_path)
    assert [] == left_behind(tmp_path)


def test_upload_of_a_killed_process_is_swept(tmp_path: Path) -> None:
    """
    Whoever opens the store next removes what a killed process was uploading,
    and not what a living one is; the living one goes on.
    """
    with Child("upload", tmp_path) as killed, Child("upload", tmp_path) as living:
        for child in (killed, living):
            child.go_on()
            assert "uploading" == child.line()
        killed.process.kill()
        killed.process.wait()
        assert 2 == len(left_behind(tmp_path))
        with Child("list", tmp_path) as opener:
            assert 1 == len(left_behind(tmp_path))
            opener.go_on()
            assert 0 == opener.result()

        living.go_on()
        assert 4 == living.result()
    assert [] == left_behind(tmp_path)


def test_listing_in_real_threads(tmp_path: Path) -> None:
    """
    A walk over many values is complete, read slice by slice in a thread.
    """
    for number in range(2000):
        folder = tmp_path / str(number % 7)
        folder.mkdir(exist_ok=True)
        (folder / str(number)).touch()
    with Child("list", tmp_path) as child:
        child.go_on()

        assert 2000 == child.result()
