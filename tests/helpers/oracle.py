"""What must hold whatever was killed meanwhile, and the complaints of who finds that it does not.

* Every push that was acknowledged pulls back byte for byte.
* What was not acknowledged is whole or absent: a manifest that can be pulled has all its blobs, a blob its bytes.
* Every object in the store is named in `objects`, and what `objects` calls live is in the store with its length.

A `Ledger` is what the clients know: contents are kept as the seeds they are made from.
"""

import asyncio
import os
import random
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from helpers.images import Made
from helpers.wire import Heard, exchange
from tenure.core.digest import Digest
from tenure.storage.blobs.s3_client import bucket_from_url, connect, new_session
from tenure.storage.settings import S3Settings

LIVE, GONE = 2, 5


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes of a blob, made again when asked for."""

    seed: str
    size: int

    def make(self) -> bytes:
        return random.Random(self.seed).randbytes(self.size)


@dataclass(slots=True)
class Image:
    """One push: a manifest under a tag, with the blobs it names, config first."""

    repository: str
    tag: str
    made: Made
    blobs: Mapping[Digest, Content]
    acknowledged: bool = False


@dataclass(slots=True)
class Ledger:
    """What clients tried and what they were told."""

    images: list[Image] = field(default_factory=list)
    #: (repository, digest) of each blob that was answered 201, or only sent
    blobs: dict[tuple[str, Digest], Content] = field(default_factory=dict)
    acknowledged: set[tuple[str, Digest]] = field(default_factory=set)
    #: a tag that moves: where it may point by what its one mover was told
    moves: dict[tuple[str, str], list[tuple[Digest, bool]]] = field(default_factory=dict)

    def allowed(self, tag: tuple[str, str]) -> set[Digest | None]:
        """The last acknowledged move, or one that nobody heard of and that may have come late."""
        moves = self.moves[tag]
        told = [digest for digest, acknowledged in moves if acknowledged]
        unsure = {digest for digest, acknowledged in moves if not acknowledged}
        return {told[-1] if told else None, *unsure}


@dataclass(frozen=True, slots=True)
class Multipart:
    key: str
    id: str
    parts: int


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a store holds. `unfinished` are names of files that are being written, `scratch` those of self-tests."""

    finished: Mapping[str, int]
    unfinished: frozenset[str] = frozenset()
    multiparts: tuple[Multipart, ...] = ()
    scratch: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Facts:
    """Rows of `objects` by key, as (state, size, multipart id), and how many sessions are open."""

    objects: Mapping[str, tuple[int, int | None, str | None]]
    uploads: int


def folder_inventory(root: Path) -> Inventory:
    """Walks the folder."""
    finished, unfinished, scratch = {}, set(), set()
    for place, _, names in os.walk(root):
        for name in names:
            path = Path(place, name)
            if name.startswith("check-"):
                scratch.add(str(path.relative_to(root)))
            elif path.parent == root / "tmp":
                unfinished.add(name)
            else:
                finished[str(path.relative_to(root))] = path.stat().st_size
    return Inventory(finished, frozenset(unfinished), (), frozenset(scratch))


async def bucket_inventory(settings: S3Settings, url: str) -> Inventory:
    """Lists objects and multipart uploads, every page."""
    bucket, prefix = bucket_from_url(url)
    finished: dict[str, int] = {}
    scratch: set[str] = set()
    multiparts = []
    async with connect(new_session(), bucket, settings) as client:
        async for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for item in page.get("Contents", ()):
                key = item["Key"].removeprefix(prefix)
                if key.startswith("meta/check-"):
                    scratch.add(key)
                else:
                    finished[key] = item["Size"]
        async for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket):
            for item in page.get("Uploads", ()):
                which = {"Bucket": bucket, "Key": item["Key"], "UploadId": item["UploadId"]}
                parts = await client.list_parts(**which)
                key = item["Key"].removeprefix(prefix)
                multiparts.append(Multipart(key, item["UploadId"], len(parts.get("Parts", ()))))
    return Inventory(finished, frozenset(), tuple(multiparts), frozenset(scratch))


async def facts(url: str) -> Facts:
    """Read behind Tenure's back."""
    objects, uploads = "SELECT key, state, size, multipart_id FROM objects", "SELECT count(*) FROM uploads"
    rows: Iterable[Any]
    if url.startswith("sqlite:///"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=30)) as file:
            rows = file.execute(objects).fetchall()
            (count,) = file.execute(uploads).fetchone()
    else:
        connection = await asyncpg.connect(url)
        try:
            rows = await connection.fetch(objects)
            count = await connection.fetchval(uploads)
        finally:
            await connection.close()
    return Facts({row[0]: (row[1], row[2], row[3]) for row in rows}, count)


