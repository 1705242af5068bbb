"""
Programs that choose the socket of a group, as the kernel takes them.
"""

from __future__ import annotations

from typing import NewType

ClassicProgram = NewType("ClassicProgram", bytes)
"""
The instructions of a program of classic BPF (``struct sock_filter``), for
``SO_ATTACH_REUSEPORT_CBPF``.
"""

LoadedProgram = NewType("LoadedProgram", int)
"""
The descriptor of a program of extended BPF that the kernel has taken (bpf(2)).
"""
