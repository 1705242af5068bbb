"""
kvd's name in the package index is ``txkvd``: ``kvd`` there is a stranger's.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent

# "pip install kvd", "pip install -U 'kvd[plot]>=1"; not "/opt/kvd/bin/pip install .".
INSTALLS_A_STRANGER = re.compile(
    r"pip3? install(?:\s+-\S+)*\s+['\"]?kvd(?![\w./-])", re.IGNORECASE
)


IMPORTED = re.compile(r"^\s*(?:import|from) ([a-zA-Z]\w*)", re.MULTILINE)


def required_by(project: dict[str, Any]) -> set[str]:
    """
    The names of all packages that a project requires, for whatever use.
    """
    extras = project.get("optional-dependencies", {}).values()
    required = [*project["dependencies"], *(name for extra in extras for name in extra)]
    names = (re.split(r"[\s\[<>=!~;]", requirement)[0] for requirement in required)
    return {re.sub(r"[-_.]", "-", name).lower() for name in names}


def published() -> Iterator[Path]:
    """
    Whatever a user reads, copies or is printed.
    """
    yield from ROOT.glob("*.rst")
    yield ROOT / "Makefile"
    for folder in "bench", "docs", "etc", "examples", "kvd", "twisted":
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".html", ".j2", ".py", ".rst", ".service", ".toml"}:
                yield path


@pytest.mark.parametrize(
    "command",
    ["pip install kvd", "pip install 'kvd[plot]'", "pip install -U kvd==0.1.0"],
)
def test_a_strangers_package_is_noticed(command: str) -> None:
    """
    By the expression that the next test relies on.
    """
    assert INSTALLS_A_STRANGER.search(command)


def test_no_document_installs_a_strangers_package() -> None:
    """
    Neither by the documents nor by what kvd prints.
    """
    named = {
        str(path.relative_to(ROOT)): found[0]
        for path in published()
        if (found := INSTALLS_A_STRANGER.search(path.read_text(encoding="utf-8")))
    }

    assert {} == named


@pytest.mark.parametrize(
    "folder", [".", "tests/integration/policy_package"], ids=["kvd", "policies"]
)
def test_no_package_requires_a_strangers(folder: str) -> None:
    """
    pip would install it, and run its code.
    """
    text = (ROOT / folder / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]

    assert "kvd" not in required_by(project) | {project["name"]}


def test_each_package_that_is_imported_is_required() -> None:
    """
    By kvd itself, not only by something that it requires.
    """
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    required = required_by(project) | {project["name"]}
    installed = packages_distributions()
    missing = {}
    for folder in "bench", "kvd", "tests", "twisted":
        for path in (ROOT / folder).rglob("*.py"):
            for module in IMPORTED.findall(path.read_text(encoding="utf-8")):
                packages = {
                    re.sub(r"[-_.]", "-", name).lower()
                    for name in installed.get(module, ())
                }
                if packages and packages.isdisjoint(required):
                    missing[module] = str(path.relative_to(ROOT))

    assert {} == missing


def test_the_policy_of_the_documents_requires_no_strangers_package() -> None:
    """
    ``docs/policies.rst`` shows a package that depends on kvd.
    """
    text = (ROOT / "docs" / "policies.rst").read_text(encoding="utf-8")

    assert re.findall(r"dependencies = (\[.*\])", text) == ['["txkvd"]']
