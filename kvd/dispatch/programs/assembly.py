"""
Instructions of extended BPF (RFC 9669), as far as kvd's programs use them.

Numbers are of 64 bits; `Operation.SHIFT_RIGHT_SIGNED` by 63 gives all ones for what is
below zero, and so does a comparison's work without a jump: each jump that may go either
way costs the kernel's verifier a state to come back to, and it has 8,192 of them.
"""

from __future__ import annotations

import struct
from enum import Enum, IntEnum
from typing import Final

from kvd.net.bpf import WORD_BYTES

# Operation, registers (target in the low half), offset, constant; as these are fields
# of bits, their order is that of machines that store the low byte first.
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
    Where a program keeps a number, or an address. The first has its answer in the end.
    """

    R0, R1, R2, R3, R4, R5, R6, R7, R8, R9 = range(10)


class Operation(IntEnum):
    """
    What is done to a register by another or by a constant.
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
    When to jump; numbers are compared as unsigned.
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
        Work on a register; a constant has 32 bits with their sign.
        """
        self._emit(_ALU | operation, target, by)

    def constant(self, target: Register, number: int) -> None:
        """
        Set a register to a number of 64 bits.
        """
        self._wide(target, 0, number & 0xFFFFFFFF, number >> 32)

    def address(self, target: Register, memory: int, word: int = 0) -> None:
        """
        Set a register to the address of a word in a map.

        Args:
            target: The register.
            memory: The map's descriptor.
            word: Which of its words.
        """
        self._wide(target, _MAP_VALUE, memory, word * WORD_BYTES)

    def load(self, target: Register, at: Register, word: int) -> None:
        """
        Read so many words behind an address.
        """
        self._put(_LOAD_WORD, _pair(target, at), word * WORD_BYTES, 0)

    def store(self, at: Register, word: int, number: Register) -> None:
        """
        Write there.
        """
        self._put(_STORE_WORD, _pair(at, number), word * WORD_BYTES, 0)

    def count(self, at: Register, word: int, by: Register, *, fetch: bool) -> None:
        """
        Add to a word, although other processors may at the same time.

        Args:
            at: The address.
            word: So many words behind it.
            by: What to add.
            fetch: Whether the register shall have what was there before.
        """
        offset = word * WORD_BYTES
        self._put(_ATOMIC_WORD, _pair(at, by), offset, _FETCH if fetch else 0)

    def jump(self, when: If, left: Register, right: Register | int, to: str) -> None:
        """
        Go on at a label, or here.
        """
        self._jumps.append((len(self._code), to))
        self._emit(_JUMP | when, left, right)

    def label(self, name: str) -> None:
        """
        A place to jump to.
        """
        self._labels[name] = len(self._code)

    def leave(self) -> None:
        """
        End with what the first register has.
        """
        self._put(_EXIT, 0, 0, 0)

    def assemble(self) -> bytes:
        """
        The program as the kernel wants it.
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
