"""
What can go wrong with a measurement itself.
"""

from __future__ import annotations


class BenchFailed(Exception):
    """
    Nothing was measured; a sentence.
    """

    def __init__(self, sentence: str, said: str = "") -> None:
        """
        Args:
            sentence: What went wrong.
            said: What the program that failed printed last.
        """
        super().__init__(sentence)
        self.said = said


class PlotUnavailable(Exception):
    """
    A drawing was asked for that cannot be made here; a sentence.
    """
