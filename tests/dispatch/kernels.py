"""
Where programs of extended BPF run in tests: in the kernel, where that is allowed, and
in a double that follows the few instructions that kvd uses.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from kvd.model.programs import LoadedProgram
from kvd.net.bpf import SYSCALL, create_map, load

PROG_TEST_RUN: Final = 10
PACKET_BYTES: Final = 64
# prog_fd, retval, the sizes of the packet and of what becomes of it, where they are,
# repeat, duration.
TEST: Final = struct.Struct("=IIIIQQII")

LIBC: Final = ctypes.CDLL(None, use_errno=True)
NUMBER: Final = SYSCALL[os.uname().machine]

CAP_SYS_ADMIN: Final = 21
CAP_BPF: Final = 39

WORD: Final = (1 << 64) - 1


def may_load() -> bool:
    """
    Whether this process has the privilege to load programs; then they have to work.
    """
    with open("/proc/self/status") as status:
        (capabilities,) = [
            int(line.split()[1], 16) for line in status if line.startswith("CapEff:")
        ]
    return bool(capabilities >> CAP_BPF & 1 or capabilities >> CAP_SYS_ADMIN & 1)


class Kernel(Protocol):
    """
    Takes programs, and runs them for a packet.
    """

    def create_map(self, size: int) -> int:
        """
        As `bpf.create_map`.
        """

    def load(self, instructions: bytes) -> LoadedProgram:
        """
        As `bpf.load`.
        """

    def run(self, program: LoadedProgram) -> int:
        """
        The socket that a program chooses; -1: none.
        """


class TrueKernel:
    """
    This machine's.
    """

    def create_map(self, size: int) -> int:
        return create_map(size)

    def load(self, instructions: bytes) -> LoadedProgram:
        return load(instructions)

    def run(self, program: LoadedProgram) -> int:
        packet = ctypes.create_string_buffer(PACKET_BYTES)
        attribute = ctypes.create_string_buffer(
            TEST.pack(program, 0, PACKET_BYTES, 0, ctypes.addressof(packet), 0, 1, 0),
            128,
        )
        assert 0 == LIBC.syscall(NUMBER, PROG_TEST_RUN, attribute, 128)
        answer: int = TEST.unpack_from(attribute.raw)[1]
        return signed(answer, 32)


class PlayedKernel:
    """
    Takes everything, and runs it step by step.
    """

    def __init__(self) -> None:
        self._programs: dict[int, bytes] = {}

    def create_map(self, size: int) -> int:
        descriptor = os.memfd_create("map")
        os.ftruncate(descriptor, size)
        return descriptor

    def load(self, instructions: bytes) -> LoadedProgram:
        descriptor = os.memfd_create("program")
        self._programs[descriptor] = instructions
        return LoadedProgram(descriptor)

    def run(self, program: LoadedProgram) -> int:
        return Machine(self._programs[program]).run()


class Machine:
    """
    Runs one program once. An address is a map's descriptor and an offset in it.
    """

    def __init__(self, program: bytes) -> None:
        self._code = list(struct.iter_unpack("<BBhi", program))
        self._registers = [0] * 10
        self._maps: dict[int, mmap.mmap] = {}

    def run(self) -> int:
        """
        What it answers, as a number of 32 bits with its sign.
        """
        at = 0
        while self._code[at][0] != 0x95:
            at += self._step(at)
        for memory in self._maps.values():
            memory.close()
        return signed(self._registers[0] & 0xFFFFFFFF, 32)

    def _step(self, at: int) -> int:
        """
        Returns:
            How many instructions to go on by.
        """
        operation, registers, offset, constant = self._code[at]
        target, source = registers & 15, registers >> 4
        values = self._registers
        by = values[source] if operation & 8 else constant & WORD
        if operation == 0x18:
            assert source in (0, 2)
            low, high = constant & 0xFFFFFFFF, self._code[at + 1][3] & 0xFFFFFFFF
            values[target] = low << 32 | high if source else high << 32 | low
            return 2
        if operation == 0x79:
            values[target] = self._word(values[source] + offset)
        elif operation == 0x7B:
            self._store(values[target] + offset, values[source])
        elif operation == 0xDB:
            there = self._word(values[target] + offset)
            self._store(values[target] + offset, there + values[source])
            if constant:
                values[source] = there
        elif operation & 7 == 7:
            values[target] = WORK[operation & 0xF0](values[target], by) & WORD
        else:
            assert operation & 7 == 5, hex(operation)
            goes: bool = JUMPS[operation & 0xF0](values[target], by)
            return 1 + int(offset) * goes
        return 1

    def _memory(self, address: int) -> tuple[mmap.mmap, int]:
        descriptor, offset = address >> 32, address & 0xFFFFFFFF
        if descriptor not in self._maps:
            size = os.fstat(descriptor).st_size
            self._maps[descriptor] = mmap.mmap(descriptor, size)
        memory = self._maps[descriptor]
        assert offset % 8 == 0
        assert offset < len(memory)
        return memory, offset

    def _word(self, address: int) -> int:
        memory, offset = self._memory(address)
        return int.from_bytes(memory[offset : offset + 8], "little")

    def _store(self, address: int, word: int) -> None:
        memory, offset = self._memory(address)
        memory[offset : offset + 8] = (word & WORD).to_bytes(8, "little")


def signed(number: int, bits: int) -> int:
    """
    A number whose highest bit is its sign.
    """
    return number - (1 << bits) if number >> (bits - 1) else number


# RFC 9669, section 4.1 and 4.3.
WORK: Mapping[int, Callable[[int, int], int]] = {
    0x00: lambda a, b: a + b,
    0x10: lambda a, b: a - b,
    0x20: lambda a, b: a * b,
    0x40: lambda a, b: a | b,
    0x50: lambda a, b: a & b,
    0x60: lambda a, b: a << (b & 63),
    0x70: lambda a, b: a >> (b & 63),
    0x90: lambda a, b: a % b if b else a,
    0xA0: lambda a, b: a ^ b,
    0xB0: lambda a, b: b,
    0xC0: lambda a, b: signed(a, 64) >> (b & 63),
}
JUMPS: Mapping[int, Callable[[int, int], bool]] = {
    0x10: lambda a, b: a == b,
    0x30: lambda a, b: a >= b,
    0x50: lambda a, b: a != b,
    0xA0: lambda a, b: a < b,
}
