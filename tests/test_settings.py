"""
Settings: the defaults, and the sample file that shows them.
"""

from __future__ import annotations

import dataclasses
import re
import tempfile
from pathlib import Path

import pytest
from twisted.trial.unittest import SynchronousTestCase

from kvd.options import Options
from kvd.options.choices import CHOICES
from kvd.options.settings_file import read_file
from kvd.settings import Limits, Settings, StoreLocation
from tests.declared import declare_doubles

SAMPLE = Path(__file__).parent.parent / "etc" / "kvd.toml"

# In the sample, "#name" and "#[table]" are settings; "# Text" is prose.
COMMENTED_SETTING = re.compile(r"^#(?=\S)", re.MULTILINE)


def test_settings_cannot_be_changed() -> None:
    """
    After the checks at the start they stay the same, in every process.
    """
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().procs = 2  # type: ignore[misc]


def test_equal_settings_are_equal() -> None:
    """
    Settings are values: equal content means equal.
    """
    assert Settings(limits=Limits(connections=5)) == Settings(
        limits=Limits(connections=5)
    )
    assert "file:/srv/values" == str(StoreLocation("file", "/srv/values"))


class SampleTests(SynchronousTestCase):
    """
    ``etc/kvd.toml`` shows every setting at its default.
    """

    def setUp(self) -> None:
        declare_doubles(self)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.uncommented = Path(folder.name) / "kvd.toml"
        text = SAMPLE.read_text(encoding="utf-8")
        self.uncommented.write_text(COMMENTED_SETTING.sub("", text), encoding="utf-8")

    def settings(self, *words: str) -> Settings:
        """
        The settings of a command line.
        """
        options = Options()
        options.parseOptions(words)
        return options.settings

    def test_the_sample_as_it_is_changes_nothing(self) -> None:
        """
        A copy of it gives the defaults.
        """
        assert self.settings() == self.settings("--config", str(SAMPLE))

    def test_the_sample_shows_the_defaults(self) -> None:
        """
        With every setting uncommented it gives the same settings.
        """
        assert self.settings() == self.settings("--config", str(self.uncommented))

    def test_the_sample_shows_every_setting(self) -> None:
        """
        Operators need to look nowhere else.
        """
        names = {choice.name for choice in CHOICES}

        assert names == set(read_file(str(self.uncommented)))
