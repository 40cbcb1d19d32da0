"""What points at a digest by `subject` (distribution-spec, "Listing referrers")."""

import json
from typing import Any
from urllib.parse import quote

from tenure.core import media
from tenure.core.digest import Digest
from tenure.core.errors import PageInvalid
from tenure.core.manifest import MAX_MANIFEST
from tenure.registry.http import Answer, Request
from tenure.registry.plane import Plane
from tenure.storage.meta.referrers import Referrer, list_referrers

#: bytes of descriptors in one answer: with the frame around them it stays below what clients read of an index
_PAGE_BYTES = MAX_MANIFEST - 1024
#: referrers fetched at once; each brings its manifest, 4 MiB at most
_BATCH = 16


async def get_referrers(plane: Plane, request: Request) -> Answer:
    """An image index of descriptors, each with all annotations of its manifest; empty for an unknown subject.

    `artifactType` filters, and `OCI-Filters-Applied` says so. An answer stays below 4 MiB; a `Link` leads on.
    """
    subject = Digest.parse(request.params["digest"])
    wanted = _artifact_type(request)
    entries, more = await _collect(plane, request, subject, wanted, _after(request))
    headers = {"Content-Type": media.OCI_INDEX}
    if wanted is not None:
        headers["OCI-Filters-Applied"] = "artifactType"
    if more is not None:
        filtered = f"artifactType={quote(wanted, safe='')}&" if wanted is not None else ""
        headers["Link"] = f'<{request.path}?{filtered}last={more}>; rel="next"'
    body = b'{"schemaVersion":2,"mediaType":"%s","manifests":[%s]}' % (media.OCI_INDEX.encode(), b",".join(entries))
    return Answer(200, headers, body)


async def _collect(
    plane: Plane, request: Request, subject: Digest, wanted: str | None, after: int
) -> tuple[list[bytes], int | None]:
    """Descriptors as JSON, and where the next page begins, if there is one."""
    entries: list[bytes] = []
    room = _PAGE_BYTES
    while True:
        found = await list_referrers(plane.db, request.name, subject, artifact_type=wanted, after=after, limit=_BATCH)
        for referrer in found:
            entry = _descriptor(referrer)
            room -= len(entry) + 1
            # One entry always goes out, so that a page can never be stuck.
            if room < 0 and entries:
                return entries, after
            entries.append(entry)
            after = referrer.id
        if len(found) < _BATCH:
            return entries, None


def _descriptor(referrer: Referrer) -> bytes:
    descriptor: dict[str, Any] = {
        "mediaType": referrer.media_type,
        "digest": str(referrer.digest),
        "size": referrer.size,
    }
    if referrer.artifact_type:
        descriptor["artifactType"] = referrer.artifact_type
    annotations = json.loads(referrer.payload).get("annotations")
    if annotations:
        descriptor["annotations"] = annotations
    # ASCII with escapes: annotations may hold half a surrogate pair, which JSON allows and UTF-8 does not.
    return json.dumps(descriptor, separators=(",", ":")).encode()


def _artifact_type(request: Request) -> str | None:
    text = request.param("artifactType")
    # A media type holds no space: one that arrives was a '+' which the client did not escape.
    return text.replace(" ", "+") if text else None


def _after(request: Request) -> int:
    text = request.param("last")
    if not text:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise PageInvalid("last is not one that this registry handed out; begin again without it")
    return int(text)
