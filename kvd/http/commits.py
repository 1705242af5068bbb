"""
PUTs of the fast path at durability ``disk``: from the written file to the reply.

The compiled module writes and seals the file of an upload, and has it synced by a
thread that needs no turn of the Python interpreter (``kvd/native/sync.c``). When files
are synced, one event tells of all of them. Then they are published together, in one
call; their folders are synced together (`kvd.store.sync.Syncs`, which the ordinary way
uses too); and then all replies are sent, in one call. So Python does nothing for a
single PUT, as long as nothing else happens to its connection. Otherwise the connection
learns that it waits: when more bytes come, the client leaves, its time is checked, or
kvd stops.

What goes another way is continued in the ordinary one, from the point that was reached:
a sync that failed is reported, a value that could not be published is published by
`kvd.store.upload.FileUpload`, and if kvd is draining, the reply says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kvd.errors import KvdError
from kvd.http.context import ProcessContext
from kvd.http.fast_path import Commit, FastPath
from kvd.interfaces import IUpload
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.operations import Put
from kvd.model.values import Metadata, Published, ValueInfo
from kvd.store.file import FastPathState
from kvd.store.sync import Syncs, file_fault

if TYPE_CHECKING:
    from kvd.http.connection import HttpConnection


@implementer(IReadDescriptor)
class Commits:
    """
    The commits of a process that are underway. The reactor watches it.
    """

    _log = Logger()

    def __init__(
        self,
        fast_path: FastPath,
        state: FastPathState,
        syncs: Syncs,
        context: ProcessContext,
    ) -> None:
        """
        Args:
            fast_path: Begins them.
            state: Of their store.
            syncs: Syncs the folders of the store.
            context: That of the connections which wait.
        """
        self._fast_path = fast_path
        self._state = state
        self._syncs = syncs
        self._context = context

    def begun(self) -> None:
        """
        A connection waits for a commit.
        """
        self._state.underway.begun()

    def watched(self) -> None:
        """
        The reactor watches this from now on, so folders can be synced by the compiled
        module too.
        """
        self._syncs.sync_folders_later = self._fast_path.sync_folders_later

    # -- what the reactor calls -----------------------------------------------

    def fileno(self) -> int:
        return self._fast_path.sync_event()

    def logPrefix(self) -> str:
        return "commits"

    def doRead(self) -> None:
        """
        Files are synced.
        """
        published, left, folders = self._fast_path.publish_synced()
        paths = [tuple(path.split(b"/")) if path else () for path in published]
        synced = self._syncs.folders_of(paths)
        for commits, done in zip(published.values(), synced, strict=True):
            done.addCallbacks(
                partial(self._reply, commits), partial(self._refuse, commits)
            )
        # After those that are published now: the next batch of folders has theirs too.
        for path_synced, found in folders:
            path_synced(found)
        for commit in left:
            self._continue(commit)

    def connectionLost(self, reason: Failure) -> None:
        """
        The reactor cannot watch it any more.
        """

    # -- ends -----------------------------------------------------------------

    def _reply(self, commits: list[Commit], _: None) -> None:
        for commit in self._fast_path.reply_all(commits):
            self._end(commit, self._reply_to)

    def _reply_to(self, commit: Commit, connection: HttpConnection) -> None:
        if self._context.draining:
            connection.reply_to_commit(_published(commit))
        else:
            connection.committed(self._fast_path)

    def _refuse(self, commits: list[Commit], failure: Failure) -> None:
        error = failure.value
        assert error is not None
        for commit in commits:
            self._end(
                commit,
                lambda _, connection: connection.refuse_commit(error),
                partial(self._failed, failure),
            )

    def _continue(self, commit: Commit) -> None:
        """
        Publish a value in the ordinary way, or discard it if its sync failed.
        """
        try:
            upload = self._adopt(commit)
        except Exception:
            # A bug in kvd. Raised from `doRead`, it would end the watch of all commits.
            self._refuse([commit], Failure())
            return
        if commit.error:
            upload.discard()
            fault = file_fault(OSError(commit.error, os.strerror(commit.error)))
            self._end(commit, lambda _, connection: connection.refuse_commit(fault))
        else:
            self._end(
                commit,
                lambda _, connection: connection.continue_commit(upload),
                lambda: self._publish(upload),
            )

    def _publish(self, upload: IUpload) -> None:
        """
        Publish the value of a client that has left.
        """
        answer = upload.commit(UNCONDITIONAL)
        assert isinstance(answer, Deferred)
        answer.addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        if not isinstance(failure.value, KvdError):
            self._log.failure("after its connection was lost", failure=failure)

    def _adopt(self, commit: Commit) -> IUpload:
        info = _info(commit, self._metadata(commit))
        return self._state.adopt_synced(info, *commit.take_file())

    def _metadata(self, commit: Commit) -> Metadata:
        context = self._context
        request = context.heads.parse(commit.head)
        dialects = context.dialects
        mount = dialects.of(request.target, request.method)
        operation = dialects.understand(mount, request)
        assert isinstance(operation, Put)
        return operation.metadata

    def _end(
        self,
        commit: Commit,
        then: Callable[[Commit, HttpConnection], None],
        otherwise: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Call `then` with the connection that waited for a commit, or `otherwise` if it
        is gone.
        """
        unknown: HttpConnection | None = commit.unknown
        if unknown is not None:
            unknown.learn_of_commit()
        connection: HttpConnection | None = commit.connection
        try:
            if connection is not None and connection.answered():
                then(commit, connection)
            else:
                otherwise()
        except Exception:
            # A bug in kvd; the others still have to be answered.
            self._log.failure("a commit cannot be answered")
            if connection is not None:
                connection.abort()
        finally:
            if connection is not None:
                self._state.underway.finished()


def _info(commit: Commit, metadata: Metadata | None = None) -> ValueInfo:
    return ValueInfo(
        commit.key,
        commit.size,
        commit.etag,
        commit.published_us / 1_000_000,
        metadata or {},
    )


def _published(commit: Commit) -> Published:
    return Published(_info(commit), created=not commit.replaced)
