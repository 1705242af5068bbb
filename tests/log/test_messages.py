"""
``docs/operating.rst`` says what to do for each message that asks for attention.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Final

import kvd

SOURCES: Final = Path(kvd.__file__).parent
DOCUMENT: Final = SOURCES.parent / "docs" / "operating.rst"
LEVELS: Final = {"warn", "error", "critical", "failure"}


@cache
def logged() -> list[tuple[str, str]]:
    """
    Every format that is logged with one of these levels, and where.
    """
    found: list[tuple[str, str]] = []
    for path in sorted(SOURCES.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=logger, attr=level), args=[first, *_]
                ) if level in LEVELS and "log" in ast.unparse(logger).lower():
                    where = f"{path.relative_to(SOURCES)}:{node.lineno}"
                    assert isinstance(first, ast.Constant), f"{where}: no constant"
                    text = re.sub(r"\{[^}]*\}", "...", str(first.value))
                    found.append((text, where))
    return found


def documented() -> set[str]:
    """
    All messages of the tables.
    """
    text = DOCUMENT.read_text(encoding="utf-8").partition("\nLog messages\n")[2]
    cells = re.findall(r"^   \* - (.*?)^     - ", text, re.MULTILINE | re.DOTALL)
    assert cells
    lines = [line for cell in cells for line in re.split(r"(?m)^ *\| ", cell) if line]
    return {" ".join(re.sub(r"\\(.)", r"\1", line).split()) for line in lines}


def test_every_warning_says_what_to_do() -> None:
    """
    In the document for operators.
    """
    known = documented()
    missing = {where: text for text, where in logged() if text not in known}

    assert {} == missing, "without an entry in docs/operating.rst"


def test_every_entry_is_of_a_message_that_there_is() -> None:
    """
    An operator searches the document for what the log says.
    """
    texts = {text for text, _ in logged()}

    assert set() == documented() - texts, "no message of kvd is like this"
