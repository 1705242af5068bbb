"""
A connection on which a dialect is spoken.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element, fromstring

from twisted.internet.task import Clock

from kvd.access.authentication import Authentication
from kvd.access.counting import CountingMemory
from kvd.access.logins import Logins
from kvd.access.rates import Rates
from kvd.access.rights_file import parse_rights
from kvd.access.throttle import Throttle
from kvd.http.authorization import Authorization
from kvd.settings import DialectChoice
from tests.http.test_connection import ConnectionCase, body, status
from tests.stepped import inline

DAV = "{DAV:}"


class DialectCase(ConnectionCase):
    """
    Requests as text.
    """

    def request(
        self, line: str, fields: str = "", content: bytes | None = None
    ) -> bytes:
        """
        What comes to a request with fields and a body.
        """
        length = "" if content is None else f"Content-Length: {len(content)}\r\n"
        head = f"{line} HTTP/1.1\r\nHost: kvd\r\n{fields}{length}\r\n"
        return self.ask(head.encode("latin-1") + (content or b""))

    def statuses(self, *table: tuple[str, str, bytes | None, int]) -> None:
        """
        Requests, and the status that each has.
        """
        for line, fields, content, expected in table:
            reply = self.request(line, fields, content)
            assert (line, fields, expected) == (line, fields, status(reply))

    def keys(self) -> list[bytes]:
        """
        What is stored.
        """
        return sorted(self.store.values)


def joined(reply: bytes) -> bytes:
    """
    A body that came in chunks.
    """
    text, pieces = body(reply), b""
    while text:
        size, _, rest = text.partition(b"\r\n")
        pieces += rest[: int(size, 16)]
        text = rest[int(size, 16) + 2 :]
    return pieces


class WebDAVCase(DialectCase):
    """
    WebDAV below a prefix.
    """

    dialects: tuple[DialectChoice, ...] = (DialectChoice("/dav/", "webdav"),)

    def propfind(
        self, path: str, depth: int = 1, content: bytes | None = None
    ) -> dict[str, Element]:
        """
        What is said about resources, by their paths.
        """
        reply = self.request(f"PROPFIND {path}", f"Depth: {depth}\r\n", content)
        assert 207 == status(reply), reply
        found = fromstring(joined(reply))
        return {each.findtext(f"{DAV}href") or "": each for each in found}

    def allow(self, *rights: str) -> None:
        """
        Anybody has these rights from now on.
        """
        self.permit(f'[anonymous.rights]\n"/" = {list(rights)}\n')

    def permit(self, text: str) -> None:
        """
        What a rights file says counts from now on.
        """
        rules = parse_rights(text, "rights")
        clock = Clock()
        memory = CountingMemory()
        authentication = Authentication(
            rules,
            Throttle(clock, memory),
            Logins(memory),
            inline,
            lambda password, hashed: False,
        )
        self.process.authorization = Authorization(
            rules, authentication, Rates(memory), memory.open_counts(0), clock
        )
