"""
Uploads that several requests write (draft-ietf-httpbis-resumable-upload-11).
"""

from __future__ import annotations

from collections.abc import Sequence

from kvd.errors import (
    BadRequest,
    LengthRequired,
    OperationUnsupported,
    StoreBusy,
    UploadAbsent,
    UploadMismatch,
)
from kvd.http.context import ProcessContext
from kvd.http.methods.put import PutHandler
from kvd.http.reply_fields import Fields
from kvd.http.request import RequestHandler
from kvd.http.wire.resumption import interim, location_of
from kvd.interfaces import (
    IResumableUpload,
    IResumableUploads,
    IResumingStore,
    IUpload,
)
from kvd.model.conditions import UNCONDITIONAL, Conditions
from kvd.model.operations import Append, CancelUpload, LookAtUpload, ResumablePut
from kvd.model.uploads import UploadRecord
from kvd.settings import Limits


def _uploads_of(context: ProcessContext) -> IResumableUploads | None:
    store = IResumingStore(context.store, None)
    return None if store is None else store.resumable


def _known_uploads(context: ProcessContext) -> IResumableUploads:
    uploads = _uploads_of(context)
    if uploads is None:
        raise UploadAbsent("There is no such upload: this store resumes none.")
    return uploads


def limit_field(limits: Limits, lifetime_seconds: float) -> tuple[str, str]:
    """
    The field that says how long an upload is kept, and how large it may become.
    """
    text = f"max-age={int(lifetime_seconds)}"
    if limits.value_bytes is not None:
        text += f", max-size={limits.value_bytes}"
    return "Upload-Limit", text


