"""Every refusal the registry can give, in one table.

The docstring of a class is its default sentence. `code` is the OCI error code (distribution-spec, error
codes) and `status` the HTTP status on `/v2`; `api_status`, where it differs, the one on `/api/v1`. Handlers
raise; one place renders.

    TenureError
    ├── BadRequest ─ NameInvalid, TagInvalid, DigestInvalid, ManifestInvalid, SizeInvalid, ...
    ├── NotFound ─ NameUnknown, BlobUnknown, ManifestUnknown, UploadUnknown, ManifestBlobUnknown
    ├── Refused ─ Denied (PUT, POST: 403), DeleteDenied (DELETE: 405), Immutable
    └── Unavailable ─ TooManyRequests, Overloaded
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class TenureError(Exception):
    """something went wrong inside the registry; the log holds the details under this request id"""

    code: ClassVar[str] = "UNKNOWN"
    status: ClassVar[int] = 500
    api_status: ClassVar[int | None] = None

    def __init__(
        self,
        message: str | None = None,
        *,
        detail: Any = None,
        reasons: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.message = message or (type(self).__doc__ or "").strip()
        self.detail = detail
        self.reasons = tuple(reasons)
        self.headers = dict(headers or {})
        super().__init__(self.message)


class DatabaseUrlInvalid(TenureError):
    """database.url must be sqlite:///path or postgresql://user:password@host/name"""


class SchemaMismatch(TenureError):
    """the database does not have the schema of this program"""


class BadRequest(TenureError):
    """the request cannot be understood"""

    code, status = "UNSUPPORTED", 400


class NameInvalid(BadRequest):
    """a repository name is made of lower-case components joined by '/', 255 characters at most"""

    code = "NAME_INVALID"


class TagInvalid(BadRequest):
    """a tag has up to 128 characters from A-Z a-z 0-9 _ . - and does not begin with . or -"""

    code = "TAG_INVALID"


class DigestInvalid(BadRequest):
    """the content does not hash to the digest given"""

    code = "DIGEST_INVALID"


class SizeInvalid(BadRequest):
    """the length received does not match the length announced"""

    code = "SIZE_INVALID"


class ManifestInvalid(BadRequest):
    """the manifest is not valid"""

    code = "MANIFEST_INVALID"


class ManifestTooLarge(ManifestInvalid):
    """a manifest may have 4 MiB at most"""

    status = 413


class PageInvalid(BadRequest):
    """n must be a whole number, 0 or more"""

    code = "PAGINATION_NUMBER_INVALID"


class UploadInvalid(BadRequest):
    """the upload cannot go on with this request"""

    code = "BLOB_UPLOAD_INVALID"


class UploadRangeInvalid(UploadInvalid):
    """the chunk does not begin where the upload stands; ask for its status and go on from there"""

    status = 416


class UploadBusy(UploadInvalid):
    """another request is writing to this upload; wait for it to end, or ask for the status and go on"""

    status = 409


class BodyTooLarge(BadRequest):
    """the body is larger than this address takes"""

    code, status = "SIZE_INVALID", 413


class HeadTooLarge(BadRequest):
    """the request line or a header is too long, or there are too many headers"""

    status = 431


class CodingUnsupported(BadRequest):
    """a body comes as it is or chunked; no other Transfer-Encoding is understood"""

    status = 501


class RequestTimeout(BadRequest):
    """the request's body stopped arriving; send it again on a new connection"""

    status = 408


class MediaTypeUnsupported(BadRequest):
    """the body must be sent as application/json"""

    status = 415


class IdempotencyMismatch(BadRequest):
    """this Idempotency-Key was used for another request; a new request needs a new key"""

    code, status = "IDEMPOTENCY_MISMATCH", 422


class RangeNotSatisfiable(BadRequest):
    """the range lies outside the blob"""

    code, status = "SIZE_INVALID", 416


class Unsupported(TenureError):
    """this method is not supported here"""

    code, status = "UNSUPPORTED", 405


class PreconditionFailed(TenureError):
    """the ETag given in If-Match or If-None-Match does not fit what is stored now"""

    code, status = "DENIED", 412


class NotFound(TenureError):
    """not found"""

    code, status = "NOT_FOUND", 404


class NameUnknown(NotFound):
    """this repository is not known here"""

    code = "NAME_UNKNOWN"


class BlobUnknown(NotFound):
    """this blob is not known in this repository"""

    code = "BLOB_UNKNOWN"


class ManifestUnknown(NotFound):
    """this manifest is not known in this repository"""

    code = "MANIFEST_UNKNOWN"


class UploadUnknown(NotFound):
    """this upload is not known here: it was closed, cancelled or has expired; begin a new one"""

    code = "BLOB_UPLOAD_UNKNOWN"


class ManifestBlobUnknown(NotFound):
    """the manifest names content that this repository does not hold; push it first"""

    code = "MANIFEST_BLOB_UNKNOWN"


class Unauthorized(TenureError):
    """authentication is required"""

    code, status = "UNAUTHORIZED", 401


class Refused(TenureError):
    """this is refused"""

    code, status = "DENIED", 403


class Denied(Refused):
    """this is not allowed"""


class DeleteDenied(Refused):
    """this is in use and cannot be deleted"""

    # 405 is in the distribution-spec's failure set for DELETE; 403 and 409 are not.
    status, api_status = 405, 409


class Conflict(Refused):
    """this conflicts with what is stored now"""

    status = 409


class Unavailable(TenureError):
    """the registry cannot serve this now; try again in a moment"""

    code, status = "UNAVAILABLE", 503

    def __init__(self, message: str | None = None, *, retry_after: int = 5, **more: Any) -> None:
        super().__init__(message, **more)
        self.headers.setdefault("Retry-After", str(retry_after))


class TooManyRequests(Unavailable):
    """too many requests at once; slow down"""

    code, status = "TOOMANYREQUESTS", 429


class StorageUnavailable(Unavailable):
    """the store or the database did not answer in time; try again in a moment"""
