"""
Tests of `kvd.plugins`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.trial.unittest import SynchronousTestCase

from kvd import plugins
from kvd.errors import BrokenPlugin, UnknownPlugin
from kvd.plugins import (
    IDialectDeclaration,
    IPolicyDeclaration,
    IStoreDeclaration,
    Policy,
    declared,
    load,
)
from tests.declared import declare_doubles, folder_maker, one_for_all
from tests.new_python import run_python

LIST_ALL = """
import sys
from kvd.plugins import *
from kvd.plugins import declared
for kind in IPolicyDeclaration, IStoreDeclaration, IDialectDeclaration:
    print(*declared(kind))
print(*sorted(name for name in sys.modules if name.startswith("kvd.")))
"""


class LoadTests(SynchronousTestCase):
    """
    A name is loaded when it is needed.
    """

    def setUp(self) -> None:
        declare_doubles(self)

    def test_each_kind_is_loaded_by_name(self) -> None:
        """
        The result is the object that the declaration names.
        """
        assert one_for_all is load(IPolicyDeclaration, "shared")
        assert folder_maker is load(IStoreDeclaration, "file")

    def test_declarations_are_in_the_order_of_their_names(self) -> None:
        """
        So help and messages always list them in the same order.
        """
        assert ["classic", "plain"] == list(declared(IDialectDeclaration))

    def test_an_unknown_name_is_answered_with_the_known(self) -> None:
        """
        Those of its kind, with the closest one if one is close.
        """
        with pytest.raises(UnknownPlugin) as caught:
            load(IDialectDeclaration, "klassic")

        assert (
            "there is no dialect named 'klassic'; known: classic, plain."
            " Did you mean 'classic'?"
        ) == caught.value.sentence

    def test_a_far_name_gets_no_suggestion(self) -> None:
        """
        A wild guess would mislead.
        """
        with pytest.raises(UnknownPlugin, match=r"known: classic, plain\.$"):
            load(IDialectDeclaration, "x")

    def test_one_search_finds_all_names(self) -> None:
        """
        Of all kinds: a start needs several, and each search looks at all that is
        installed.
        """
        load(IPolicyDeclaration, "shared")
        self.patch(plugins, "getPlugins", None)

        assert one_for_all is load(IPolicyDeclaration, "gated")
        assert folder_maker is load(IStoreDeclaration, "file")

    def test_what_is_installed_later_is_found(self) -> None:
        """
        An unknown name is searched for again.
        """
        with pytest.raises(UnknownPlugin):
            load(IPolicyDeclaration, "late")
        late = Policy("late", "One socket.", "tests.declared.one_for_all")
        self.patch(plugins, "getPlugins", lambda kind: [late])

        assert one_for_all is load(IPolicyDeclaration, "late")

    def test_what_cannot_be_loaded_is_named_with_its_error(self) -> None:
        """
        With the declared code and the error.
        """
        with pytest.raises(
            BrokenPlugin,
            match=r"'broken' is declared as tests\.declared\.missing, .*Attr",
        ):
            load(IPolicyDeclaration, "broken")

    def test_what_is_something_else_is_broken(self) -> None:
        """
        A plugin has to provide the interface of its kind.
        """
        with pytest.raises(BrokenPlugin, match=r"not provide kvd\.interfaces\.IDisp"):
            load(IPolicyDeclaration, "mistaken")


class ShippedTests(SynchronousTestCase):
    """
    kvd's own declarations.
    """

    def test_all_that_is_declared_can_be_loaded(self) -> None:
        """
        No declaration names code that does not exist.
        """
        for kind in IPolicyDeclaration, IStoreDeclaration, IDialectDeclaration:
            for name in declared(kind):
                load(kind, name)

    def test_listing_imports_none_of_the_code(self) -> None:
        """
        To list names loads only declarations.
        """
        policies, stores, dialects, modules = run_python(LIST_ALL).splitlines()

        assert {"reuseport", "shared"} <= set(policies.split())
        assert {"file", "null"} <= set(stores.split())
        assert {"classic", "plain"} <= set(dialects.split())
        assert "kvd.errors kvd.plugins" == modules


def test_another_package_can_declare_a_policy(tmp_path: Path) -> None:
    """
    A file in ``twisted/plugins`` anywhere on the path is found; if it is broken,
    loading its name shows the error, while other plugins work.
    """
    folder = tmp_path / "twisted" / "plugins"
    folder.mkdir(parents=True)
    (folder / "foreign_dropin.py").write_text(
        "from kvd.plugins import Policy\n"
        "first = Policy('first', 'Always worker 0.', 'foreign.first')\n"
        "second = Policy('second', 'Not there.', 'foreign.second')\n"
    )
    (tmp_path / "foreign.py").write_text(
        "from zope.interface import implementer\n"
        "from kvd.interfaces import IDispatchPolicy\n"
        "@implementer(IDispatchPolicy)\n"
        "class First:\n"
        "    pass\n"
        "first = First()\n"
    )

    printed = run_python(
        "from kvd.errors import BrokenPlugin\n"
        "from kvd.plugins import IPolicyDeclaration, load\n"
        "print(type(load(IPolicyDeclaration, 'first')).__name__)\n"
        "try:\n"
        "    load(IPolicyDeclaration, 'second')\n"
        "except BrokenPlugin as error:\n"
        "    print(error.sentence)\n",
        tmp_path,
    )

    first, second = printed.splitlines()
    assert "First" == first
    assert "'second' is declared as foreign.second, which cannot be loaded" in second
