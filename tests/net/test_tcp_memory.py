"""
Tests for `kvd.net.tcp_memory`.
"""

import os
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from kvd.net.tcp_memory import BOUNDS, USAGE, TCPMemory

SOCKSTAT = """\
sockets: used 182
TCP: inuse 135 orphan 0 tw 1265 alloc 135 mem {pages}
UDP: inuse 0 mem 99999999
"""


class TCPMemoryTests(SynchronousTestCase):
    """
    `TCPMemory` compares what the kernel uses with half of its first bound.
    """

    def memory(self, pages: int | str, bounds: str | None = "1000 2000 3000\n") -> bool:
        """
        Whether so many pages are too many.
        """
        made = tempfile.TemporaryDirectory()
        self.addCleanup(made.cleanup)
        folder = Path(made.name)
        usage = folder / "usage"
        usage.write_text(SOCKSTAT.format(pages=pages))
        if bounds is not None:
            (folder / "bounds").write_text(bounds)
        memory = TCPMemory(str(usage), str(folder / "bounds"))
        self.addCleanup(memory.close)
        return memory.is_short()

    def test_half_of_the_first_bound(self) -> None:
        """
        May be used.
        """
        assert not self.memory(500)
        assert self.memory(501)

    def test_a_container_has_no_bounds(self) -> None:
        """
        The default of the kernel counts, which goes by the memory of the machine.
        """
        half = os.sysconf("SC_PHYS_PAGES") * 3 // 64 // 2
        for bounds in (None, "", "many\n"):
            assert not self.memory(half, bounds)
            assert self.memory(half + 1, bounds)

    def test_what_cannot_be_read(self) -> None:
        """
        Is not short, nor is it after the end.
        """
        assert not self.memory("none")
        assert not TCPMemory("/nonexistent", BOUNDS).is_short()
        memory = TCPMemory(USAGE, BOUNDS)
        memory.close()
        memory.close()
        assert not memory.is_short()
