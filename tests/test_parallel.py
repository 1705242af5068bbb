"""
`tests.parallel`, which runs all tests.
"""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.parallel import NOTHING, Ranges

ROOT = Path(__file__).parent.parent

TESTS = """
import os, signal, time, warnings
import pytest
from tests.parallel import shared_folder

@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    yield tmp_path_factory.mktemp("shared")
    assert os.path.exists("torn")

@pytest.mark.parametrize("number", range(20))
def test_passes(number, shared, tmp_path_factory):
    open("torn", "w").close()
    own = tmp_path_factory.getbasetemp()
    assert own.parent == shared_folder(tmp_path_factory) != own

def test_fails():
    print("what it printed")
    assert 1 == 2

def test_ends_its_process():
    os.kill(os.getpid(), signal.SIGKILL)

def test_hangs():
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass

def test_is_skipped():
    pytest.skip("as it says")

def test_warns():
    warnings.warn("carefully")

def test_deselected():
    assert False
"""


def run(folder: Path, *options: str) -> tuple[int, str]:
    """
    The status of pytest, and what it prints.
    """
    (folder / "test_these.py").write_text(TESTS, encoding="utf-8")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "tests.parallel", "--processes=2"),
            *("-c/dev/null", f"--rootdir={folder}", "-pno:cacheprovider", "-ra"),
            # Or it looks at whatever lies beside it in /tmp, and above.
            f"--confcutdir={folder}",
            *(f"--basetemp={folder / 'temporary'}", *options, str(folder)),
        ],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


def test_each_result_is_reported(tmp_path: Path) -> None:
    """
    As one process reports it, and that a process ended, too.
    """
    status, said = run(tmp_path, "-kpasses or fails or ends or skipped or warns")

    assert status == 1, said
    assert "what it printed" in said
    assert "the process that ran this test ended with SIGKILL" in said
    assert "as it says" in said
    assert "UserWarning: carefully" in said
    assert re.search(
        "2 failed, 21 passed, 1 skipped, 2 deselected, 1 warning",
        said,
    ), said


def test_one_that_never_ends_is_ended(tmp_path: Path) -> None:
    """
    Whatever is raised in it.
    """
    status, said = run(tmp_path, "-khangs", "--hung-seconds=1")

    assert status == 1, said
    assert "this test ended with status 1, as it does after 1 s of one test" in said
    assert "1 failed" in said


def test_tests_end_with_the_first_that_fails(tmp_path: Path) -> None:
    """
    With ``-x``, as in one process, but for what the other process runs then.
    """
    status, said = run(tmp_path, "-x", "-kfails or deselected")

    assert status == 1, said
    assert re.search("stopping after [12] failures", said), said


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_each_test_is_taken_once(processes: int) -> None:
    """
    Whoever is slow.
    """
    with closing(Ranges(10, processes)) as ranges:
        taken = [ranges.take(0) for _ in range(10)]

        assert list(range(10)) == sorted(taken)
        assert {NOTHING} == {ranges.take(place) for place in range(processes)}


def test_what_is_next_may_be_taken() -> None:
    """
    By a process that has nothing left.
    """
    with closing(Ranges(3, 2)) as ranges:
        assert (0, 1) == (ranges.take(0), ranges.take(1))
        assert (NOTHING, 2) == (ranges.peek(0), ranges.peek(1))
        assert 2 == ranges.take(0)
        assert (NOTHING, NOTHING) == (ranges.peek(1), ranges.take(1))
