"""
An assembler for the instructions of extended BPF (RFC 9669) that kvd's programs use.

Numbers have 64 bits. `Operation.SHIFT_RIGHT_SIGNED` by 63 turns a negative number into
all ones, and any other into 0; so programs compare without a jump. Each conditional
jump costs the kernel's verifier a state to come back to, and it keeps at most 8,192 of
them.
"""

from __future__ import annotations

import struct
from enum import Enum, IntEnum
from typing import Final

from kvd.net.bpf import WORD_BYTES

# Operation, registers (the target in the low half), offset, constant. The order of
# these bit fields is that of little-endian machines.
_INSTRUCTION: Final = struct.Struct("<BBhi")

_ALU: Final = 0x07
_JUMP: Final = 0x05
_BY_REGISTER: Final = 0x08
_LOAD_WORD: Final = 0x79
_STORE_WORD: Final = 0x7B
_ATOMIC_WORD: Final = 0xDB
_FETCH: Final = 0x01
_LOAD_CONSTANT: Final = 0x18
_MAP_VALUE: Final = 2
_EXIT: Final = 0x95


class Register(Enum):
    """
    Holds a number or an address. The first register holds the result in the end.
    """

    R0, R1, R2, R3, R4, R5, R6, R7, R8, R9 = range(10)


class Operation(IntEnum):
    """
    What another register, or a constant, does to a register.
    """

    ADD = 0x00
    SUBTRACT = 0x10
    MULTIPLY = 0x20
    OR = 0x40
    AND = 0x50
    SHIFT_LEFT = 0x60
    SHIFT_RIGHT = 0x70
    MODULO = 0x90
    XOR = 0xA0
    SET = 0xB0
    SHIFT_RIGHT_SIGNED = 0xC0


class If(IntEnum):
    """
    The condition of a jump; it compares unsigned numbers.
    """

    EQUAL = 0x10
    AT_LEAST = 0x30
    NOT_EQUAL = 0x50
    BELOW = 0xA0


class Assembly:
    """
    A program, written from its first instruction to its last.
    """

    def __init__(self) -> None:
        self._code: list[tuple[int, int, int, int]] = []
        self._labels: dict[str, int] = {}
        self._jumps: list[tuple[int, str]] = []

    def do(self, operation: Operation, target: Register, by: Register | int) -> None:
        """
        Apply an operation to a register. A constant has 32 bits and a sign.
        """
        self._emit(_ALU | operation, target, by)

    def constant(self, target: Register, number: int) -> None:
        """
        Set a register to a 64-bit number.
        """
        self._wide(target, 0, number & 0xFFFFFFFF, number >> 32)

    def address(self, target: Register, memory: int, word: int = 0) -> None:
        """
        Set a register to the address of a word in a map.

        Args:
            target: The register.
            memory: The map's descriptor.
            word: The number of the word.
        """
        self._wide(target, _MAP_VALUE, memory, word * WORD_BYTES)

    def load(self, target: Register, at: Register, word: int) -> None:
        """
        Read the word that is so many words behind an address.
        """
        self._put(_LOAD_WORD, _pair(target, at), word * WORD_BYTES, 0)

    def store(self, at: Register, word: int, number: Register) -> None:
        """
        Write the word that is so many words behind an address.
        """
        self._put(_STORE_WORD, _pair(at, number), word * WORD_BYTES, 0)

    def count(self, at: Register, word: int, by: Register, *, fetch: bool) -> None:
        """
        Add to a word atomically.

        Args:
            at: An address.
            word: How many words behind it the word is.
            by: What to add.
            fetch: Whether the register gets the previous value of the word.
        """
        offset = word * WORD_BYTES
        self._put(_ATOMIC_WORD, _pair(at, by), offset, _FETCH if fetch else 0)

    def jump(self, when: If, left: Register, right: Register | int, to: str) -> None:
        """
        Jump to a label if a condition holds.
        """
        self._jumps.append((len(self._code), to))
        self._emit(_JUMP | when, left, right)

    def label(self, name: str) -> None:
        """
        Define a label at this place.
        """
        self._labels[name] = len(self._code)

    def leave(self) -> None:
        """
        Return the first register.
        """
        self._put(_EXIT, 0, 0, 0)

    def assemble(self) -> bytes:
        """
        The program in the form that the kernel loads.
        """
        code = list(self._code)
        for at, label in self._jumps:
            operation, registers, _, constant = code[at]
            offset = self._labels[label] - at - 1
            code[at] = (operation, registers, offset, constant)
        return b"".join(_INSTRUCTION.pack(*each) for each in code)

    def _emit(self, operation: int, target: Register, by: Register | int) -> None:
        if isinstance(by, Register):
            self._put(operation | _BY_REGISTER, _pair(target, by), 0, 0)
        else:
            self._put(operation, target.value, 0, by)

    def _wide(self, target: Register, kind: int, low: int, high: int) -> None:
        self._put(_LOAD_CONSTANT, target.value | kind << 4, 0, _signed(low))
        self._put(0, 0, 0, _signed(high))

    def _put(self, operation: int, registers: int, offset: int, constant: int) -> None:
        self._code.append((operation, registers, offset, constant))


def _pair(target: Register, source: Register) -> int:
    return int(target.value | source.value << 4)


def _signed(word: int) -> int:
    return word - (1 << 32) if word >> 31 else word
