"""
The operations that a request can ask for, in any dialect.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from kvd.model.codings import AwsChunked
from kvd.model.conditions import UNCONDITIONAL, Conditions
from kvd.model.digests import Digest
from kvd.model.exchanges import SMALL_BYTES, Values
from kvd.model.keys import Key
from kvd.model.replies import Reply

Check: TypeAlias = Callable[[Values], Coroutine[Any, Any, None]]
"""
Raises a `PeerError` if a request cannot be granted.
"""

Answer: TypeAlias = Callable[[Values, bytes], Coroutine[Any, Any, Reply]]
"""
Gets what the sender may use of the store, and the body of the request, and returns the
reply.
"""


@dataclass(frozen=True, slots=True)
class Put:
    """
    Store the body under the key.
    """

    key: Key
    conditions: Conditions = UNCONDITIONAL
    metadata: Mapping[str, str] = field(default_factory=dict)
    digests: tuple[Digest, ...] = ()
    """The digests that the body must have; otherwise nothing is stored."""
    once: bool = False
    """The key's value may not be replaced by another one."""
    empty: bool = False
    """Store an empty value, and skip the body if there is one."""
    coding: AwsChunked | None = None
    """How the value is encoded in the body; None: the body is the value."""
    check: Check | None = None
    """Asked before the body."""
    confirm: Check | None = None
    """Asked when the body is complete, before the value is published."""


@dataclass(frozen=True, slots=True)
class PutPart(Put):
    """
    Store the body as a part of a value that is uploaded in parts. The rules of the
    prefix are those of the value, and decided when it is published.
    """

    folder: bytes = b""
    """See `Values.begin_parts`."""
    upload: str = ""
    """Its name."""
    number: int = 1
    """Of the part."""


@dataclass(frozen=True, slots=True)
class ResumablePut(Put):
    """
    The same, in one request or in several ones
    (draft-ietf-httpbis-resumable-upload-11).
    """

    complete: bool = True
    """Whether the body is all of the value; otherwise others follow."""
    length: int | None = None
    """Of the whole value, as the client has said it."""
    interop: int | None = None
    """The version of the draft that the client speaks, if it has said so."""


@dataclass(frozen=True, slots=True)
class Append:
    """
    Add the body to an upload.
    """

    key: Key
    """Of the value."""
    identity: str
    """Of the upload."""
    offset: int
    """Where the client believes that the upload ends."""
    complete: bool
    """Whether the body is the rest of the value."""
    length: int | None = None
    """See `ResumablePut`."""


@dataclass(frozen=True, slots=True)
class LookAtUpload:
    """
    Say how far an upload is.
    """

    key: Key
    identity: str


@dataclass(frozen=True, slots=True)
class CancelUpload:
    """
    Remove an upload.
    """

    key: Key
    identity: str


@dataclass(frozen=True, slots=True)
class Get:
    """
    Send the value under the key, or only the head of that reply.
    """

    key: Key
    conditions: Conditions = UNCONDITIONAL
    body: bool = True
    """False: only the head of the reply (HEAD)."""
    ranges: bool = True
    """Whether to obey a ``Range`` in the request."""


@dataclass(frozen=True, slots=True)
class Delete:
    """
    Remove the value under the key.
    """

    key: Key
    conditions: Conditions = UNCONDITIONAL


@dataclass(frozen=True, slots=True)
class List:
    """
    Send a listing of the keys that begin with a prefix.
    """

    prefix: bytes
    after: bytes = b""
    limit: int | None = None
    body: bool = True


@dataclass(frozen=True, slots=True)
class WriteBelow(List):
    """
    Change any keys that begin with a prefix, or hinder others from it. Only what an
    `Exchange` needs; nothing carries it out.
    """


@dataclass(frozen=True, slots=True)
class FixedReply:
    """
    Send a fixed reply, without asking the store.
    """

    status: int
    fields: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Exchange:
    """
    Read a short body, ask the store for whatever the dialect needs, and send the reply
    that the dialect makes of it.
    """

    answer: Answer
    """Runs to its end even if the client leaves."""
    needs: tuple[Put | Get | Delete | List, ...] = ()
    """What the sender must be allowed to do, as far as the head tells: refused before
    the body. Whatever `answer` does is asked for again when it does it."""
    body_bytes: int = SMALL_BYTES
    """How long the body may be; it is given to `answer` whole."""


Operation = (
    Put
    | Get
    | Delete
    | List
    | Exchange
    | FixedReply
    | Append
    | LookAtUpload
    | CancelUpload
)
