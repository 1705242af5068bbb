"""
Declared doubles: what `kvd.plugins` finds while options are tested, so that
these tests depend on no store, policy or dialect of kvd.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from kvd import plugins
from kvd.errors import BadSetting
from kvd.interfaces import IDialect, IDispatchPolicy, IStore, IStoreMaker
from kvd.model.operations import Operation
from kvd.model.replies import Reply
from kvd.model.requests import Request
from kvd.model.view import View
from kvd.plugins import Dialect, Policy, Store
from kvd.settings import Durability


@implementer(IStoreMaker)
class FolderMaker:
    """
    Resolves as a store in a folder does; makes none.
    """

    def resolve(self, path: str) -> str:
        if not path:
            raise BadSetting("a folder needs a name")
        return os.path.abspath(path)

    def prepare(self, path: str) -> None:
        raise AssertionError("options open nothing")

    def open_store(self, path: str, durability: Durability) -> IStore:
        raise AssertionError("options open nothing")


@implementer(IDispatchPolicy)
class OneForAll:
    """
    One member, which everybody takes from.
    """

    kernel_chooses = True

    def group_size(self, workers: int) -> int:
        return 1

    def members_of(self, worker: int, workers: int) -> Sequence[int]:
        return [0]

    def choose(self, view: View) -> int:
        return view.ready[0]


@implementer(IDialect)
class Silent:
    """
    Understands nothing.
    """

    def understand(self, request: Request, prefix: bytes) -> Operation:
        raise AssertionError("options ask nothing")

    def render(
        self,
        reply: Reply,
        request: Request,
        operation: Operation | None,
        writing: bool,
    ) -> Reply:
        return reply


folder_maker = FolderMaker()
one_for_all = OneForAll()
silent = Silent()
wrong_kind = object()

DECLARATIONS = [
    Store("file", "Values are files.", "tests.declared.folder_maker"),
    Policy("gated", "One socket, with gates.", "tests.declared.one_for_all"),
    Policy("reuseport", "Own sockets.", "tests.declared.one_for_all"),
    Policy("shared", "One socket.", "tests.declared.one_for_all"),
    Policy("broken", "Cannot be loaded.", "tests.declared.missing"),
    Policy("mistaken", "Is no policy.", "tests.declared.wrong_kind"),
    Dialect("plain", "As the RFC has it.", "tests.declared.silent"),
    Dialect("classic", "As it was.", "tests.declared.silent"),
]


def declare_doubles(case: SynchronousTestCase) -> None:
    """
    For the length of a test, let nothing be declared but the doubles.
    """

    def get_plugins(kind: type[plugins.IDeclaration]) -> list[object]:
        return [double for double in DECLARATIONS if kind.providedBy(double)]

    case.patch(plugins, "getPlugins", get_plugins)
    case.patch(plugins, "_found", {})
