"""Manifests: HEAD, GET, PUT and DELETE by tag or digest (distribution-spec, "Pulling manifests" and on).

The bytes that came in go out, under the media type they came with. `Accept` never changes the answer: a
registry that converts breaks digests, and one that refuses breaks clients whose list is older than the image.
"""

from collections.abc import AsyncGenerator

from tenure.core import media
from tenure.core.chain import MAX_CONFIG, chain_ids
from tenure.core.digest import Digest, looks_like_digest
from tenure.core.errors import (
    BlobUnknown,
    DigestInvalid,
    ManifestTooLarge,
    ManifestUnknown,
    NameUnknown,
    PreconditionFailed,
    StorageUnavailable,
    TagInvalid,
)
from tenure.core.manifest import MAX_MANIFEST, Kind, Manifest, parse_manifest
from tenure.core.names import check_tag, is_tag
from tenure.registry.http import Answer, Request
from tenure.registry.plane import Plane
from tenure.registry.ranges import names_etag
from tenure.storage.meta.blobs import find_blob
from tenure.storage.meta.manifests import StoredManifest, delete_manifest, find_manifest
from tenure.storage.meta.push import Pushed, PushRequest, push_manifest
from tenure.storage.meta.repositories import repository_exists
from tenure.storage.meta.tags import delete_tag

#: a digest push may name this many tags
MAX_TAGS = 100
#: digests of missing content that a Warning names; the rest is counted
_NAMED_IN_WARNING = 3


async def head_manifest(plane: Plane, request: Request) -> Answer:
    """The headers of GET, with the exact Content-Length of its body."""
    found = await _find(plane, request, payload=False)
    headers = _headers(found)
    if _not_modified(request, headers["ETag"]):
        return Answer(304, headers)
    return Answer(200, {**headers, "Content-Length": str(found.size)})


async def get_manifest(plane: Plane, request: Request) -> Answer:
    """200 with the stored bytes, 304, or 404 MANIFEST_UNKNOWN, NAME_UNKNOWN where there is no repository."""
    found = await _find(plane, request, payload=True)
    headers = _headers(found)
    if _not_modified(request, headers["ETag"]):
        return Answer(304, headers)
    return Answer(200, headers, found.payload)


async def put_manifest(plane: Plane, request: Request) -> Answer:
    """201 with Location and digest. The reference is a tag, or a digest that the bytes must hash to.

    `?tag=` on a digest push, as often as wanted, points tags at it in the same transaction; `OCI-Tag` names
    them. `If-Match` and `If-None-Match` are about what the tag points at now (412). What the manifest names
    and may be missing is told in `Warning`. 413 above 4 MiB, however the body is framed.
    """
    given, tags = _reference(request)
    length = request.body.length
    if length is not None and length > MAX_MANIFEST:
        raise ManifestTooLarge()
    payload = await request.body.read(MAX_MANIFEST)
    digest = Digest.of(payload, given.algorithm) if given else Digest.of(payload)
    if given is not None and digest != given:
        raise DigestInvalid(f"the manifest hashes to {digest}, not to {given}", detail={"digest": str(digest)})
    manifest = parse_manifest(payload, request.header("content-type"))
    chain, later = await _chain(plane, request.name, manifest)
    pushed = await push_manifest(
        plane.db,
        PushRequest(
            request.name,
            digest,
            payload,
            manifest,
            tags,
            plane.push.allow_missing,
            plane.push.lease,
            chain,
            later,
            request.header("if-match"),
            request.header("if-none-match"),
        ),
        request.origin,
    )
    return Answer(201, _created(plane, request, digest, tags if given else (), manifest, pushed))


async def delete_reference(plane: Plane, request: Request) -> Answer:
    """202. By tag only the tag goes; by digest the manifest and the tags that point at it.

    405 DENIED with the reasons while it is in use.
    """
    reference = request.params["reference"]
    if looks_like_digest(reference):
        digest = Digest.parse(reference)
        sever = plane.push.sever_children
        await delete_manifest(plane.db, request.name, digest, request.origin, sever=sever, trash_for=plane.trash)
    else:
        if not is_tag(reference):
            raise ManifestUnknown("there can be no such tag", detail={"reference": reference})
        await delete_tag(plane.db, request.name, reference, request.origin, trash_for=plane.trash)
    return Answer(202)


