"""
Tests of `tests.chance`.
"""

from __future__ import annotations

import pytest

from tests.chance import new_seed
from tests.new_python import run_python

PRINT_TWICE = """
import os
os.environ.pop("PYTEST_CURRENT_TEST", None)
from tests.chance import new_seed
print(new_seed() == new_seed())
"""


def test_a_program_prints_its_seed_once() -> None:
    """
    However often it needs one, and whether it was chosen or not.
    """
    seed, same = run_python(PRINT_TWICE).splitlines()

    assert seed.startswith("SEED=")
    assert "True" == same


@pytest.mark.parametrize("test", [1, 2])
def test_each_test_prints_it(test: int, capsys: pytest.CaptureFixture[str]) -> None:
    """
    It is read where a test has failed.
    """
    seeds = {new_seed(), new_seed()}

    assert {f"SEED={seed}\n" for seed in seeds} == {capsys.readouterr().out}
