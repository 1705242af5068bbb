"""
The tests of `kvd.s3.engine`, and of the double that the other tests use.
"""

from __future__ import annotations

from tests.s3 import contract


class MemoryEngineTests(contract.EngineContract):
    """
    `MemoryEngine` does what SeaweedFS does.
    """


class TimeTellingEngineTests(MemoryEngineTests):
    """
    Or what Swift does, where the two differ.
    """

    tells_time = True

    def setUp(self) -> None:
        super().setUp()
        self.memory.tells_time = True
