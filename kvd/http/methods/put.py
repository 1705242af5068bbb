"""
PUT of a key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred

from kvd.errors import (
    KeyAbsent,
    LengthRequired,
    PeerError,
    PreconditionFailed,
    ValueFixed,
    ValueTooLarge,
)
from kvd.http.fast_path import PartialUpload
from kvd.http.methods.same_value import OwnDigest, digest_of
from kvd.http.reply_fields import published_reply
from kvd.http.request import RequestHandler
from kvd.http.wire.digests import Verification
from kvd.interfaces import Answer, IUpload, IValue
from kvd.model.conditions import UNCONDITIONAL, Conditions, EntityTags
from kvd.model.exchanges import Values
from kvd.model.keys import Key
from kvd.model.operations import Check, Put, PutPart
from kvd.model.values import Published, ValueInfo

if TYPE_CHECKING:
    from kvd.http.wire.aws_chunked import AwsChunkedBody

Found = TypeVar("Found")


class PutHandler(RequestHandler):
    """
    Stores a body, chunk by chunk, and publishes it at its end.
    """

    _operation: Put
    _upload: IUpload | None = None
    _awaited: Deferred[Any] | None = None
    """The last answer that is of use only for the rest of the request."""
    # The kernel never moves a body that has digests, so `chunk` gets all of it.
    _verification: Verification | None = None
    # Where a value is written once: neither does it then.
    _own: OwnDigest | None = None
    # Where the body is not the value itself.
    _coded: AwsChunkedBody | None = None

    def begin(self) -> None:
        check = self._operation.check
        if check is None:
            self._begin()
        else:
            self._check_then(check, self._begin)

    def _check_then(self, check: Check, then: Callable[[], None]) -> None:
        checked = check(self.values())

        def holds(_: None) -> None:
            then()

        self._when_useful(Deferred.fromCoroutine(checked), holds)

    def _when_useful(
        self,
        answer: Answer[Found],
        then: Callable[[Found], None],
        undo: Callable[[Found], object] | None = None,
    ) -> None:
        """
        As `when`, with an answer that changes nothing by itself: it is cancelled if the
        request is given up.
        """
        if isinstance(answer, Deferred):
            self._awaited = answer
        self.when(answer, then, undo)

    def _begin(self) -> None:
        operation, request = self._operation, self._request
        length = request.length
        if operation.coding is not None:
            # Not at the top: only where it is needed.
            from kvd.http.wire.aws_chunked import AwsChunkedBody

            self._coded = AwsChunkedBody(operation.coding)
            length = operation.coding.length
        if operation.digests:
            self._verification = Verification(operation.digests)
        if operation.once:
            self._own = OwnDigest()
        elif operation.empty:
            self._begin_upload(0)
            return
        if operation.empty:
            self._check_conditions(0)
            return
        if request.length is None and not request.chunked:
            raise LengthRequired(
                "PUT needs a Content-Length or a chunked body, so that kvd can tell an"
                " incomplete value from a complete one."
            )
        self._check_size(length or 0)
        if operation.conditions is UNCONDITIONAL and not operation.once:
            self._begin_upload(length)
        else:
            self._check_conditions(length)

    def _check_size(self, size: int) -> None:
        limit = self._context.limits.value_bytes
        if limit is not None and size > limit:
            raise ValueTooLarge(f"A value may have at most {limit} bytes here.")

    def _check_conditions(self, length: int | None) -> None:
        # Asked early, so that the client need not send a body that is refused. The
        # decision that counts is made at publication, under the key's lock.
        def decide(current: ValueInfo | None) -> None:
            conditions = self._operation.conditions
            conditions.check_change(current)
            if self._operation.once:
                if current is not None:
                    self._check_same(current, length)
                conditions = _once(conditions, current)
            self._begin_upload(length, conditions)

        current = _if_any(self._context.store.stat, self._operation.key)
        self._when_useful(current, decide)

    def _check_same(self, current: ValueInfo, length: int | None) -> None:
        """
        Refuse another value, where its length or what is said about it tells.
        """
        if length is not None and length != current.size:
            raise _fixed()
        # With another encoding, clients would read another value.
        if self._operation.metadata != current.metadata:
            raise _fixed()

    def _begin_upload(
        self, length: int | None, conditions: Conditions = UNCONDITIONAL
    ) -> None:
        operation = self._operation
        answer = self._context.store.begin(
            operation.key, length, operation.metadata, conditions
        )
        self._when_useful(answer, self._begun, undo=_discard)

    def _begun(self, upload: IUpload) -> None:
        self._upload = upload
        self.proceed()

    def resume(self, upload: PartialUpload) -> None:
        operation, length = self._operation, self._request.length
        assert length is not None
        self.began_before(upload.seconds)
        self.received = upload.received
        self._upload = upload.adopt(
            operation.key,
            length,
            operation.metadata,
            upload.descriptor,
            upload.name,
            upload.held,
        )

    def chunk(self, data: bytes) -> None:
        if self._operation.empty:
            return
        if self._coded is not None:
            data = self._coded.take(data)
            if not data:
                return
        elif self._request.chunked:
            self._check_size(self.received)
        if self._verification is not None:
            self._verification.update(data)
        if self._own is not None:
            self._own.update(data)
        assert self._upload is not None
        self.when(self._upload.write(data), _go_on)

    def movable_to(self) -> IUpload | None:
        # Not if the body is not the value, or something has to be known of its bytes.
        if self._operation.empty or self._coded is not None:
            return None
        if self._verification is not None or self._own is not None:
            return None
        return self._upload

    def end(self) -> None:
        if self._coded is not None:
            self._coded.finish()
        if self._verification is not None:
            self._verification.check()
        confirm = self._operation.confirm
        if confirm is None:
            self._end()
        else:
            self._check_then(confirm, self._end)

    def _end(self) -> None:
        if self._own is None:
            self._commit(self._operation.conditions)
        else:
            self._when_useful(
                _if_any(self._context.store.open, self._operation.key),
                self._commit_once,
                undo=_close,
            )

    def _commit(self, conditions: Conditions) -> None:
        assert self._upload is not None
        # A commit that fails has discarded the upload itself.
        upload, self._upload = self._upload, None
        self.when(upload.commit(conditions), self.published)

    @property
    def _size(self) -> int:
        """
        How much of the value has come.
        """
        return self.received if self._coded is None else self._coded.size

    def _commit_once(self, value: IValue | None) -> None:
        """
        Publish if the key has no value, or the same one; the key's lock decides whether
        that is so at the moment of publication.

        The same value is published again: only so the reply can promise its durability.
        """
        conditions = self._operation.conditions
        if value is None:
            self._commit(_once(conditions, None))
            return
        same = _once(conditions, value.info)
        try:
            conditions.check_change(value.info)
            size = 0 if self._operation.empty else self._size
            self._check_same(value.info, size)
        except PeerError:
            value.close()
            raise

        def compare(digest: bytes) -> None:
            assert self._own is not None
            if digest != self._own.digest():
                raise _fixed()
            self._commit(same)

        self._when_useful(digest_of(value, self._context), compare)

    def fail(self, error: BaseException) -> None:
        if self._own is not None and isinstance(error, PreconditionFailed):
            unconditional = self._operation.conditions is UNCONDITIONAL
            if unconditional:
                # Another client was faster.
                error = _fixed()
        super().fail(error)

    def publish(self, upload: IUpload) -> None:
        """
        Publish an upload that the fast path has written.
        """
        self._upload = upload
        self.end()

    def published(self, published: Published) -> None:
        """
        Reply that the value is stored.
        """
        status, fields = published_reply(published, self._context.store.durability)
        self.reply(status, fields)

    def abandon(self) -> None:
        if self._awaited is not None:
            # An engine may send a long value for it, or not answer.
            self._awaited.cancel()
        if self._upload is not None:
            upload, self._upload = self._upload, None
            upload.discard()


class PutPartHandler(PutHandler):
    """
    Stores a body as a part of a value.
    """

    def begin(self) -> None:
        part: object = self._operation
        assert isinstance(part, PutPart)
        # Not at the top: only where it is needed.
        from kvd.http.multipart import key_of_part

        self._operation = Put(
            key_of_part(part.key, part.upload, part.number),
            digests=part.digests,
            coding=part.coding,
            check=partial(
                _check_upload, folder=part.folder, key=part.key, upload=part.upload
            ),
        )
        super().begin()


async def _check_upload(values: Values, folder: bytes, key: Key, upload: str) -> None:
    await values.check_upload(folder, key, upload)


def _once(conditions: Conditions, current: ValueInfo | None) -> Conditions:
    """
    The conditions of a value that is written once: that the key still has no value, or
    the same one.
    """
    if current is None:
        return replace(conditions, if_none_match=EntityTags(any=True))
    same = EntityTags(frozenset((current.etag,)))
    return replace(conditions, if_match=same, if_none_match=None)


def _fixed() -> ValueFixed:
    return ValueFixed(
        "The key has another value already, or one of another type or encoding, and"
        " below this prefix a value cannot be replaced: choose another key."
    )


def _close(value: IValue | None) -> None:
    if value is not None:
        value.close()


def _discard(upload: IUpload) -> None:
    upload.discard()


def _go_on(_: None) -> None:
    """
    The next chunk is welcome.
    """


def _if_any(find: Callable[[Key], Answer[Found]], key: Key) -> Answer[Found | None]:
    """
    What a store finds under a key, or None if there is no value.
    """
    try:
        answer = find(key)
    except KeyAbsent:
        return None
    if isinstance(answer, Deferred):
        return answer.addErrback(lambda failure: failure.trap(KeyAbsent) and None)
    return answer
