"""
Says what is needed to repeat a comparison in which the two ways differed.

Hypothesis says it too, when it has found a smaller example. That can take longer than a
test may, and it cannot be found where a difference depends on the time. So the first
example is printed at once, as it was.
"""

from __future__ import annotations

import os
import pickle
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Final

from tests.http.fast_path.both import Outcome

_MOST_CHARACTERS: Final = 3000
_VARIABLE: Final = "KVD_REPLAY"


class Replays:
    """
    Those of one test.
    """

    def __init__(self, test: str) -> None:
        """
        Args:
            test: Its name.
        """
        self._test = test
        self._is_told = False

    def given(self) -> tuple[Any, ...] | None:
        """
        What the environment gives this test to be repeated, if it does.
        """
        test, _, text = os.environ.get(_VARIABLE, "").partition(":")
        if test != self._test:
            return None
        replay: tuple[Any, ...] = pickle.loads(zlib.decompress(b64decode(text)))
        return replay

    def same(self, outcomes: list[tuple[Outcome, Any]], *arguments: object) -> None:
        """
        Fail unless both outcomes are the same.

        Args:
            outcomes: Of the two ways, each with the counts behind each step.
            arguments: What led to them, which can be pickled.
        """
        if outcomes[0] == outcomes[1]:
            return
        differences = "\n".join(_differences(*outcomes))
        if not self._is_told:
            self._is_told = True
            text = b64encode(zlib.compress(pickle.dumps(arguments), 9)).decode()
            print(f"The two ways differ:\n{differences}\nOnce more, with nothing else:")
            print(f"{_VARIABLE}={self._test}:{text} pytest -k {self._test}", flush=True)
        raise AssertionError(f"the two ways differ:\n{differences}")

    def run(self, compare: Callable[..., None]) -> bool:
        """
        Compare what is to be repeated.

        Args:
            compare: A test of Hypothesis.

        Returns:
            Whether there was something.
        """
        arguments = self.given()
        if arguments is None:
            return False
        test: Any = compare
        test.hypothesis.inner_test(*arguments)
        return True


def _differences(one: tuple[Outcome, Any], other: tuple[Outcome, Any]) -> list[str]:
    found = [
        (field.name, getattr(one[0], field.name), getattr(other[0], field.name))
        for field in fields(Outcome)
    ]
    found.append(("counts behind each step", one[1], other[1]))
    return [
        f"{name}: with the fast path {_shown(a)}, without it {_shown(b)}"
        for name, a, b in _parts(found)
        if a != b
    ]


def _parts(found: list[tuple[str, Any, Any]]) -> list[tuple[str, Any, Any]]:
    """
    Of lists of one length and of dictionaries, each item for itself.
    """
    parts: list[tuple[str, Any, Any]] = []
    for name, one, other in found:
        if isinstance(one, list) and len(one) == len(other):
            pairs = enumerate(zip(one, other, strict=True))
            parts += [(f"{name}[{at}]", *pair) for at, pair in pairs]
        elif isinstance(one, dict):
            keys = [*one, *(key for key in other if key not in one)]
            parts += [(f"{name}[{k!r}]", one.get(k), other.get(k)) for k in keys]
        else:
            parts.append((name, one, other))
    return parts


def _shown(what: object) -> str:
    text = repr(what)
    if len(text) <= _MOST_CHARACTERS:
        return text
    return f"{text[:_MOST_CHARACTERS]}... ({len(text)} characters)"
