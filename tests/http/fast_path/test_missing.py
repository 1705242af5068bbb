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
from kvd.http.dialects.choice import Dialects
from kvd.http.fast_path import are_compiled, shortcuts_to
from kvd.http.site import Site
from kvd.interfaces import IStore
from kvd.settings import DialectChoice, Limits, Settings
from kvd.store.null import NullStore
from kvd.testing import MemoryStore
from tests.store.cases import FileStoreCase

SENTENCE = "there are no shortcuts"


class MissingTests(FileStoreCase):
    """
    kvd is whole without them.
    """

    def site(self, store: IStore, *dialects: DialectChoice) -> Site:
        """
        What a worker would have.
        """
        return Site(store, Dialects(dialects), Limits(), Clock())

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
        assert None is shortcuts_to(self.site(MemoryStore()))
        assert None is shortcuts_to(self.site(NullStore()))
        assert None is not shortcuts_to(self.site(self.open_store()))

    def test_they_are_for_the_plain_dialect(self) -> None:
        """
        Alone: a prefix is nothing that they look at.
        """
        store = self.open_store()
        for choice in (DialectChoice("/old/", "classic"), DialectChoice("/", "plain")):
            assert None is shortcuts_to(self.site(store, choice))

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

        assert not without.are_compiled()
        assert None is without.shortcuts_to(self.site(self.open_store()))
        with mock.patch("kvd.daemon.announcing.are_compiled", without.are_compiled):
            assert 1 == self.said(Settings())
            assert 0 == self.said(Settings(shortcuts=False))

    def test_with_one_there_are(self) -> None:
        """
        And nothing is said.
        """
        assert are_compiled()
        assert 0 == self.said(Settings())
