"""Manifests: list, show with all that stands around them, lineage, delete."""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from tenure.api.paging import cursor_number, cut, next_cursor
from tenure.api.repositories import removal, time_or_none
from tenure.api.route import Call, Reply
from tenure.api.schemas import (
    Kin,
    KinPage,
    Manifest,
    ManifestBlob,
    ManifestChild,
    ManifestLine,
    ManifestPage,
    Platform,
    Referrer,
)
from tenure.core import manifest as document
from tenure.core import media
from tenure.core.chain import MAX_CONFIG
from tenure.core.digest import Digest
from tenure.core.errors import BlobUnknown, ManifestUnknown, StorageUnavailable
from tenure.storage.meta import lineage, overview
from tenure.storage.meta.database import Database
from tenure.storage.meta.manifests import delete_manifest

#: the numbers of manifest_blobs.absent and manifest_edges.absent in words
ABSENT = {1: "foreign", 2: "sparse", 3: "erased", 4: "severed"}


async def list_all(call: Call) -> Reply:
    found, last = cut(
        await overview.manifest_lines(
            call.db,
            call.repository,
            untagged=call.query.untagged,
            before=cursor_number(call.query.cursor),
            limit=call.query.limit + 1,
        ),
        call.query.limit,
    )
    return Reply(ManifestPage(items=[_line(line) for line in found], next=next_cursor(last.id if last else None)))


async def show(call: Call) -> Reply:
    digest = _digest(call)
    record = await overview.get_manifest_record(call.db, call.repository, digest)
    parsed = document.parse_manifest(record.payload, record.line.media_type)
    blobs = _blobs(parsed, record.absent)
    body = Manifest(
        repository=call.repository,
        digest=str(digest),
        media_type=record.line.media_type,
        artifact_type=record.line.artifact_type,
        size=record.line.size,
        content_size=sum(blob.size for blob in blobs),
        tags=list(record.line.tags),
        platform=await _platform_of_image(call, record.line.id, parsed),
        annotations=dict(parsed.annotations),
        subject=str(record.line.subject) if record.line.subject else None,
        blobs=blobs,
        children=_children(parsed, record.payload, record.absent),
        parents=[str(parent) for parent in record.parents],
        referrers=[Referrer(digest=str(found), artifact_type=kind) for found, kind in record.referrers],
        pushed_at=time_or_none(record.line.pushed_at),
        pushed_by=record.line.pushed_by,
    )
    return Reply(body, etag=_entity_tag(digest))


async def etag(call: Call) -> str | None:
    digest = _digest(call)
    try:
        await overview.get_manifest_record(call.db, call.repository, digest)
    except ManifestUnknown:
        return None
    return _entity_tag(digest)


async def delete(call: Call) -> Reply:
    digest = _digest(call)
    record = await overview.get_manifest_record(call.db, call.repository, digest)
    await delete_manifest(
        call.db,
        call.repository,
        digest,
        call.origin,
        sever=call.context.sever_children,
        trash_for=call.context.trash,
    )
    names = list(record.line.tags)
    return Reply(await removal(call, names, tags=len(names), manifests=1))


async def ancestors(call: Call) -> Reply:
    return await _kin(call, lineage.ancestors)


async def descendants(call: Call) -> Reply:
    return await _kin(call, lineage.descendants)


async def _kin(call: Call, ask: Callable[[Database, str, Digest], Awaitable[list[lineage.Kin]]]) -> Reply:
    digest = _digest(call)
    await overview.get_manifest_record(call.db, call.repository, digest)
    found = await ask(call.db, call.repository, digest)
    items = [
        Kin(repository=kin.repository, digest=str(kin.digest), layers=kin.layers)
        for kin in found
        if call.may("pull", kin.repository)
    ]
    return Reply(KinPage(items=items, next=None))


def _digest(call: Call) -> Digest:
    return Digest.parse(call.params["digest"])


def _entity_tag(digest: Digest) -> str:
    return f'"{digest}"'


def _line(line: overview.ManifestLine) -> ManifestLine:
    return ManifestLine(
        digest=str(line.digest),
        media_type=line.media_type,
        artifact_type=line.artifact_type,
        size=line.size,
        subject=str(line.subject) if line.subject else None,
        tags=list(line.tags),
        pushed_at=time_or_none(line.pushed_at),
        pushed_by=line.pushed_by,
    )


def _blobs(parsed: document.Manifest, absent: Mapping[Digest, int]) -> list[ManifestBlob]:
    return [
        ManifestBlob(
            digest=str(digest),
            media_type=descriptor.media_type,
            role=role.name.lower(),
            size=descriptor.size,
            absent=ABSENT.get(absent.get(digest, 0)),
        )
        for digest, (role, descriptor) in parsed.blobs().items()
    ]


def _children(parsed: document.Manifest, payload: bytes, absent: Mapping[Digest, int]) -> list[ManifestChild]:
    if not parsed.children:
        return []
    platforms = {
        entry.get("digest"): _platform(entry.get("platform"))
        for entry in document.load_json(payload).get("manifests", [])
        if isinstance(entry, dict)
    }
    return [
        ManifestChild(
            digest=str(child.digest),
            media_type=child.media_type,
            size=child.size,
            platform=platforms.get(str(child.digest)),
            absent=ABSENT.get(absent.get(child.digest, 0)),
        )
        for child in parsed.children
    ]


async def _platform_of_image(call: Call, manifest_id: int, parsed: document.Manifest) -> Platform | None:
    if parsed.config is None or parsed.config.media_type not in media.IMAGE_CONFIGS:
        return None
    config = await overview.config_object(call.db, manifest_id)
    if config is None or config[1] > MAX_CONFIG:
        return None
    key, size = config
    try:
        content = b"".join([piece async for piece in call.context.driver.read(key, 0, size)])
    except (BlobUnknown, StorageUnavailable):
        return None  # the rest of the answer is worth having without it
    try:
        return _platform(json.loads(content))
    except (ValueError, RecursionError):
        return None


def _platform(said: Any) -> Platform | None:
    if not isinstance(said, dict):
        return None
    os, architecture = said.get("os"), said.get("architecture")
    if not isinstance(os, str) or not isinstance(architecture, str):
        return None
    variant, version = said.get("variant"), said.get("os.version")
    return Platform(
        os=os,
        architecture=architecture,
        variant=variant if isinstance(variant, str) else None,
        os_version=version if isinstance(version, str) else None,
    )