def unnamed(known: Facts, store: Inventory) -> list[str]:
    """Bytes that no row names, and rows that promise bytes which are not there. Take `store` before `known`."""
    complaints = []
    files = {key.rpartition("/")[2] for key, (state, _, _) in known.objects.items() if state != GONE}
    for key in store.finished:
        state = known.objects.get(key, (GONE, None, None))[0]
        if state == GONE:
            complaints.append(f"{key} is in the store, and no row of `objects` names it")
    complaints += [f"tmp/{name} is in the store, and no row names it" for name in store.unfinished - files]
    for upload in store.multiparts:
        state, _, named = known.objects.get(upload.key, (0, None, None))
        # One whose initiation nobody heard of holds no bytes and never will: its id is not known to any writer.
        if upload.parts or state == 0:
            if state not in (0, GONE) and upload.id == named:
                continue
            complaints.append(f"multipart upload {upload.id} of {upload.key} has {upload.parts} parts and no row")
    for key, (state, size, _) in known.objects.items():
        if state == LIVE and store.finished.get(key) != size:
            complaints.append(f"{key} is LIVE with {size} bytes, the store has {store.finished.get(key)}")
    return complaints


async def judge(base: str, ledger: Ledger) -> list[str]:
    """Pull everything that clients know of."""
    images = await _in_turns([_image(base, image) for image in ledger.images])
    blobs = await _in_turns(
        [_blob(base, repository, digest, content, (repository, digest) in ledger.acknowledged)
         for (repository, digest), content in ledger.blobs.items()]
    )  # fmt: skip
    moves = await _in_turns([_move(base, tag, ledger.allowed(tag)) for tag in ledger.moves])
    return [*images, *blobs, *moves]


async def _in_turns(checks: list[Any]) -> list[str]:
    places = asyncio.Semaphore(8)

    async def one(check: Any) -> list[str]:
        async with places:
            found: list[str] = await check
            return found

    return [complaint for found in await asyncio.gather(*map(one, checks)) for complaint in found]


async def _pull(base: str, method: str, path: str) -> Heard:
    """Status 0 for an answer that broke off."""
    try:
        return await exchange(base, method, path)
    except (OSError, EOFError, IndexError) as error:
        return Heard(0, {}, repr(error).encode())


async def _image(base: str, image: Image) -> list[str]:
    what = f"{image.repository}:{image.tag}"
    by_tag = await _pull(base, "GET", f"/v2/{image.repository}/manifests/{image.tag}")
    by_digest = await _pull(base, "GET", f"/v2/{image.repository}/manifests/{image.made.digest}")
    complaints = []
    for how, answer in (("by tag", by_tag), ("by digest", by_digest)):
        if answer.status == 404 and not image.acknowledged:
            continue
        if answer.status != 200 or answer.body != image.made.payload:
            complaints.append(f"{what} was {_word(image.acknowledged)} and pulls {how} as {_said(answer)}")
    if by_tag.status == 200 and by_digest.status != 200:
        complaints.append(f"{what} is a tag without its manifest")
    if by_digest.status == 200:
        for digest, content in image.blobs.items():
            complaints += [
                f"{what} can be pulled, but {complaint}"
                for complaint in await _blob(base, image.repository, digest, content, True)
            ]
    return complaints


async def _blob(base: str, repository: str, digest: Digest, content: Content, acknowledged: bool) -> list[str]:
    path = f"/v2/{repository}/blobs/{digest}"
    head = await _pull(base, "HEAD", path)
    answer = await _pull(base, "GET", path)
    if answer.status == 404 and head.status == 404 and not acknowledged:
        return []
    if head.status == answer.status == 200 and answer.body == content.make():
        return []
    what = f"blob {digest} of {repository} ({content.size} bytes)"
    return [f"{what} was {_word(acknowledged)}; HEAD says {head.status}, GET {_said(answer)}"]


async def _move(base: str, tag: tuple[str, str], allowed: set[Digest | None]) -> list[str]:
    repository, name = tag
    answer = await _pull(base, "GET", f"/v2/{repository}/manifests/{name}")
    found = Digest.of(answer.body) if answer.status == 200 else None
    if answer.status in (200, 404) and found in allowed:
        return []
    wanted = " or ".join(sorted(map(str, allowed)))
    return [f"{repository}:{name} points at {found} ({answer.status}), its mover knows of {wanted}"]


def _word(acknowledged: bool) -> str:
    return "acknowledged" if acknowledged else "not acknowledged"


def _said(answer: Heard) -> str:
    return f"{answer.status} with {len(answer.body)} bytes" + (
        f": {answer.body[:200]!r}" if answer.status != 200 else ""
    )
