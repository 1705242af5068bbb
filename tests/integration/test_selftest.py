"""
``kvd selftest``.
"""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from tests.integration.commands import start_kvd
from tests.patience import PATIENCE_SECONDS

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_one_leaves_no_keys(tmp_path: Path, number: int) -> None:
    """
    Whatever it was doing. The status says what ended it, as shells expect.
    """
    seed = random.randrange(1 << 32)
    print(f"{seed=}")
    store = tmp_path / "values"
    run = start_kvd(["selftest", f"--store=file:{store}", "--rounds=1000"], tmp_path)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not list(store.glob("kvd-selftest-*")) and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(random.Random(seed).uniform(0, 0.5))
    run.send_signal(number)
    _, errors = run.communicate(timeout=PATIENCE_SECONDS)
    assert (128 + number, b"") == (run.returncode, errors)
    assert [] == list(store.glob("kvd-selftest-*"))
    assert [] == list(store.glob(".kvd/*/*"))
