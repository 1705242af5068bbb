"""
Tests for what is said of a comparison that fails.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.exploring import exploring
from tests.http.fast_path.both import Outcome
from tests.http.fast_path.replaying import Replays


def outcome(reply: bytes) -> tuple[Outcome, Any]:
    """
    One of a worker that has sent this.
    """
    nothing: Any = {}
    return Outcome([b"same", reply], [], nothing, [], [], [], nothing, []), []


def test_a_failure_can_be_repeated(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    By what it prints, also of an example that is found no more.
    """
    compared: list[tuple[Any, ...]] = []
    steps = [partial(max, 1), partial(max, b"a" * 70_000)]
    replays = Replays("this_test")
    assert not replays.run(lambda: None)
    for _ in range(2):
        with pytest.raises(AssertionError, match=r"replies\[1\]: with the fast path"):
            replays.same([outcome(b"one"), outcome(b"two")], steps, True)
    replays.same([outcome(b"one"), outcome(b"one")], steps, False)

    @exploring()
    @given(st.none(), st.none())
    def compare(steps: Any, secure: Any) -> None:
        compared.append((steps, secure))

    printed = capsys.readouterr().out
    assert 1 == printed.count("The two ways differ")
    assert "replies[1]: with the fast path b'one', without it b'two'" in printed
    assert "replies[0]" not in printed
    (command,) = re.findall(r"(?m)^KVD_REPLAY=(\S+) pytest -k this_test$", printed)
    assert len(command) < 1000
    monkeypatch.setenv("KVD_REPLAY", command)
    assert not Replays("another").run(compare)
    assert Replays("this_test").run(compare)
    ((again, secure),) = compared
    assert secure
    assert [step.args for step in steps] == [step.args for step in again]
