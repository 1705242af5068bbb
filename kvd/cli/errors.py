"""
The failures of the command itself, and the exit statuses (``kvd --help``).
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
The status of a program that the kernel ends because its output is not read.
"""


class NoAnswer(click.ClickException):
    """
    No kvd answers; a sentence.
    """

    exit_code = NO_ANSWER


class Refused(click.ClickException):
    """
    kvd refuses a change; a sentence.
    """

    exit_code = FAILED


class LocalError(click.ClickException):
    """
    A file or stream of this machine cannot be used; a sentence.
    """

    exit_code = FAILED


def unwritable(name: str, error: OSError) -> LocalError:
    """
    The failure of a file or stream that cannot be written.
    """
    return LocalError(f"{name} cannot be written: {error.strerror}.")
