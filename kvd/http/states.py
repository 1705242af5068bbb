"""
What a connection is doing: one state at any time, and which may follow which.

A connection serves one request after the other. Its state says what it waits for. While
its code runs, the state is the one in which the connection would take the next bytes.

=========  ===================  =====================================================
state      waits for            goes on to
=========  ===================  =====================================================
PROXY      a proxy's header     HANDSHAKE, IDLE; the end
HANDSHAKE  the rest of one      IDLE, when it is complete; the end
IDLE       the first byte       HEAD, BODY; SLICE, SENDING; the end
HEAD       the rest of a head   BODY; the end
BODY       more of a request    IDLE, HEAD; STORE, DELAY, SLICE, SENDING, RELAY; the end
STORE      the store's answer   BODY, when it comes
DELAY      the time to refuse   BODY, when it comes; the end
SLICE      its next time slice  IDLE or BODY, when it comes
SENDING    a reply to be taken  IDLE or BODY, when the kernel has taken it
RELAY      a body on its way    BODY, when the kernel has taken all that comes
CLOSING    it to be received    LINGER
LINGER     the client to close  CLOSED
BROKEN     the reactor's word   CLOSED
CLOSED     nothing              never left
=========  ===================  =====================================================

"The end" is CLOSING, or LINGER where the client has the whole reply already. Every
state but CLOSED may go on to BROKEN, when kvd breaks the connection off, and to CLOSED,
when it is lost.

BODY begins with a complete head, even if no body follows it, and lasts until the
request and its reply are complete, with STORE, DELAY, SLICE, SENDING and RELAY in
between. It outlasts a reply that was sent early: the rest of a refused body is skipped.

Beside its state, a connection knows what may still come from the client (`Input`). A
client that has closed its half is served to the end of what it sent, whatever the
state; only in DELAY it is taken for one that has left. In the states that wait for
something else than the client (`WAITING`) its bytes are kept, and reading stops at the
first of them: a client that sends ahead costs the memory of one read.

A client that has reset the connection neither sends nor reads any more. What it sent
before that is served all the same, with two exceptions, where the store is waited for:
the reply to a request that only reads is given up, and so is a request whose body did
not come whole. After bytes were sent ahead, or after the client has closed its half,
nothing is read, and the reactor does not watch the connection: then the next
`check_time` finds the reset.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, IntEnum, auto
from typing import Final


class State(IntEnum):
    """
    What a connection is doing; the module's docstring has the table.
    """

    # Integers, because they are looked up for each request: other members of an
    # enumeration are hashed in Python.
    PROXY = auto()
    HANDSHAKE = auto()
    IDLE = auto()
    HEAD = auto()
    BODY = auto()
    STORE = auto()
    DELAY = auto()
    SLICE = auto()
    SENDING = auto()
    RELAY = auto()
    CLOSING = auto()
    LINGER = auto()
    BROKEN = auto()
    CLOSED = auto()


class Input(Enum):
    """
    What may still come from the client.
    """

    OPEN = "bytes, as they come"
    PAUSED = "bytes, which stay in the kernel for now"
    ENDED = "nothing: the client has closed its half"


RECEIVING: Final = frozenset((State.IDLE, State.HEAD, State.BODY))
"""
Bytes of the client are taken as they come.
"""

WAITING: Final = frozenset(
    (State.STORE, State.DELAY, State.SLICE, State.SENDING, State.RELAY)
)
"""
Something else has to happen before more bytes are taken.
"""

ENDING: Final = frozenset((State.CLOSING, State.LINGER, State.BROKEN, State.CLOSED))
"""
No more requests are taken; what still comes is thrown away.
"""

_LOSS: Final = frozenset((State.BROKEN, State.CLOSED))

TRANSITIONS: Final[Mapping[State, frozenset[State]]] = {
    State.PROXY: ENDING | {State.HANDSHAKE, State.IDLE},
    State.HANDSHAKE: ENDING | {State.IDLE},
    # To itself: each request is awaited anew, and draining gives a time of its own.
    State.IDLE: ENDING
    | {State.IDLE, State.HEAD, State.BODY, State.SLICE, State.SENDING},
    State.HEAD: ENDING | {State.BODY},
    # To itself: more of the body is awaited, or the next request begins.
    State.BODY: ENDING | RECEIVING | WAITING,
    State.STORE: _LOSS | {State.BODY},
    State.DELAY: ENDING | {State.BODY},
    State.SLICE: _LOSS | {State.IDLE, State.BODY},
    State.SENDING: _LOSS | {State.IDLE, State.BODY},
    State.RELAY: _LOSS | {State.BODY},
    State.CLOSING: _LOSS | {State.LINGER},
    State.LINGER: _LOSS,
    State.BROKEN: frozenset((State.CLOSED,)),
    State.CLOSED: frozenset(),
}
"""
Which states may follow each.
"""
