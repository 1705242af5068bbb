"""
Finds policies, stores and dialects through Twisted's plugin system, and loads them.

A declaration (in ``twisted/plugins/``, of kvd or of another package) holds a name, a
description, and the dotted name of the code as text. So a listing imports none of the
code, and a broken plugin fails only when it is loaded (compare
``twisted.application.reactors``).
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from twisted.logger import globalLogBeginner
from twisted.plugin import IPlugin, getPlugins
from twisted.python import log
from twisted.python.reflect import namedAny
from zope.interface import Attribute, implementer

from kvd.errors import BrokenPlugin, UnknownPlugin


class IDeclaration(IPlugin):
    """
    A plugin that can be chosen by name.
    """

    name: str = Attribute("The name that the operator writes: lower case, no blanks.")
    description: str = Attribute("One sentence for ``--help``.")
    code: str = Attribute("The dotted name of the object that is loaded.")


class IPolicyDeclaration(IDeclaration):
    """
    Declares a `kvd.interfaces.IDispatchPolicy`.
    """


class IStoreDeclaration(IDeclaration):
    """
    Declares a `kvd.interfaces.IStoreMaker`; the name is the scheme.
    """


class IDialectDeclaration(IDeclaration):
    """
    Declares a `kvd.interfaces.IDialect`.
    """


class _Declaration:
    """
    A name, a description, and the dotted name of an object.
    """

    def __init__(self, name: str, description: str, code: str) -> None:
        self.name = name
        self.description = description
        self.code = code


@implementer(IPolicyDeclaration)
class Policy(_Declaration):
    """
    Declares a dispatch policy.
    """


@implementer(IStoreDeclaration)
class Store(_Declaration):
    """
    Declares a store.
    """


@implementer(IDialectDeclaration)
class Dialect(_Declaration):
    """
    Declares a dialect.
    """


# The word for each kind, and the interface that its code must provide: as text too,
# since most callers ask for names and never load anything.
_KINDS: dict[type[IDeclaration], tuple[str, str]] = {
    IPolicyDeclaration: ("policy", "kvd.interfaces.IDispatchPolicy"),
    IStoreDeclaration: ("store", "kvd.interfaces.IStoreMaker"),
    IDialectDeclaration: ("dialect", "kvd.interfaces.IDialect"),
}


def declared(kind: type[IDeclaration]) -> dict[str, IDeclaration]:
    """
    All declarations of a kind by name, in the order of their names. Imports none of
    their code.
    """
    found = sorted(_search(kind), key=lambda declaration: declaration.name)
    return {declaration.name: declaration for declaration in found}


def _search(kind: type[IDeclaration]) -> list[IDeclaration]:
    # An event without a text is not written. A traceback is: a plugin module that
    # cannot be loaded has a bug.
    found: list[IDeclaration] = log.callWithContext(
        {"log_format": ""}, lambda: list(getPlugins(kind))
    )
    return found


_found: dict[tuple[type[IDeclaration], str], IDeclaration] = {}


def find(kind: type[IDeclaration], name: str) -> IDeclaration | None:
    """
    The declaration of a name, if there is one. Imports none of its code.

    A name that this process has found is not searched for again: a search looks at all
    installed plugins, for 1 to 2 ms, and a start needs five names. An unknown name is
    searched for again, since a package may have been installed meanwhile.
    """
    if (kind, name) not in _found:
        for declaration in _search(IDeclaration):
            for each in _KINDS:
                if each.providedBy(declaration):
                    _found[each, declaration.name] = declaration
    return _found.get((kind, name))


def load(kind: type[IDeclaration], name: str) -> Any:
    """
    Load the object that a name stands for.

    Raises:
        UnknownPlugin: No such name is declared; the sentence has the known names and
            the closest one.
        BrokenPlugin: The code cannot be imported, or does not provide the interface of
            its kind.
    """
    word, contract = _KINDS[kind]
    declaration = find(kind, name)
    if declaration is None:
        known = declared(kind)
        closest = get_close_matches(name, known, n=1)
        hint = f" Did you mean {closest[0]!r}?" if closest else ""
        raise UnknownPlugin(
            f"there is no {word} named {name!r}; known: {', '.join(known)}.{hint}"
        )
    code = declaration.code
    try:
        loaded = namedAny(code)
    except Exception as error:
        raise BrokenPlugin(
            f"the {word} {name!r} is declared as {code}, which cannot be loaded: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not namedAny(contract).providedBy(loaded):
        raise BrokenPlugin(
            f"the {word} {name!r} is declared as {code}, which does not provide"
            f" {contract}"
        )
    return loaded


_UNWRITABLE = "Unable to write to plugin cache"


def forget_unwritable_cache() -> None:
    """
    Remove Twisted's messages that it cannot write its plugin cache from the start of
    the log. They appear on every start if one user installs kvd and another runs it,
    and nothing needs to be done about them.

    If a version of Twisted keeps the early events elsewhere, the messages stay and
    nothing else is lost.
    """
    history = getattr(globalLogBeginner, "_initialBuffer", None)
    events = getattr(history, "_buffer", None)
    if events is not None:
        kept = [event for event in events if not _is_about_the_cache(event)]
        events.clear()
        events.extend(kept)


def _is_about_the_cache(event: Any) -> bool:
    return str(event.get("format", "")).startswith(_UNWRITABLE)
