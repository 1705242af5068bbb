"""
Makes the folder of a store, and checks that it works, before the first worker starts.

The check writes and removes a value in the usual way, under a key that no request can
have.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from typing import Final

from twisted.logger import Logger

from kvd.errors import Fault, MetadataTooLarge, StoreFull, StoreUnusable
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.model.values import MAX_METADATA_BYTES
from kvd.settings import DEFAULT_MODES, Modes, User
from kvd.store import keeping
from kvd.store.attribute import new_etag
from kvd.store.conferring import make_folder
from kvd.store.file import FileStore, open_root, opening
from kvd.store.locks import LockFile
from kvd.store.sync import sync

# Not `FOLDER_FLAGS`: outside the store, links are followed.
_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

_log = Logger()


def make_root(
    path: str, mode: int = DEFAULT_MODES.folder, user: User | None = None
) -> None:
    """
    Make the folder of a store, if it is missing.

    Args:
        path: Its absolute path.
        mode: Its permissions.
        user: The owner of the folder; None: the user of this process.

    Raises:
        StoreUnusable: The folder cannot be made.
    """
    if sys.platform != "linux":
        raise StoreUnusable(
            "the file store needs Linux: it relies on open-file-description locks,"
            f" which {sys.platform} does not have"
        )
    try:
        missing = _missing(path)
        if not os.path.lexists(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            _make_own(path, mode, user)
        os.makedirs(path, exist_ok=True)
        for folder in missing:
            _sync_name(folder)
    except (FileExistsError, NotADirectoryError) as error:
        raise StoreUnusable(
            f"the store {path} cannot be a folder: there is a file of this name"
        ) from error
    except OSError as error:
        raise StoreUnusable(
            f"the store {path} cannot be made: {error.strerror}"
        ) from error


def _missing(path: str) -> list[str]:
    """
    The missing ones of a folder and the folders around it, innermost first.
    """
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    return missing


def _sync_name(path: str) -> None:
    """
    Sync the name of a folder: without it, everything in the folder would be lost.
    """
    parent = os.open(os.path.dirname(path), _FOLDER_FLAGS)
    try:
        sync(parent)
    finally:
        os.close(parent)


def _make_own(path: str, mode: int, user: User | None) -> None:
    name = os.path.basename(path)
    parent = os.open(os.path.dirname(path), _FOLDER_FLAGS)
    try:
        folder = make_folder(parent, name, mode)
    except FileExistsError:
        return  # Another daemon is starting too.
    finally:
        os.close(parent)
    try:
        if user is not None:
            os.fchown(folder, user.uid, user.gid)
    finally:
        os.close(folder)


def probe(store: FileStore, path: str) -> None:
    """
    Check that a store keeps values.

    Raises:
        StoreUnusable: It does not.
    """
    key = Key(b".kvd-probe-" + new_etag().encode("ascii"))
    # The largest possible attribute: file systems have different limits.
    name = "content-type"
    state = store.fast_path_state
    if not state.keeps_attributes:
        # Backups have to keep it.
        if _keeps_attributes(state.lock.descriptor):
            _log.warn(
                "the store {path} has the ids and metadata of values in"
                " {path}/.kvd/attributes, where kvd began to keep them on a file system"
                " without extended attributes, and serves them more slowly; kvd sync"
                " copies it to a store that has none",
                path=path,
            )
        else:
            _log.warn(
                "the file system of the store {path} keeps no extended attributes: kvd"
                " keeps the ids and metadata of values in {path}/.kvd/attributes, and"
                " serves them more slowly",
                path=path,
            )
    metadata = {name: "x" * (MAX_METADATA_BYTES - len(name))}
    try:
        try:
            store.begin_at_once(key, 0, metadata).commit(UNCONDITIONAL)
        except MetadataTooLarge:
            _log.warn(
                "the file system of the store {path} keeps less than {bytes} bytes of"
                " metadata with a value; more than it keeps is refused",
                path=path,
                bytes=MAX_METADATA_BYTES,
            )
            store.begin_at_once(key, 0).commit(UNCONDITIONAL)
        store.remove(key, UNCONDITIONAL)
    except StoreFull as full:
        # Its values can still be read, and removed to make room.
        _log.warn("the store {path} is full: {reason}", path=path, reason=full)
    except Fault as fault:
        raise _unusable(path, fault) from fault


def settle(path: str, modes: Modes) -> None:
    """
    Look whether the store has come to a file system that keeps no extended attributes.

    Raises:
        StoreUnusable: That cannot be found out.
    """
    with opening(path), ExitStack() as opened:
        root = open_root(path)
        opened.callback(os.close, root)
        lock = LockFile(root, modes)
        opened.callback(lock.close)
        is_settled = keeping.settle(root, lock.descriptor, modes)
    if is_settled:
        _log.warn(
            "the values of the store {path} had ids and metadata in extended"
            " attributes, which its file system does not keep: those that are there"
            " now have lost them, and count as another program's. Go back to where"
            " they have them, and copy the store from there with kvd sync",
            path=path,
        )


def _keeps_attributes(file: int) -> bool:
    try:
        return keeping.keeps_attributes(file)
    except OSError:
        return False  # Whatever the matter is, the probe is about to meet it.


def _unusable(path: str, fault: Fault) -> StoreUnusable:
    return StoreUnusable(f"the store {path} cannot be used: {fault.sentence}")
