"""
A connection and the fast path (`kvd.http.fast_path`): what the compiled module serves,
and what it leaves to the ordinary way.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST

from kvd.http.fast_path import (
    CLOSES,
    COMMITS,
    LEAVES_UPLOAD,
    LOST,
    NOTHING,
    QUEUED,
    REMAINS,
    SERVED,
    Commit,
    FastPath,
    Remainder,
)
from kvd.http.lifecycle import ConnectionLifecycle
from kvd.http.methods import handler_for
from kvd.http.methods.put import PutHandler
from kvd.http.request import RequestHandler
from kvd.http.states import Input, State
from kvd.interfaces import IUpload
from kvd.model.requests import Request
from kvd.model.values import Published


class FastConnection(ConnectionLifecycle):
    """
    The part of a connection that has the fast path serve it.
    """

    _handler: RequestHandler | None = None
    _commit: Commit | None = None
    """Of the fast path, which this connection waits for."""
    _requests = 0

    def _begin_request(self, request: Request) -> None:
        self._requests += 1
        self._enter(State.BODY)
        self.context.row.began(request.method)

    def _begin_requests(self) -> None:
        context = self.context
        transport = self.transport
        self._read_as_usual()
        fast_path = self._fast_path()
        if fast_path is None:
            return
        joined = fast_path.join(transport.fileno())
        joined.connection = self
        if context.log is not None or transport.proxy_name is not None:
            joined.peer, joined.user = transport.client, transport.peer_user
            joined.proxy = transport.proxy_name
        secure = transport.secure
        if secure is not None:
            joined.secure, joined.records = secure, secure.functions
        self._joined = joined

    def _read_as_usual(self) -> None:
        self.transport.read_by(None if self._fast_path() is None else self._read_fast)

    def _fast_path(self) -> FastPath | None:
        # It knows what the sender of a head may do, and not whom a certificate names.
        context, transport = self.context, self.transport
        if context.authorization is not None and transport.peer_user is not None:
            return None
        if context.is_proxy(transport.client):
            # Each of its requests has a client of its own.
            return None
        return context.fast_path

    def rules_changed(self) -> None:
        """
        See `ConnectionLifecycle`.
        """
        joined = self._joined
        if joined is not None and self.transport.peer_user is not None:
            self.learn_of_commit()
            self.take_upload()
            self._update_joined(joined)

    def _read_fast(self) -> Any:
        """
        Try the fast path; called instead of `dataReceived`.
        """
        self.learn_of_commit()
        fast_path = self._fast_path()
        if fast_path is None or self._state is not State.IDLE:
            return self.transport.read()
        descriptor, secure = self.transport.fileno(), self.transport.secure
        outcome = (
            fast_path.serve(descriptor)
            if secure is None
            else fast_path.serve_secure(descriptor, secure)
        )
        return self.after_fast_path(fast_path, outcome)

    def after_fast_path(self, fast_path: FastPath, outcome: int | bytes) -> Any:
        """
        Do what is left to do after the fast path.

        Args:
            outcome: What `FastPath.serve` answered.

        Returns:
            As `IReadDescriptor.doRead`.
        """
        if isinstance(outcome, bytes):
            if not outcome:
                return CONNECTION_DONE
            self.dataReceived(outcome)
            return None
        if outcome == NOTHING:
            return None
        if outcome == LEAVES_UPLOAD:
            self.take_upload()
            return None
        if outcome == LOST:
            return CONNECTION_LOST
        if outcome & REMAINS:
            self._go_on(fast_path.take_remainder())
            return None
        if outcome == COMMITS:
            self._wait_for_commit(fast_path.take_commit(self))
        else:
            self._after_reply(fast_path, outcome)
        return None

    def _after_reply(self, fast_path: FastPath, outcome: int) -> None:
        if outcome == SERVED:
            self._wait(State.IDLE)
            return
        if outcome & CLOSES:
            if outcome & QUEUED:
                self.transport.write(fast_path.take_unsent())
                self._count_sent()
            self._close()
        else:
            self.send_rest(fast_path.take_unsent())

    def _go_on(self, rest: Remainder) -> None:
        """
        Send the rest of a reply that the fast path has begun.
        """
        count = len(rest.request)
        self._received += count
        self.context.row.received(count)
        self.transport.bytes_sent += rest.sent_bytes
        try:
            request = self.context.heads.parse(rest.request)
            self._begin_request(request)
            handler = handler_for(self, request)
        except BaseException:
            os.close(rest.descriptor)
            raise
        self._handler = handler
        handler.go_on(rest)

    def take_upload(self) -> None:
        """
        See `ConnectionLifecycle`.

        A client that needs no longer than from one `check_time` to the next for a body
        costs little that way; all others are served as without the fast path, and time
        out as they do.
        """
        upload = None if self._joined is None else self._joined.take_upload()
        if upload is None:
            return
        self._received += len(upload.request) + upload.received
        self.transport.bytes_sent += upload.sent
        self._counted_sent += upload.sent
        self._requests += 1
        self._enter(State.BODY)
        try:
            request = self.context.heads.parse(upload.request)
            handler = handler_for(self, request)
        except BaseException:
            os.close(upload.descriptor)
            raise
        self.reader.resume(request, upload.received)
        self._handler = handler
        handler.resume(upload)
        if upload.unsent:
            self.transport.write(upload.unsent)
        if upload.unwritten:
            self.dataReceived(upload.unwritten)
        else:
            self.advance()
        if self._state is State.BODY:
            self._timeouts.start(upload.waits_since)

    # -- commits of the fast path ---------------------------------------------

    def _wait_for_commit(self, commit: Commit) -> None:
        context = self.context
        self._commit = commit
        assert context.commits is not None
        context.commits.begun()
        self._requests += 1
        self._received += len(commit.head) + commit.size
        self.transport.bytes_sent += commit.sent
        self._counted_sent += commit.sent
        self._enter(State.BODY)
        self.wait_for_store()

    def learn_of_commit(self) -> None:
        """
        Something else than its reply happens: from now on, this connection knows what
        the fast path has it wait for.
        """
        commit = None if self._joined is None else self._joined.take_commit(self)
        if commit is not None:
            self._wait_for_commit(commit)

    def send_rest(self, rest: bytes) -> None:
        """
        Send what the socket did not take of a reply of the fast path.
        """
        self.transport.write(rest)
        self._count_sent()
        self.when_taken()

    def committed(self, fast_path: FastPath) -> None:
        """
        The value is on the disk, and the connection has waited for it.
        """
        commit, self._commit = self._commit, None
        assert commit is not None
        self._after_reply(
            fast_path, fast_path.reply_to(commit, self.transport.fileno())
        )
        if self._state is State.IDLE and (
            self._input is not Input.OPEN or self.reader.buffered
        ):
            self.advance()

    def reply_to_commit(self, published: Published) -> None:
        """
        The value is on the disk; the reply is not that of the fast path.
        """
        self._take_commit().published(published)
        self.advance()

    def continue_commit(self, upload: IUpload) -> None:
        """
        The value is still to be published.
        """
        handler = self._take_commit()
        try:
            handler.publish(upload)
        except Exception as error:
            handler.fail(error)
        self.advance()

    def refuse_commit(self, error: BaseException) -> None:
        """
        The value is lost.
        """
        self._take_commit().fail(error)
        self.advance()

    def _take_commit(self) -> PutHandler:
        """
        Serve the request of the commit in the ordinary way from now on.
        """
        commit, self._commit = self._commit, None
        assert commit is not None
        handler = self._handler = self._handler_of(commit)
        return handler

    def _handler_of(self, commit: Commit) -> PutHandler:
        handler = handler_for(self, self.context.heads.parse(commit.head))
        assert isinstance(handler, PutHandler)
        handler.began_before(commit.seconds)
        handler.received = commit.size
        return handler
