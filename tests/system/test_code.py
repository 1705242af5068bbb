"""
Tests for `kvd.system.code`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kvd.errors import ChangeImpossible
from kvd.system import code


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_text("other"),
        lambda path: os.utime(path, ns=(5, 5)),
        lambda path: path.unlink(),
        lambda path: path.with_name("new.py").touch(),
        lambda path: path.with_name("new.abi3.so").touch(),
    ],
)
def test_a_change_is_noticed(change: Callable[[Path], None], tmp_path: Path) -> None:
    """
    Whatever it is.
    """
    package = tmp_path / "package"
    (package / "deep").mkdir(parents=True)
    module = package / "deep" / "module.py"
    module.write_text("text")
    before = code.fingerprint(str(package))
    change(module)

    assert before != code.fingerprint(str(package))


def test_what_is_no_code_does_not_count(tmp_path: Path) -> None:
    """
    Such as what Python compiles, at any time.
    """
    before = code.fingerprint(str(tmp_path))
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "module.pyc").touch()

    assert before == code.fingerprint(str(tmp_path))


def test_replaced_code_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The sentence says what to do.
    """
    code.check_code()
    monkeypatch.setattr(code, "LOADED", "other")
    with pytest.raises(ChangeImpossible, match="kvd upgrade starts the new code"):
        code.check_code()
