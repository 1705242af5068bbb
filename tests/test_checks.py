"""
What ``make test`` runs, and with what.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.measuring import REACHED_ELSEWHERE, measured

ROOT = Path(__file__).parent.parent


def test_no_mark_hides_a_test() -> None:
    """
    Those of the real daemon are looked for in some places only.
    """
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    named = re.search(r"^INTEGRATION := (.*)$", makefile, re.M)
    assert named
    folders = [ROOT / name for name in named[1].split()]
    marked = [
        path
        for path in (ROOT / "tests").rglob("test_*.py")
        if re.search(r"mark\.integration\b", path.read_text("utf-8"))
        and path != Path(__file__)
    ]

    assert [folder for folder in folders if not folder.exists()] == []
    assert marked
    assert [
        str(path)
        for path in marked
        if not any(path.is_relative_to(folder) for folder in folders)
    ] == []


_TRACED_WHEN_IMPORTED: Final = sys.gettrace() is not None


@pytest.fixture
def traced_when_made() -> bool:
    """
    Whether this fixture was traced.
    """
    return sys.gettrace() is not None


def test_all_else_is_traced_where_coverage_is_measured(
    request: pytest.FixtureRequest,
) -> None:
    """
    While its file is imported, while its fixtures are made, and while it runs.
    """
    traced_when_made = request.getfixturevalue("traced_when_made")
    traced_when_run = sys.gettrace() is not None
    is_measured = measured() is not None

    assert (is_measured, is_measured, is_measured) == (
        _TRACED_WHEN_IMPORTED,
        traced_when_made,
        traced_when_run,
    )


@pytest.mark.untraced
def test_what_is_marked_is_not_traced() -> None:
    """
    Coverage would make it several times slower.
    """
    assert sys.gettrace() is None


@pytest.mark.parametrize("name", sorted(REACHED_ELSEWHERE))
def test_what_is_reached_elsewhere_exists(name: str) -> None:
    """
    Under another name, it would be measured again.
    """
    file, *cases = name.split("::")
    text = (ROOT / file).read_text(encoding="utf-8")

    assert all(re.search(rf"^class {case}\b", text, re.M) for case in cases)


def test_hypothesis_never_repeats_one_list_of_examples() -> None:
    """
    As it would in builds, unless a test says how it explores.
    """
    careless = [
        str(path)
        for path in (ROOT / "tests").rglob("test_*.py")
        for given in re.finditer(r"^(.*)\n *@given\(", path.read_text("utf-8"), re.M)
        if not given[1].strip().startswith("@exploring(")
    ]

    assert [] == careless


def test_no_test_takes_the_descriptor_of_another() -> None:
    """
    `os.dup2` closes whatever has the number, and what owned it closes the number again,
    later, when it is that of some other test. `F_DUPFD` takes one that is free.
    """
    careless = [
        f"{path}: {call[0]}"
        for path in (ROOT / "tests").rglob("test_*.py")
        for call in re.finditer(r"os\.dup2\(.*\)$", path.read_text("utf-8"), re.M)
        if not call[0].endswith(".fileno())")
    ]

    assert [] == careless
