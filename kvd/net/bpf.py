"""
Programs of extended BPF and the memory they share with processes, through bpf(2).

Such a program is checked and translated by the kernel once, when it is loaded; it may
then be attached to any group of sockets, by whoever has its descriptor. A *map* of the
kind used here is plain memory: processes map it and write words, the program reads
them at its next packet. So what a program knows changes without a system call, and
without the privilege that making it takes: ``CAP_BPF``, unless the kernel is set to
let everybody have small ones (``kernel.unprivileged_bpf_disabled``, mostly 2).

glibc has no function for bpf(2), so its number is needed.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import struct
from typing import Final

from kvd.model.programs import LoadedProgram

WORD_BYTES: Final = 8

# asm/unistd.h.
SYSCALL: Final = {"x86_64": 321, "aarch64": 280}

# linux/bpf.h: enum bpf_cmd, bpf_map_type and bpf_prog_type, and a flag (Linux 5.5).
_MAP_CREATE: Final = 0
_PROG_LOAD: Final = 5
_MAP_TYPE_ARRAY: Final = 2
_PROG_TYPE_SOCKET_FILTER: Final = 1
_MMAPABLE: Final = 1 << 10

# union bpf_attr: the kernel takes what it does not know, if that is zero.
_ATTRIBUTE_BYTES: Final = 128
# map_type, key_size, value_size, max_entries, map_flags.
_MAP: Final = struct.Struct("=IIIII")
# prog_type, insn_cnt, insns, license.
_PROG: Final = struct.Struct("=IIQQ")

INSTRUCTION_BYTES: Final = 8

_libc = ctypes.CDLL(None, use_errno=True)


def create_map(size: int) -> int:
    """
    Memory that programs can read and write, and processes map; zeroes.

    Args:
        size: In bytes.

    Returns:
        Its descriptor; not inherited, but it can be sent.

    Raises:
        OSError: The kernel, or whoever guards it, does not give any.
    """
    return _bpf(_MAP_CREATE, _MAP.pack(_MAP_TYPE_ARRAY, 4, size, 1, _MMAPABLE))


def load(instructions: bytes) -> LoadedProgram:
    """
    Have the kernel take a program that chooses a socket.

    Raises:
        OSError: It does not.
    """
    code = ctypes.create_string_buffer(instructions, len(instructions))
    licence = ctypes.create_string_buffer(b"MIT")
    count = len(instructions) // INSTRUCTION_BYTES
    attribute = _PROG.pack(
        _PROG_TYPE_SOCKET_FILTER,
        count,
        ctypes.addressof(code),
        ctypes.addressof(licence),
    )
    return LoadedProgram(_bpf(_PROG_LOAD, attribute))


def _bpf(command: int, attribute: bytes) -> int:
    number = SYSCALL.get(platform.machine())
    if number is None:
        raise OSError(0, f"kvd knows no bpf(2) on {platform.machine()}")
    buffer = ctypes.create_string_buffer(attribute, _ATTRIBUTE_BYTES)
    result = int(_libc.syscall(number, command, buffer, _ATTRIBUTE_BYTES))
    if result < 0:
        failed = ctypes.get_errno()
        raise OSError(failed, os.strerror(failed))
    return result


class Words:
    """
    The words of a map of one's own, in this process.
    """

    def __init__(self, count: int) -> None:
        """
        Args:
            count: How many.

        Raises:
            OSError: As `create_map`.
        """
        self.descriptor = create_map(count * WORD_BYTES)
        try:
            self._memory = mmap.mmap(self.descriptor, count * WORD_BYTES)
        except BaseException:
            os.close(self.descriptor)
            raise
        self._words = memoryview(self._memory).cast("Q")

    def __getitem__(self, at: int) -> int:
        return self._words[at]

    def __setitem__(self, at: int, word: int) -> None:
        self._words[at] = word

    def close(self) -> None:
        """
        Let go of them. Programs that know them keep them.
        """
        self._words.release()
        self._memory.close()
        os.close(self.descriptor)
