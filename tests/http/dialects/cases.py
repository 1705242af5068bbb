"""
A connection on which a dialect is spoken.
"""

from __future__ import annotations

from tests.http.test_connection import ConnectionCase, body, status


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
