"""
What can go wrong with a measurement itself.
"""

from __future__ import annotations


class BenchFailed(Exception):
    """
    Nothing was measured; a sentence.
    """

    def __init__(self, sentence: str, output: str = "") -> None:
        """
        Args:
            sentence: What went wrong.
            output: The last lines that the failed program printed.
        """
        super().__init__(sentence)
        self.output = output


class PlotUnavailable(Exception):
    """
    A drawing or a page was asked for that cannot be made here; a sentence.
    """
