"""
PUT of a key.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from kvd.errors import KeyAbsent, LengthRequired, ValueTooLarge
from kvd.http.fast_path import PartialUpload
from kvd.http.reply_fields import published_reply
from kvd.http.request import RequestHandler
from kvd.http.wire.digests import Verification
from kvd.interfaces import Answer, IStore, IUpload
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.model.operations import Put
from kvd.model.values import Published, ValueInfo


class PutHandler(RequestHandler):
    """
    Stores a body, chunk by chunk, and publishes it at its end.
    """

    _operation: Put
    _upload: IUpload | None = None
    # The kernel never moves a body that has digests, so `chunk` gets all of it.
    _verification: Verification | None = None

    def begin(self) -> None:
        operation, request = self._operation, self._request
        if operation.digests:
            self._verification = Verification(operation.digests)
        if operation.empty:
            self._begin_upload(0)
            return
        if request.length is None and not request.chunked:
            raise LengthRequired(
                "PUT needs a Content-Length or a chunked body, so that kvd can tell an"
                " incomplete value from a complete one."
            )
        self._check_size(request.length or 0)
        if operation.conditions is UNCONDITIONAL:
            self._begin_upload(request.length)
        else:
            self._check_conditions(request.length)

    def _check_size(self, size: int) -> None:
        limit = self._context.limits.value_bytes
        if limit is not None and size > limit:
            raise ValueTooLarge(f"A value may have at most {limit} bytes here.")

    def _check_conditions(self, length: int | None) -> None:
        # Asked early, so that the client need not send a body that is refused. The
        # decision that counts is made at publication, under the key's lock.
        def decide(current: ValueInfo | None) -> None:
            self._operation.conditions.check_change(current)
            self._begin_upload(length)

        self.when(_or_absent(self._context.store, self._operation.key), decide)

    def _begin_upload(self, length: int | None) -> None:
        operation = self._operation
        self.when(
            self._context.store.begin(operation.key, length, operation.metadata),
            self._begun,
            undo=_discard,
        )

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
        )

    def chunk(self, data: bytes) -> None:
        if self._operation.empty:
            return
        if self._request.chunked:
            self._check_size(self.received)
        if self._verification is not None:
            self._verification.update(data)
        assert self._upload is not None
        self.when(self._upload.write(data), _go_on)

    def descriptor(self) -> int | None:
        if self._upload is None or self._operation.empty or self._verification:
            return None
        return self._upload.fileno()

    def end(self) -> None:
        if self._verification is not None:
            self._verification.check()
        assert self._upload is not None
        # A commit that fails has discarded the upload itself.
        upload, self._upload = self._upload, None
        self.when(upload.commit(self._operation.conditions), self.published)

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
        if self._upload is not None:
            upload, self._upload = self._upload, None
            upload.discard()


def _discard(upload: IUpload) -> None:
    upload.discard()


def _go_on(_: None) -> None:
    """
    The next chunk is welcome.
    """


def _or_absent(store: IStore, key: Key) -> Answer[ValueInfo | None]:
    """
    The description of a value, or None if there is none.
    """
    try:
        answer: Answer[ValueInfo] = store.stat(key)
    except KeyAbsent:
        return None
    if isinstance(answer, Deferred):
        return answer.addErrback(lambda failure: failure.trap(KeyAbsent) and None)
    return answer
