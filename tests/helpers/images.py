"""Builders: blobs, images, indexes and referrers pushed straight through storage/meta."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tenure.core import media
from tenure.core.clock import DAY, HOUR
from tenure.core.digest import Digest
from tenure.core.manifest import parse_manifest
from tenure.core.origin import Origin
from tenure.storage.meta.commit import close_upload
from tenure.storage.meta.database import Database
from tenure.storage.meta.push import Pushed, PushRequest, push_manifest
from tenure.storage.meta.uploads import begin_upload

SOMEBODY = Origin(actor="somebody", address="127.0.0.1", request_id="test")


@dataclass(frozen=True, slots=True)
class Made:
    """A manifest as built: push it with `push`."""

    payload: bytes
    digest: Digest
    media_type: str

    def descriptor(self) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": str(self.digest), "size": len(self.payload)}


def descriptor(content: bytes, media_type: str = "application/octet-stream") -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(Digest.of(content)), "size": len(content)}


def make(body: dict[str, Any]) -> Made:
    payload = json.dumps(body).encode()
    return Made(payload, Digest.of(payload), body["mediaType"])


def image(config: bytes, layers: Sequence[bytes] = (), *, subject: Made | None = None, **more: Any) -> Made:
    body: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "config": descriptor(config, media.OCI_CONFIG),
        "layers": [descriptor(layer) for layer in layers],
        **more,
    }
    if subject is not None:
        body["subject"] = subject.descriptor()
    return make(body)


def index(children: Sequence[Made | dict[str, Any]], **more: Any) -> Made:
    entries = [child.descriptor() if isinstance(child, Made) else child for child in children]
    return make({"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": entries, **more})


def config_of(*diff_ids: str) -> bytes:
    """An image config whose layers have these diff ids."""
    return json.dumps({"rootfs": {"type": "layers", "diff_ids": list(diff_ids)}}).encode()


async def put_blob(db: Database, repository: str, content: bytes, *, lease: int = DAY) -> Digest:
    """Only the facts: no bytes are written anywhere."""
    digest = Digest.of(content)
    upload = await begin_upload(
        db, repository, SOMEBODY, algorithms=("sha256",), expiry=DAY, owner="test", claim_for=HOUR
    )
    await close_upload(
        db, upload, digest=digest, size=len(content), stored_key=upload.key, version_id=None, lease=lease,
        origin=SOMEBODY,
    )  # fmt: skip
    return digest


async def push(
    db: Database,
    repository: str,
    made: Made,
    *tags: str,
    allow_missing: str = "index",
    lease: int = DAY,
    **more: Any,
) -> Pushed:
    return await push_manifest(
        db,
        PushRequest(
            repository, made.digest, made.payload, parse_manifest(made.payload), tags, allow_missing, lease, **more
        ),
        SOMEBODY,
    )


async def put_image(db: Database, repository: str, *tags: str, seed: str = "a", layers: int = 2, **more: Any) -> Made:
    """An image with its blobs, pushed; `seed` makes it one of a kind."""
    config = json.dumps({"seed": seed}).encode()
    contents = [f"{seed} layer {number}".encode() for number in range(layers)]
    for content in (config, *contents):
        await put_blob(db, repository, content)
    made = image(config, contents, **more)
    await push(db, repository, made, *tags)
    return made
