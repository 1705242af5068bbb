"""
Where stores are: two that share a folder, or a prefix in a bucket, would take each
other's values for their own.
"""

from __future__ import annotations

import os

from kvd.interfaces import IEngineStoreMaker, IFileStoreMaker, IStoreMaker
from kvd.plugins import IStoreDeclaration, load
from kvd.settings import StoreLocation


def overlap(one: StoreLocation, other: StoreLocation) -> bool:
    """
    Whether two stores are the same, or the folder of one is in that of the other.
    """
    if one == other:
        return True
    maker: IStoreMaker = load(IStoreDeclaration, one.scheme)
    if one.scheme == other.scheme and IEngineStoreMaker.providedBy(maker):
        return IEngineStoreMaker(maker).share(one.path, other.path)
    if not (_has_folder(one) and _has_folder(other)):
        return False
    return _contains(one.path, other.path) or _contains(other.path, one.path)


def _has_folder(location: StoreLocation) -> bool:
    maker: IStoreMaker = load(IStoreDeclaration, location.scheme)
    return bool(IFileStoreMaker.providedBy(maker))


def _contains(outer: str, inner: str) -> bool:
    """
    Whether a folder is another one or around it, whatever links and mounts lead there.
    """
    try:
        sought = os.stat(outer)
    except OSError:
        return False  # What does not exist contains nothing.
    folder = os.path.realpath(inner)
    while True:
        try:
            if os.path.samestat(sought, os.stat(folder)):
                return True
        except OSError:
            pass  # It will be created; the folders around it are looked at.
        folder, below = os.path.dirname(folder), folder
        if folder == below:
            return False
