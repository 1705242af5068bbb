"""
What can go wrong on this side, and the exit statuses (``kvd --help``).
"""

from __future__ import annotations

import signal
from typing import Final

import click

FAILED: Final = 1
ABSENT: Final = 3
NOT_EXPECTED: Final = 4
NO_ANSWER: Final = 5
UNREAD: Final = 128 + signal.SIGPIPE
"""
As of a program that the kernel ends because nobody reads what it writes.
"""


class NoAnswer(click.ClickException):
    """
    No kvd answers where one was asked; a sentence.
    """

    exit_code = NO_ANSWER


class Refused(click.ClickException):
    """
    kvd does not do what was asked; a sentence.
    """

    exit_code = FAILED


class LocalError(click.ClickException):
    """
    Something of this machine is not as it should be; a sentence.
    """

    exit_code = FAILED
