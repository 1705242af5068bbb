"""
The folder ``.kvd``, in which kvd has what is its own.

It holds nothing that is missed while kvd does not run, and others may remove it at any
time, such as a program that cleans up temporary files. Then it is made anew.
"""

from __future__ import annotations

import os
from typing import Final

from kvd.store.conferring import make_folder
from kvd.store.folders import FOLDER_FLAGS

HIDDEN_NAME: Final = ".kvd"


def open_hidden(root: int, mode: int) -> int:
    """
    Open the folder below a root, and make it if it is missing.
    """
    try:
        return make_folder(root, HIDDEN_NAME, mode)
    except FileExistsError:
        return os.open(HIDDEN_NAME, FOLDER_FLAGS, dir_fd=root)


def renew_hidden(root: int, hidden: int, mode: int) -> None:
    """
    Open it once more, behind the same descriptor.
    """
    folder = open_hidden(root, mode)
    try:
        os.dup2(folder, hidden, inheritable=False)
    finally:
        os.close(folder)
