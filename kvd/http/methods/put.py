"""
PUT: a body on its way into the store.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from kvd.errors import KeyAbsent, LengthRequired, ValueTooLarge
from kvd.http.methods.contract import Exchange, Fields, Replier
from kvd.http.site import Site
from kvd.http.wire.digests import Verification
from kvd.interfaces import Answer, IStore, IUpload
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.model.operations import Put
from kvd.model.values import Published, ValueInfo


class PutExchange(Exchange):
    """
    Stores a body, chunk by chunk, and publishes it at its end.
    """

    def __init__(self, operation: Put, replier: Replier, site: Site) -> None:
        self._operation = operation
        self._replier = replier
        self._site = site
        self._upload: IUpload | None = None
        self._received = 0
        # Looked at here alone: a body with digests is never moved by the kernel.
        self._verification = (
            Verification(operation.digests) if operation.digests else None
        )

    def begin(self) -> None:
        request = self._replier.request
        if self._operation.empty:
            self._begin_upload(0)
            return
        if request.length is None and not request.chunked:
            raise LengthRequired(
                "PUT needs a Content-Length or a chunked body, so that a value"
                " that broke off is not taken for a whole one."
            )
        self._check_size(request.length or 0)
        if self._operation.conditions is UNCONDITIONAL:
            self._begin_upload(request.length)
        else:
            self._check_conditions(request.length)

    def _check_size(self, size: int) -> None:
        limit = self._site.limits.value_bytes
        if limit is not None and size > limit:
            raise ValueTooLarge(f"A value may have at most {limit} bytes here.")

    def _check_conditions(self, length: int | None) -> None:
        # Asked early so that a refusal spares the client its body; the
        # decision that counts is made at publication, under the key's lock.
        def decide(current: ValueInfo | None) -> None:
            self._operation.conditions.check_change(current)
            self._begin_upload(length)

        self._replier.when(_or_absent(self._site.store, self._operation.key), decide)

    def _begin_upload(self, length: int | None) -> None:
        def begun(upload: IUpload) -> None:
            self._upload = upload
            self._replier.proceed()

        self._replier.when(
            self._site.store.begin(
                self._operation.key, length, self._operation.metadata
            ),
            begun,
            undo=lambda upload: upload.discard(),
        )

    def chunk(self, data: bytes) -> None:
        if self._operation.empty:
            return
        self._received += len(data)
        if self._replier.request.chunked:
            self._check_size(self._received)
        if self._verification is not None:
            self._verification.update(data)
        assert self._upload is not None
        self._replier.when(self._upload.write(data), lambda _: None)

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
        self._replier.when(upload.commit(self._operation.conditions), self._published)

    def _published(self, published: Published) -> None:
        status, fields = published_reply(published, self._site.store.durability)
        self._replier.reply(status, fields)

    def abandon(self) -> None:
        if self._upload is not None:
            upload, self._upload = self._upload, None
            upload.discard()


def published_reply(published: Published, durability: str) -> tuple[int, Fields]:
    """
    The status and the fields of the reply to a PUT.
    """
    return 201 if published.created else 204, [
        ("ETag", f'"{published.info.etag}"'),
        ("Kvd-Durability", durability),
    ]


def _or_absent(store: IStore, key: Key) -> Answer[ValueInfo | None]:
    """
    What is known of a value, None where there is none.
    """
    try:
        answer: Answer[ValueInfo] = store.stat(key)
    except KeyAbsent:
        return None
    if isinstance(answer, Deferred):
        return answer.addErrback(lambda failure: failure.trap(KeyAbsent) and None)
    return answer
