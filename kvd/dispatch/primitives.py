"""
What the supervisor does for each connection without deciding anything: it accepts, and
makes the view for the policy.

A lone connection finds the processor's caches cold, and there each call in
Python takes a microsecond or two. So these are compiled (``kvd/native/dispatch.c``).
The functions here do the same where nothing was compiled.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

from kvd.model.view import View
from kvd.native import compiled

Accepted = tuple[int, int]
"""
A connection that was accepted and not read from: its descriptor, and the number of the
address that it has come to. This process owns the descriptor; a worker may own another
one.
"""


class Accept(Protocol):
    """
    Accepts connections.
    """

    def __call__(self, listener: int, group: int, most: int, /) -> list[Accepted]:
        """
        Accept as many connections as wait. Their descriptors do not block.

        Args:
            listener: The descriptor of a listening and non-blocking socket.
            group: The number of its address.
            most: How many at most.

        Raises:
            OSError: None could be accepted, or none waits.
        """


def accept_in_python(listener: int, group: int, most: int, /) -> list[Accepted]:
    """
    See `Accept`.
    """
    raw: Any = socket.socket(fileno=listener)
    accepted: list[Accepted] = []
    try:
        while len(accepted) < most:
            # As `socket.accept` calls it, which then makes a socket of the descriptor.
            descriptor, _ = raw._accept()
            os.set_blocking(descriptor, False)
            accepted.append((descriptor, group))
    except OSError:
        # An error of this process comes again.
        if not accepted:
            raise
    finally:
        raw.detach()
    return accepted


def make_view_in_python(fields: tuple[Any, ...], /) -> View:
    """
    A view with these fields, in their order.
    """
    return View(*fields)


_native: Final = compiled("_dispatch")

accept: Final[Accept] = accept_in_python if _native is None else _native.accept
make_view: Final[Callable[[tuple[Any, ...]], View]] = (
    make_view_in_python
    if _native is None
    else partial(_native.frozen, View, View.__match_args__)
)
