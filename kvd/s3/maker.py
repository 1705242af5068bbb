"""
Opens the S3 store; the setting is ``s3://BUCKET/PREFIX?endpoint=URL,URL``.

botocore, and what else ``pip install 'txkvd[s3]'`` brings, is imported when a store is
opened, not when a location is read.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from zope.interface import implementer

from kvd.errors import BadSetting, StoreFault
from kvd.interfaces import IEngineStoreMaker, IStore
from kvd.s3.location import read_location
from kvd.settings import Durability

if TYPE_CHECKING:
    from kvd.s3.signing import Identity

_NEEDED = ("botocore", "defusedxml", "tenacity")


@implementer(IEngineStoreMaker)
class ObjectStoreMaker:
    """
    Opens buckets.
    """

    _identity: Identity | None = None
    _answered = ""
    """The endpoint that had the bucket when it was last asked."""

    def resolve(self, path: str) -> str:
        location = read_location(path)
        missing = [name for name in _NEEDED if find_spec(name) is None]
        if missing:
            raise BadSetting(
                f"the S3 store needs {', '.join(missing)}: run pip install '.[s3]' in"
                " the folder of kvd's sources"
            )
        return str(location)

    def prepare(self, path: str) -> None:
        from kvd.s3.preparing import check

        self._answered = check(read_location(path), self._answered)

    def load(self) -> None:
        import kvd.s3.opening  # noqa: F401 - before the fork
        from kvd.s3.signing import find_identity

        # Here rather than in each worker, which would need 6 MiB for it.
        try:
            self._identity = find_identity()
        except StoreFault:
            # The first request that needs it reports why.
            self._identity = None

    def share(self, path: str, other: str) -> bool:
        one, another = read_location(path), read_location(other)
        return one.prefix == another.prefix and one.may_be_bucket_of(another)

    def open_store(self, path: str, durability: Durability) -> IStore:
        from kvd.s3.opening import open_location

        return open_location(read_location(path), self._identity)


maker = ObjectStoreMaker()