async def _find(plane: Plane, request: Request, *, payload: bool) -> StoredManifest:
    text = request.params["reference"]
    reference = Digest.parse(text) if looks_like_digest(text) else text
    found = None
    if isinstance(reference, Digest) or is_tag(reference):
        found = await find_manifest(plane.db, request.name, reference, payload=payload)
    if found is not None:
        return found
    if not await repository_exists(plane.db, request.name):
        raise NameUnknown(f"repository {request.name} is not known here", detail={"name": request.name})
    what = "manifest" if isinstance(reference, Digest) else "tag"
    raise ManifestUnknown(f"{what} {text} is not known in {request.name}", detail={"reference": text})


def _headers(found: StoredManifest) -> dict[str, str]:
    headers = {
        "Content-Type": found.media_type,
        "Docker-Content-Digest": str(found.digest),
        "ETag": f'"{found.digest}"',
    }
    if not found.media_type.endswith("json"):
        # The type is the pusher's choice: what a browser might run must not run in our name.
        headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return headers


def _not_modified(request: Request, etag: str) -> bool:
    if_match = request.header("if-match")
    if if_match is not None and not names_etag(if_match, etag):
        raise PreconditionFailed(f"If-Match does not name this manifest, whose ETag is {etag}")
    known = request.header("if-none-match")
    return known is not None and names_etag(known, etag)


def _reference(request: Request) -> tuple[Digest | None, tuple[str, ...]]:
    """The digest that stands in the path, if one does, and the tags to set, each once."""
    text = request.params["reference"]
    named = request.query.get("tag", [])
    if len(named) > MAX_TAGS:
        raise TagInvalid(f"one push can set {MAX_TAGS} tags at most")
    if looks_like_digest(text):
        return Digest.parse(text), tuple(dict.fromkeys(check_tag(tag) for tag in named))
    return None, tuple(dict.fromkeys(check_tag(tag) for tag in (text, *named)))


async def _chain(plane: Plane, repository: str, manifest: Manifest) -> tuple[tuple[Digest, ...], bool]:
    """The image's ChainIDs, and whether a job has to find them later because the config could not be read."""
    config = manifest.config
    if manifest.kind is not Kind.IMAGE or config is None or config.media_type not in media.IMAGE_CONFIGS:
        return (), False
    if config.size > MAX_CONFIG:
        return (), False
    blob = await find_blob(plane.db, repository, config.digest)
    if blob is None:
        return (), True  # absent, which only a sparse push survives: it may come
    if blob.size > MAX_CONFIG:
        return (), False
    content = bytearray()
    chunks = plane.driver.read(blob.key, 0, blob.size) if blob.size else None
    try:
        if chunks is not None:
            async for chunk in chunks:
                content += chunk
    except (BlobUnknown, StorageUnavailable):
        return (), True
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()
    return chain_ids(bytes(content)), False


def _created(
    plane: Plane, request: Request, digest: Digest, tags: tuple[str, ...], manifest: Manifest, pushed: Pushed
) -> dict[str, str]:
    path = f"/v2/{request.name}/manifests/{digest}"
    headers = {
        "Location": request.base_url + path if plane.pull.absolute_urls else path,
        "Docker-Content-Digest": str(digest),
        "ETag": f'"{digest}"',
    }
    if manifest.subject is not None:
        headers["OCI-Subject"] = str(manifest.subject.digest)
    if tags:
        headers["OCI-Tag"] = ", ".join(tags)
    if pushed.missing:
        headers["Warning"] = f'299 - "{_missing(request.name, pushed.missing)}"'
    return headers


def _missing(repository: str, missing: tuple[str, ...]) -> str:
    named = ", ".join(missing[:_NAMED_IN_WARNING])
    more = f" and {len(missing) - _NAMED_IN_WARNING} more" if len(missing) > _NAMED_IN_WARNING else ""
    return f"accepted, but {repository} does not hold {named}{more}; pulls of it fail until it is pushed"
