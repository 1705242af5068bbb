"""
Programs that say which socket of a group gets a new connection.

The sockets of one address, made with ``SO_REUSEPORT``, are numbered in the order of
their ``listen``. Without a program the kernel hashes a connection's addresses and
ports over all of them. A program of classic BPF returns a number instead
(``SO_ATTACH_REUSEPORT_CBPF``, socket(7); for TCP since Linux 4.6): it needs no
privilege, it may be replaced at any time through any member, and the next handshake
already follows the new one. A handshake that has begun ends where it began, so a
member that gets no more may still get a few. If the number is of no member, the
kernel hashes as if there were no program.

A program of extended BPF may be attached in its place (`kvd.net.bpf`).
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Iterable, Sequence
from typing import Final

from kvd.model.programs import ClassicProgram, LoadedProgram

# asm-generic/socket.h; the socket module has no names for them.
_SO_ATTACH_REUSEPORT_CBPF: Final = 51
_SO_ATTACH_REUSEPORT_EBPF: Final = 52
_SO_DETACH_REUSEPORT_BPF: Final = 68

# linux/filter.h: offsets from here are no bytes of the packet.
_ANCILLARY: Final = 0xFFFFF000
_CPU: Final = _ANCILLARY + 36
_RANDOM: Final = _ANCILLARY + 56

# linux/bpf_common.h: operations as kvd uses them.
_LOAD_WORD: Final = 0x20
_MODULO: Final = 0x94
_JUMP_IF_EQUAL: Final = 0x15
_JUMP_IF_AT_LEAST: Final = 0x35
_RETURN: Final = 0x06
_RETURN_ACCUMULATOR: Final = 0x16

# struct sock_filter: code, two jumps, a constant.
_INSTRUCTION: Final = struct.Struct("=HBBI")

MAX_INSTRUCTIONS: Final = 4096
"""
BPF_MAXINSNS.
"""


class _Fprog(ctypes.Structure):
    """
    struct sock_fprog.
    """

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


_libc = ctypes.CDLL(None, use_errno=True)


def by_chance(members: Sequence[int]) -> ClassicProgram:
    """
    Each of these members alike, by chance.
    """
    return _spread(_RANDOM, members)


def by_cpu(members: Sequence[int]) -> ClassicProgram:
    """
    The processor that took the packet chooses: the first has the first member, and
    where there are fewer members than processors, they begin anew.
    """
    return _spread(_CPU, members)


def by_weight(weights: Sequence[int]) -> ClassicProgram:
    """
    By chance, each member as often as its weight says among all.

    Args:
        weights: One for each member, from the first on; 0: never. One at least is
            not 0.

    Raises:
        ValueError: There are no such weights, or too many.
    """
    total = sum(weights)
    if total <= 0 or min(weights) < 0:
        raise ValueError(f"no weights: {list(weights)}; each is at least 0, one more")
    chosen = [member for member, weight in enumerate(weights) if weight]
    instructions = [(_LOAD_WORD, 0, 0, _RANDOM)]
    below = 0
    for member in chosen[:-1]:
        below += weights[member]
        # The least number that is not this member's any more.
        limit = (below << 32) // total
        instructions += [(_JUMP_IF_AT_LEAST, 1, 0, limit), (_RETURN, 0, 0, member)]
    return _assemble([*instructions, (_RETURN, 0, 0, chosen[-1])])


def _spread(source: int, members: Sequence[int]) -> ClassicProgram:
    if not members:
        raise ValueError("no members: somebody has to get the connections")
    instructions = [(_LOAD_WORD, 0, 0, source), (_MODULO, 0, 0, len(members))]
    if list(members) == list(range(len(members))):
        return _assemble([*instructions, (_RETURN_ACCUMULATOR, 0, 0, 0)])
    for place, member in enumerate(members[:-1]):
        instructions += [(_JUMP_IF_EQUAL, 0, 1, place), (_RETURN, 0, 0, member)]
    return _assemble([*instructions, (_RETURN, 0, 0, members[-1])])


def _assemble(instructions: Iterable[tuple[int, int, int, int]]) -> ClassicProgram:
    program = b"".join(_INSTRUCTION.pack(*each) for each in instructions)
    count = len(program) // _INSTRUCTION.size
    if count > MAX_INSTRUCTIONS:
        raise ValueError(
            f"a program of {count} instructions; the kernel takes {MAX_INSTRUCTIONS}"
        )
    return ClassicProgram(program)


def attach_program(
    member: socket.socket, program: ClassicProgram | LoadedProgram
) -> None:
    """
    Have a program choose from now on, for the whole group of a socket.

    Raises:
        OSError: The kernel, or whoever guards it, does not take programs.
    """
    if isinstance(program, int):
        member.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_EBPF, program)
        return
    instructions = ctypes.create_string_buffer(program, len(program))
    fprog = _Fprog(len(program) // _INSTRUCTION.size, ctypes.addressof(instructions))
    failed = _libc.setsockopt(
        member.fileno(),
        socket.SOL_SOCKET,
        _SO_ATTACH_REUSEPORT_CBPF,
        ctypes.byref(fprog),
        ctypes.sizeof(fprog),
    )
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def detach_program(member: socket.socket) -> None:
    """
    Have the kernel hash again.

    Raises:
        OSError: The kernel knows of no programs.
    """
    try:
        member.setsockopt(socket.SOL_SOCKET, _SO_DETACH_REUSEPORT_BPF, 0)
    except FileNotFoundError:
        # There was none.
        pass
