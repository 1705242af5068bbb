"""
Tests for `kvd.http.fast_path`: where there are none.
"""

from __future__ import annotations

import importlib.util
import sys
from unittest import mock

from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from kvd.daemon.announcing import announce
from kvd.http import fast_path
from kvd.http.context import ProcessContext
from kvd.http.dialects.choice import Dialects
from kvd.http.fast_path import is_compiled
from kvd.http.templates import fast_path_to
from kvd.interfaces import IStore
from kvd.settings import DialectChoice, Limits, Settings
from kvd.store.null import NullStore
from kvd.testing import MemoryStore
from tests.store.cases import FileStoreCase

SENTENCE = "there is no fast path"


class MissingTests(FileStoreCase):
    """
    kvd is whole without them.
    """

    def process(self, store: IStore, *dialects: DialectChoice) -> ProcessContext:
        """
        What a worker would have.
        """
        return ProcessContext(store, Dialects(dialects), Limits(), Clock())

    def said(self, settings: Settings) -> int:
        """
        How often it is said at the start that there are none.
        """
        with capturedLogs() as events:
            announce(settings, [])
        return sum(SENTENCE in event["log_format"] for event in events)

    def test_they_are_for_the_file_store(self) -> None:
        """
        Others have no files.
        """
        assert None is fast_path_to(self.process(MemoryStore()))
        assert None is fast_path_to(self.process(NullStore()))
        assert None is not fast_path_to(self.process(self.open_store()))

    def test_they_are_for_the_plain_dialect(self) -> None:
        """
        Where no key is plain, there is nothing to do.
        """
        store = self.open_store()
        classic, plain = DialectChoice("/", "classic"), DialectChoice("/p/", "plain")
        assert None is fast_path_to(self.process(store, classic))
        assert None is not fast_path_to(self.process(store, classic, plain))

    def test_without_a_compiler_there_are_none(self) -> None:
        """
        That is no error, and is said once at the start, if they were wanted.
        """
        with mock.patch.dict(sys.modules, {"kvd.native._fast_path": None}):
            path = fast_path.__file__
            spec = importlib.util.spec_from_file_location("kvd.without", path)
            assert spec is not None
            assert spec.loader is not None
            without = importlib.util.module_from_spec(spec)
            with mock.patch.dict(sys.modules, {"kvd.without": without}):
                spec.loader.exec_module(without)

        assert not without.is_compiled()
        with mock.patch("kvd.http.templates.native", without.native):
            assert None is fast_path_to(self.process(self.open_store()))
        with mock.patch("kvd.daemon.announcing.is_compiled", without.is_compiled):
            assert 1 == self.said(Settings())
            assert 0 == self.said(Settings(fast_path=False))

    def test_with_one_there_are(self) -> None:
        """
        And nothing is said.
        """
        assert is_compiled()
        assert 0 == self.said(Settings())
