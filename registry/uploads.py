"""Pushing blobs (distribution-spec, "Pushing blobs"): start, status, chunks, close, cancel, mount.

Every shape that clients send is one of four: POST + PUT with the body (containerd), POST + PATCH without
length or range + empty PUT (docker, podman, crane), POST + PATCH with Content-Range + PUT with or without the
last chunk (regclient), POST with `?digest=` and the body. A session may be begun, continued and closed on
three replicas. What is wrong with a request is said before its body is read.
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import quote

from tenure.core.digest import ALGORITHMS, SHA256, Digest
from tenure.core.errors import (
    DigestInvalid,
    NameInvalid,
    SizeInvalid,
    TenureError,
    UploadInvalid,
    UploadRangeInvalid,
    UploadUnknown,
)
from tenure.core.ids import new_ulid
from tenure.core.names import check_repository
from tenure.registry.http import Answer, ClientGone, Request
from tenure.registry.plane import Plane
from tenure.storage.ingest import Ingest, claim
from tenure.storage.meta import blobs, uploads
from tenure.storage.meta.uploads import Upload

_SESSION = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
#: The spec's form is `0-9`; the two other spellings of RFC 9110 mean the same.
_CONTENT_RANGE = re.compile(r"(?:bytes[ =])?([0-9]{1,18})-([0-9]{1,18})(?:/(?:([0-9]{1,18})|\*))?\Z")


@dataclass(frozen=True, slots=True)
class Chunk:
    """What a request says of its body: where it begins in the upload, and how many bytes it has."""

    start: int | None
    length: int | None


async def start_upload(plane: Plane, request: Request) -> Answer:
    """POST /v2/<name>/blobs/uploads/: mount (201), upload at once with `?digest=` (201), or a session (202).

    A mount that cannot be done is answered with a session, never with an error: clients try several sources
    and go on with what they get. The body of a POST without `digest` is ignored, whatever its type.
    400 for a digest or `digest-algorithm` that is not supported, 403 when the disk is nearly full.
    """
    algorithm = _algorithm(request)
    digest = _digest(request)
    mounted = await _mount(plane, request)
    if mounted is not None:
        return _created(plane, request, mounted)
    if plane.room is not None:
        await plane.room.check()
    if digest is not None:
        return await _upload_at_once(plane, request, digest)
    upload = await uploads.begin_upload(
        plane.db, request.name, request.origin, algorithms=(algorithm,), expiry=plane.push.upload_expiry
    )
    return Answer(202, _state(plane, request, upload.session, 0))


async def upload_status(plane: Plane, request: Request) -> Answer:
    """GET /v2/<name>/blobs/uploads/<session>: 204 with the Range that is safe; `0-0` for an empty session."""
    upload = await uploads.get_upload(plane.db, request.name, _session(request))
    return Answer(204, _state(plane, request, upload.session, upload.offset))


async def patch_upload(plane: Plane, request: Request) -> Answer:
    """PATCH: append a chunk; 202 with the Range that is safe now.

    Without Content-Range the body goes to the end of what is there. With it, it must begin exactly there
    (else 416, and the session lives on) and be as long as it says (else 400, and nothing of it is kept).
    When the client goes away in the middle, what arrived is kept for it to ask about and to go on from.
    """
    chunk = _chunk(request)
    upload = await _claim(plane, request)
    async with Ingest(plane.db, plane.driver, upload, claim_for=plane.push.upload_claim) as ingest:
        _check_start(plane, request, upload, chunk)
        await _receive(plane, request, ingest, chunk)
        offset = await ingest.suspend(expiry=plane.push.upload_expiry)
    return Answer(202, _state(plane, request, upload.session, offset))


async def finish_upload(plane: Plane, request: Request) -> Answer:
    """PUT ?digest=: append the body, if any, and close; 201 with the blob's Location.

    Ranges as in PATCH. 400 DIGEST_INVALID for content that hashes to something else, which also ends the
    session; a digest that is missing or not supported is 400 too, but leaves the session as it was.
    """
    digest = _digest(request)
    if digest is None:
        raise DigestInvalid("the closing PUT names the digest of the whole blob: ?digest=sha256:<64 hex digits>")
    chunk = _chunk(request)
    upload = await _claim(plane, request)
    claim_for = plane.push.upload_claim
    async with Ingest(plane.db, plane.driver, upload, claim_for=claim_for, algorithm=digest.algorithm) as ingest:
        _check_start(plane, request, upload, chunk)
        await _receive(plane, request, ingest, chunk)
        await ingest.finish(digest, request.origin, lease=plane.push.lease)
    return _created(plane, request, digest)


async def cancel_upload(plane: Plane, request: Request) -> Answer:
    """DELETE: end the session, 204; its bytes are removed in the background."""
    await uploads.cancel_upload(plane.db, request.name, _session(request))
    return Answer(204)


async def _upload_at_once(plane: Plane, request: Request, digest: Digest) -> Answer:
    """POST with the whole body. The client knows no session, so one that fails is ended at once."""
    claim_for = plane.push.upload_claim
    upload = await uploads.begin_upload(
        plane.db,
        request.name,
        request.origin,
        algorithms=(digest.algorithm,),
        expiry=plane.push.upload_expiry,
        owner=new_ulid(),
        claim_for=claim_for,
    )
    async with Ingest(plane.db, plane.driver, upload, claim_for=claim_for, algorithm=digest.algorithm) as ingest:
        try:
            await ingest.feed(request.body.chunks(), request.body.length)
            await ingest.finish(digest, request.origin, lease=plane.push.lease)
        except (TenureError, ClientGone):
            with suppress(TenureError):
                await ingest.cancel()
            raise
    return _created(plane, request, digest)


async def _mount(plane: Plane, request: Request) -> Digest | None:
    """The digest that was mounted, or None: then the client uploads. Every reason to refuse looks the same."""
    wanted = request.param("mount")
    if not wanted:
        return None
    source = request.param("from") or None
    try:
        digest = Digest.parse(wanted)
        if source is not None:
            check_repository(source)
    except (DigestInvalid, NameInvalid):
        return None
    mounted = await blobs.mount_blob(plane.db, request.name, digest, source, request.origin, lease=plane.push.lease)
    return digest if mounted is not None else None


async def _claim(plane: Plane, request: Request) -> Upload:
    return await claim(plane.db, request.name, _session(request), claim_for=plane.push.upload_claim)


async def _receive(plane: Plane, request: Request, ingest: Ingest, chunk: Chunk) -> None:
    try:
        await ingest.feed(request.body.chunks(), chunk.length)
    except ClientGone:
        await ingest.suspend(expiry=plane.push.upload_expiry)
        raise


def _session(request: Request) -> str:
    """The session in the path; what cannot be one of ours never reaches the database."""
    session = request.params["session"]
    if not _SESSION.match(session):
        raise UploadUnknown()
    return session


def _algorithm(request: Request) -> str:
    """`digest-algorithm` of a POST: what to hash while the bytes stream in."""
    algorithm = request.param("digest-algorithm")
    if algorithm is None:
        return SHA256
    if algorithm not in ALGORITHMS:
        raise DigestInvalid(f"digest algorithm {algorithm!r} is not supported; use sha256 or sha512")
    return algorithm


def _digest(request: Request) -> Digest | None:
    """`?digest=`; DigestInvalid for one that cannot be read, and for two that differ."""
    given = request.query.get("digest", [])
    if len(set(given)) > 1:
        raise DigestInvalid("the request names two digests; one blob has one")
    return Digest.parse(given[0]) if given else None


def _chunk(request: Request) -> Chunk:
    """Content-Range and Content-Length, which must agree."""
    header = request.header("content-range")
    length = request.body.length
    if header is None:
        return Chunk(None, length)
    match = _CONTENT_RANGE.match(header.strip())
    if match is None or int(match[2]) < int(match[1]) or (match[3] and int(match[3]) <= int(match[2])):
        raise UploadInvalid(f"Content-Range {header!r} cannot be read; write first-last, for example 0-1023")
    announced = int(match[2]) - int(match[1]) + 1
    if length is not None and length != announced:
        raise SizeInvalid(f"Content-Range announces {announced} bytes, Content-Length {length}")
    return Chunk(int(match[1]), announced)


def _check_start(plane: Plane, request: Request, upload: Upload, chunk: Chunk) -> None:
    if chunk.start is None or chunk.start == upload.offset:
        return
    raise UploadRangeInvalid(
        f"the chunk begins at byte {chunk.start}, but the upload stands at byte {upload.offset}; go on from there",
        headers=_state(plane, request, upload.session, upload.offset),
    )


def _state(plane: Plane, request: Request, session: str, offset: int) -> dict[str, str]:
    """The headers that tell where a session is and how far it got. Nothing safe is written `0-0` too."""
    return {
        "Location": _address(plane, request, f"/v2/{request.name}/blobs/uploads/{session}"),
        "Range": f"0-{max(offset - 1, 0)}",
        "Docker-Upload-UUID": session,
    }


def _created(plane: Plane, request: Request, digest: Digest) -> Answer:
    location = _address(plane, request, f"/v2/{request.name}/blobs/{quote(str(digest), safe=':')}")
    return Answer(201, {"Location": location, "Docker-Content-Digest": str(digest)})


def _address(plane: Plane, request: Request, path: str) -> str:
    """Relative unless told otherwise: proxies cannot break it, and no client's SSRF guard trips over it."""
    return request.base_url + path if plane.pull.absolute_urls else path
