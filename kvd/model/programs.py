"""
Programs that choose a socket of a group, in the kernel's form.
"""

from __future__ import annotations

from typing import NewType

ClassicProgram = NewType("ClassicProgram", bytes)
"""
The instructions of a classic BPF program (``struct sock_filter``), for
``SO_ATTACH_REUSEPORT_CBPF``.
"""

LoadedProgram = NewType("LoadedProgram", int)
"""
The descriptor of an extended BPF program that the kernel has loaded (bpf(2)).
"""
