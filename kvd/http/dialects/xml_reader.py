"""
Reads the XML that clients send.

A document with a document type is refused before anything in it is read, so there are
no entities to expand. The wire has bounded its length; its depth is bounded here.
"""

from __future__ import annotations

from typing import Final
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from kvd.errors import BadRequest

MAX_DEPTH: Final = 32


class _Reader:
    """
    Builds a tree of a document without a document type.
    """

    def __init__(self) -> None:
        self.tree = TreeBuilder()
        self._depth = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """
        An element begins.
        """
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise BadRequest(f"The XML has elements nested deeper than {MAX_DEPTH}.")
        qualified = {_qualified(key): value for key, value in attributes.items()}
        self.tree.start(_qualified(name), qualified)

    def end(self, name: str) -> None:
        """
        An element ends.
        """
        self._depth -= 1
        self.tree.end(_qualified(name))

    def refuse(self, *_: object) -> None:
        """
        A document type, or an entity, is declared.
        """
        raise BadRequest(
            "The XML declares a document type: no client needs one, and kvd reads none,"
            " because its entities can be made to grow without bound."
        )


def parse(body: bytes) -> Element:
    """
    The root of a document.

    Raises:
        BadRequest: It is not well-formed, is nested too deeply, or has a document type.
    """
    reader = _Reader()
    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.tree.data
    parser.StartDoctypeDeclHandler = reader.refuse
    parser.EntityDeclHandler = reader.refuse
    try:
        parser.Parse(body, True)
    except expat.ExpatError as error:
        raise BadRequest(f"The body is not well-formed XML: {error}.") from error
    except (LookupError, ValueError) as error:
        raise BadRequest(
            f"The XML has an encoding that kvd cannot read: {error}."
        ) from (error)
    return reader.tree.close()


def _qualified(name: str) -> str:
    return "{" + name if "}" in name else name
