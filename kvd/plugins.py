"""
What kvd finds through Twisted's plugin system, and how a name becomes code.

A declaration (in ``twisted/plugins/``, ours or another package's) holds a
name, a sentence and the place of the code as text. So listing what exists
imports none of it, and what is broken is named when somebody asks for it, not
before (compare ``twisted.application.reactors``).
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
    One thing that can be chosen by name.
    """

    name: str = Attribute("What the operator writes: lower case, no blanks.")
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
    A name, a sentence, and the dotted name of an object.
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


# What each kind is called, and what its code has to provide: as text too, since
# most who ask for names never load anything.
_KINDS: dict[type[IDeclaration], tuple[str, str]] = {
    IPolicyDeclaration: ("policy", "kvd.interfaces.IDispatchPolicy"),
    IStoreDeclaration: ("store", "kvd.interfaces.IStoreMaker"),
    IDialectDeclaration: ("dialect", "kvd.interfaces.IDialect"),
}


def declared(kind: type[IDeclaration]) -> dict[str, IDeclaration]:
    """
    All declarations of a kind by name, in the order of their names. Imports
    none of the code behind them.
    """
    # An event without a text is not written. A traceback still is: a module that cannot
    # be loaded is somebody's mistake.
    plugins = log.callWithContext({"log_format": ""}, lambda: list(getPlugins(kind)))
    found = sorted(plugins, key=lambda declaration: declaration.name)
    return {declaration.name: declaration for declaration in found}


def load(kind: type[IDeclaration], name: str) -> Any:
    """
    The object behind a name.

    Raises:
        UnknownPlugin: Nothing of the name is declared; the known names and
            the nearest one are in the sentence.
        BrokenPlugin: The declaration names something that cannot be imported,
            or that is not what it is declared to be.
    """
    known = declared(kind)
    word, contract = _KINDS[kind]
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UnknownPlugin(
            f"there is no {word} named {name!r}; known: {', '.join(known)}.{hint}"
        )
    code = known[name].code
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
    Let the log begin without Twisted's own complaints that it may not write its cache
    of plugins. That is so wherever one user installs kvd and another runs it, on every
    start, and nobody has to do anything about it.

    Nothing is lost where a Twisted keeps what was logged before the log began in
    another place: the complaints stay.
    """
    history = getattr(globalLogBeginner, "_initialBuffer", None)
    events = getattr(history, "_buffer", None)
    if events is not None:
        kept = [event for event in events if not _is_about_the_cache(event)]
        events.clear()
        events.extend(kept)


def _is_about_the_cache(event: Any) -> bool:
    return str(event.get("format", "")).startswith(_UNWRITABLE)
