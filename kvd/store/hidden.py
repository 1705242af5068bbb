"""
The folder ``.kvd``, which contains kvd's own files.

It contains nothing that is needed while kvd does not run, except uploads that broke off
and may go on, and attributes of values (`kvd.store.sidecars`), or that these are
extended ones (`kvd.store.keeping`). Another program, for example one that cleans up
temporary files, may remove it at any time; then kvd makes it again.
"""

from __future__ import annotations

import os

from kvd.store.conferring import HIDDEN_NAME, make_folder
from kvd.store.folders import FOLDER_FLAGS


def open_hidden(root: int, mode: int) -> int:
    """
    Open the folder, and make it if it is missing.
    """
    try:
        return make_folder(root, HIDDEN_NAME, mode)
    except FileExistsError:
        return os.open(HIDDEN_NAME, FOLDER_FLAGS, dir_fd=root)


def renew_hidden(root: int, hidden: int, mode: int) -> None:
    """
    Open the folder again, as the same descriptor.
    """
    folder = open_hidden(root, mode)
    try:
        os.dup2(folder, hidden, inheritable=False)
    finally:
        os.close(folder)
