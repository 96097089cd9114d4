"""The server's errors: one class each, one sentence each, turned into problem+json in one place."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class ErrorItem(BaseModel):
    """One finding inside a problem: where (a JSON pointer), what, and what is allowed."""

    model_config = ConfigDict(extra="forbid")

    pointer: str
    code: str
    detail: str
    allowed: list[str] | None = None
    limit: float | None = None  # of a quota, and what of it is used
    used: float | None = None


class AppError(Exception):
    """Base of every error that a request can be answered with."""

    status = 500
    code = "internal"
    title = "Something went wrong on our side"
    always: ClassVar[dict[str, str]] = {}  # headers of every answer of this class

    def __init__(
        self,
        detail: str,
        errors: list[ErrorItem] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors or []
        self.headers = {**self.always, **(headers or {})}


class DamagedFileError(AppError):
    """A stored file isn't what was stored."""

    code, title = "damaged_file", "A stored file is damaged"


class BadRequestError(AppError):
    """The request can't be read."""

    status, code, title = 400, "bad_request", "The request can't be read"


class NotJsonError(BadRequestError):
    """The body isn't JSON."""

    code, title = "not_json", "The body isn't JSON"


class UnauthorizedError(AppError):
    """No access key, or one that isn't valid."""

    status, code, title = 401, "unauthorized", "A valid access key is needed"
    always: ClassVar[dict[str, str]] = {"WWW-Authenticate": 'Bearer realm="tdmr"'}


class ForbiddenError(AppError):
    """A valid key without the needed scope."""

    status, code, title = 403, "forbidden", "This key may not do that"


class NotFoundError(AppError):
    """Nothing here, or nothing of yours."""

    status, code, title = 404, "not_found", "There is no such thing"


class MethodNotAllowedError(AppError):
    """The thing is there, and this can't be done with it."""

    status, code, title = 405, "method_not_allowed", "This method isn't possible here"


class RequestTimeoutError(AppError):
    """The body stopped coming."""

    status, code, title = 408, "request_timeout", "The body took too long to arrive"


class ConflictError(AppError):
    """The thing is in a state that doesn't allow this."""

    status, code, title = 409, "conflict", "Its state doesn't allow that"


class DatasetNotReadyError(ConflictError):
    """A job needs a dataset that has passed its check."""

    code, title = "dataset_not_ready", "The dataset isn't ready"


class DatasetInUseError(ConflictError):
    """A dataset can't be deleted while jobs need it."""

    code, title = "dataset_in_use", "Jobs need the dataset"


class ModelNotReadyError(ConflictError):
    """A job needs a foundation that has passed its check."""

    code, title = "model_not_ready", "The model isn't ready"


class ModelInUseError(ConflictError):
    """A model can't be deleted while jobs need it."""

    code, title = "model_in_use", "Jobs need the model"


class NoOnnxError(ConflictError):
    """A student without a published file for onnxruntime."""

    code, title = "no_onnx", "The student has no ONNX file"


class OffsetMismatchError(ConflictError):
    """A part of an upload that doesn't begin where what has arrived ends."""

    code, title = "offset_mismatch", "The upload goes on elsewhere"


class TooManyEndpointsError(ConflictError):
    """The caller has as many webhook endpoints as may be."""

    code, title = "too_many_endpoints", "There are too many webhook endpoints"


class GoneError(AppError):
    """It was there, and isn't any more."""

    status, code, title = 410, "gone", "It isn't there any more"


class TusVersionError(AppError):
    """The request speaks another version of the tus protocol, or none."""

    status, code, title = 412, "tus_version", "This version of tus isn't spoken here"
    always: ClassVar[dict[str, str]] = {"Tus-Version": "1.0.0"}


class TooLargeError(AppError):
    """The body is over its cap."""

    status, code, title = 413, "too_large", "The body is too large"


class UnsupportedMediaTypeError(AppError):
    """The body is of a type this route doesn't take."""

    status, code, title = 415, "unsupported_media_type", "This type of body isn't taken here"


class RangeNotSatisfiableError(AppError):
    """The range lies outside the file."""

    status, code, title = 416, "range_not_satisfiable", "The range isn't in the file"


class InvalidError(AppError):
    """The request can be read, and is wrong."""

    status, code, title = 422, "invalid", "The request isn't valid"


class EmptyBodyError(InvalidError):
    """There is no body where one is needed."""

    code, title = "empty_body", "The body is empty"


class NotAnArchiveError(InvalidError):
    """The upload isn't a zip archive."""

    code, title = "not_an_archive", "The body isn't a zip archive"


class NotSafetensorsError(InvalidError):
    """The upload isn't a safetensors file, or not a whole one."""

    code, title = "not_safetensors", "The body isn't a safetensors file"


class BadImagesError(InvalidError):
    """Images to classify that can't be taken."""

    code, title = "bad_images", "Some of the images can't be taken"


class UnknownModelError(InvalidError):
    """The catalog has no such model for that role."""

    code, title = "unknown_model", "The catalog has no such model"


class IdempotencyKeyReusedError(InvalidError):
    """One idempotency key for two different requests."""

    code, title = "idempotency_key_reused", "This Idempotency-Key belongs to another request"


class LockedError(AppError):
    """Another request is writing to it."""

    status, code, title = 423, "locked", "Another request is writing to it"
    always: ClassVar[dict[str, str]] = {"Retry-After": "1"}


class TooManyUploadsError(AppError):
    """The caller has begun as many uploads as may be open at once."""

    status, code, title = 429, "too_many_uploads", "Too many uploads are open"


class RateLimitedError(AppError):
    """The key, or the address, asks more often than it may."""

    status, code, title = 429, "rate_limited", "Too many requests"


class QuotaExceededError(AppError):
    """The owner has used up what an owner may have."""

    status, code, title = 429, "quota_exceeded", "A quota is used up"


class ChecksumMismatchError(AppError):
    """What arrived isn't what was sent; the status is tus's own."""

    status, code, title = 460, "checksum_mismatch", "The checksum doesn't match"


class UnavailableError(AppError):
    """Something that the service needs doesn't answer."""

    status, code, title = 503, "unavailable", "The service can't do this right now"
    always: ClassVar[dict[str, str]] = {"Retry-After": "5"}


class StorageUnavailableError(UnavailableError):
    """The store of files doesn't answer, or not as it should."""

    code, title = "storage_unavailable", "The store of files doesn't answer"


class StorageRefusedError(StorageUnavailableError):
    """The store of files doesn't take the service's credentials."""

    code, title = "storage_refused", "The store of files refuses the service"


# What a route can answer with that works with stored files.
OF_STORAGE = (StorageRefusedError, StorageUnavailableError)


class BusyError(UnavailableError):
    """As much is being done at once as may be."""

    code, title = "busy", "Too much is asked for at once"
    always: ClassVar[dict[str, str]] = {"Retry-After": "1"}


class PredictionTimeoutError(UnavailableError):
    """The images took longer than a prediction may."""

    code, title = "prediction_timeout", "The prediction took too long"


class DiskFullError(AppError):
    """No room to store the upload."""

    status, code, title = 507, "insufficient_storage", "There is no room to store this"
