"""
Tests of `tests.first_pip`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import first_pip

PROGRAM = first_pip.__file__


@pytest.fixture
def python(tmp_path: Path) -> str:
    """
    A Python of its own, without pip.
    """
    folder = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return str(folder / "bin" / "python")


def printed(*command: str, path: str = "") -> str:
    """
    What a program prints, with this PYTHONPATH and no other.
    """
    return subprocess.run(
        command, env={"PYTHONPATH": path}, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def test_the_pip_of_python_runs_where_it_is(python: str) -> None:
    """
    It need not be installed before it installs another.
    """
    archive = printed(python, PROGRAM).strip()

    assert archive in printed(python, "-m", "pip", "--version", path=archive)


def test_an_installed_one_is_used() -> None:
    """
    The other would not see it, and install a second one over it.
    """
    assert "\n" == printed(sys.executable, PROGRAM)


def test_without_an_archive_it_is_installed(python: str, tmp_path: Path) -> None:
    """
    As Python does it itself.
    """
    (tmp_path / "ensurepip.py").write_text(
        "import sys\n"
        "if __name__ == '__main__':\n"
        "    print('installed', file=open(sys.argv[0] + '.said', 'w'))\n"
    )
    program = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
        " from tests.first_pip import first_pip; print(first_pip([Path(sys.argv[2])]))"
    )
    root = str(Path(PROGRAM).parent.parent)

    assert "\n" == printed(
        python, "-c", program, root, str(tmp_path), path=str(tmp_path)
    )
    assert "installed\n" == (tmp_path / "ensurepip.py.said").read_text()


def test_a_python_without_any_is_told_in_a_sentence(tmp_path: Path) -> None:
    """
    Debian has it in a package of its own.
    """
    (tmp_path / "ensurepip.py").write_text("raise ModuleNotFoundError")
    ended = subprocess.run(
        [sys.executable, PROGRAM],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )

    assert 1 == ended.returncode
    [line] = ended.stderr.splitlines()
    assert "has no ensurepip" in line
    assert "apt-get install python3-venv" in line
