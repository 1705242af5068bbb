"""
How a value is encoded in the body of a request, where the body is not the value.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Final

_NOTHING: Final = hashlib.sha256().hexdigest()


@dataclass(frozen=True, slots=True)
class SignatureChain:
    """
    What the signatures of the chunks of a body begin with: the signature of its head.
    Each one is of a chunk and of the signature before it.
    """

    key: bytes = field(repr=False)
    date: str
    """As in ``x-amz-date``."""
    scope: str
    """Of the credentials, without the access key."""
    seed: str
    """The signature of the head."""

    def of_chunk(self, before: str, digest: str) -> str:
        """
        The signature of a chunk.

        Args:
            before: The signature before it.
            digest: The SHA-256 of the chunk, in hexadecimal digits.
        """
        return self._sign("AWS4-HMAC-SHA256-PAYLOAD", before, _NOTHING, digest)

    def of_trailers(self, before: str, digest: str) -> str:
        """
        The signature of what follows the last chunk; see `of_chunk`.
        """
        return self._sign("AWS4-HMAC-SHA256-TRAILER", before, digest)

    def _sign(self, algorithm: str, *parts: str) -> str:
        text = "\n".join((algorithm, self.date, self.scope, *parts))
        return hmac.new(self.key, text.encode("ascii"), "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class AwsChunked:
    """
    The chunks of S3, within the body of HTTP.
    """

    length: int
    """Of the value."""
    is_signed: bool
    """Whether each chunk has a signature."""
    trailers: tuple[str, ...] = ()
    """The fields that follow the last chunk."""
    chain: SignatureChain | None = None
    """Verifies the signatures of the chunks; None: nobody has signed the head, or it
    was not asked."""