class PartHandler(PutHandler):
    """
    Stores a body that is a part of a value, or all of it, and keeps what has come of it
    if the connection breaks.
    """

    _held: IResumableUpload | None = None
    """The upload, until it is committed or suspended."""
    _complete = True
    _is_last = False
    """Whether all of the value has come."""

    def chunk(self, data: bytes) -> None:
        held = self._held
        if held is None:
            super().chunk(data)
            return
        if self._request.chunked:
            size = held.offset + self.received
            self._check_size(size)
            self._check_length(held, size)
        self.when(held.write(data), _go_on)

    def movable_to(self) -> IUpload | None:
        return super().movable_to() if self._held is None else self._held

    @property
    def keeps_part(self) -> bool:
        return self._held is not None

    def _check_length(
        self, held: IResumableUpload, size: int, *, exactly: bool = False
    ) -> None:
        length = held.record.length
        if length is not None and (size > length or (exactly and size < length)):
            raise BadRequest(
                f"The value has {length} bytes, as the client has said; with this body"
                f" it would have {size}."
            )

    def end(self) -> None:
        held = self._held
        if held is None:
            super().end()
            return
        size = held.offset + self.received
        if not self._complete:
            self._suspend()
            self._taken(held, size)
            return
        self._check_length(held, size, exactly=True)
        self._is_last = True
        self._held = None
        self.when(held.commit(held.record.conditions), self.published)

    def _taken(self, held: IResumableUpload, size: int) -> None:
        """
        Reply that more may follow.
        """
        self.reply(204, self._state_fields(held, size))

    def _state_fields(self, held: IResumableUpload, size: int) -> Fields:
        return [
            ("Upload-Complete", "?0"),
            ("Upload-Offset", str(size)),
            limit_field(self._context.limits, held.record.lifetime_seconds),
        ]

    def _suspend(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.suspend()

    def abandon(self) -> None:
        self._suspend()
        super().abandon()

    def _head(self, status: int, fields: Sequence[tuple[str, str]]) -> bytes:
        if self._is_last:
            fields = [*fields, ("Upload-Complete", "?1")]
        return super()._head(status, fields)


class BeginUploadHandler(PartHandler):
    """
    Begins an upload.
    """

    _operation: ResumablePut
    _uploads: IResumableUploads | None = None

    def begin(self) -> None:
        operation, request = self._operation, self._request
        self._complete = operation.complete
        # A digest is that of the bytes of one request, as they come.
        if self._context.limits.upload_seconds is not None and not (
            operation.once or operation.digests
        ):
            self._uploads = _uploads_of(self._context)
        if self._uploads is None:
            if not operation.complete:
                raise OperationUnsupported(
                    "This value has to be sent in one request: uploads cannot be"
                    " resumed here, or not those that come with a digest."
                )
            super().begin()
            return
        if operation.complete and request.length is None and not request.chunked:
            raise LengthRequired(
                "An upload that is complete with this request needs a Content-Length or"
                " a chunked body, so that kvd can tell whether all of it has come."
            )
        self._check_size(operation.length or request.length or 0)
        if operation.conditions is UNCONDITIONAL:
            self._begin_upload(operation.length)
        else:
            self._check_conditions(operation.length)

    def _begin_upload(
        self, length: int | None, conditions: Conditions = UNCONDITIONAL
    ) -> None:
        operation = self._operation
        seconds = self._context.limits.upload_seconds
        if self._uploads is None or seconds is None:
            super()._begin_upload(length, conditions)
            return
        record = UploadRecord(
            operation.key,
            operation.length,
            operation.metadata,
            operation.conditions,
            self._admission.user,
            seconds,
        )
        answer = self._uploads.begin(record)
        self.when(answer, self._begun_resumable, undo=_discard)

    def _begun_resumable(self, upload: IResumableUpload | None) -> None:
        operation, request = self._operation, self._request
        if upload is None:
            if not operation.complete:
                raise StoreBusy("Too many uploads are interrupted: try again later.")
            self._uploads = None
            self._begin_upload(request.length, operation.conditions)
            return
        self._held = upload
        if request.minor:
            # A client of HTTP/1.0 knows no interim replies.
            field = limit_field(self._context.limits, upload.record.lifetime_seconds)
            location = location_of(operation.key, upload.identity)
            self._connection.transport.write(
                interim(location, field, operation.interop)
            )
        self.proceed()

    def _taken(self, held: IResumableUpload, size: int) -> None:
        location = ("Location", location_of(self._operation.key, held.identity))
        self.reply(201, [location, *self._state_fields(held, size)])


class AppendHandler(PartHandler):
    """
    Goes on with an upload.
    """

    def begin(self) -> None:
        append: object = self._operation
        request = self._request
        assert isinstance(append, Append)
        self._complete = append.complete
        uploads = _known_uploads(self._context)
        key, identity, user = append.key, append.identity, self._admission.user
        record, size = uploads.look(identity, key, user)
        if record.done:
            raise UploadAbsent("This upload is complete: its value was stored.")
        _check_offset(append, size)
        more = request.length or 0
        self._check_size(max(size + more, append.length or 0))
        held = uploads.resume(identity, key, user, append.length)
        self._held = held
        # It may have grown meanwhile.
        _check_offset(append, held.offset)
        self._check_length(held, size + more)
        self.proceed()


def _check_offset(append: Append, size: int) -> None:
    if size != append.offset:
        raise UploadMismatch(
            f"The upload has {size} bytes, not {append.offset}: go on there.", size
        )


class LookAtUploadHandler(RequestHandler):
    """
    Says how far an upload is.
    """

    _operation: LookAtUpload

    def begin(self) -> None:
        self.proceed()

    def end(self) -> None:
        operation = self._operation
        record, size = _known_uploads(self._context).look(
            operation.identity, operation.key, self._admission.user
        )
        fields: Fields = [
            ("Upload-Complete", f"?{int(record.done)}"),
            ("Upload-Offset", str(size)),
            limit_field(self._context.limits, record.lifetime_seconds),
        ]
        if record.length is not None:
            fields.append(("Upload-Length", str(record.length)))
        self.reply(204, [*fields, ("Cache-Control", "no-store")])


class CancelUploadHandler(RequestHandler):
    """
    Removes an upload.
    """

    _operation: CancelUpload

    def begin(self) -> None:
        self.proceed()

    def end(self) -> None:
        operation = self._operation
        _known_uploads(self._context).cancel(
            operation.identity, operation.key, self._admission.user
        )
        self.reply(204, [])


def _discard(upload: IResumableUpload | None) -> None:
    if upload is not None:
        upload.discard()


def _go_on(_: None) -> None:
    """
    The next chunk is welcome.
    """
