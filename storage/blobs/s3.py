"""Bytes in a bucket of any S3-compatible store.

Correctness rests on opaque keys that are never reused and on the journal, not on what a store may lack:
conditional writes, listings, checksums. A versioned bucket is understood: a delete removes every version of
the key, because a version left behind is bytes left behind.
"""

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, Self

import aiohttp
from aiobotocore.response import AioStreamingBody
from botocore.exceptions import ClientError

from tenure.core.clock import SECOND
from tenure.core.errors import BlobUnknown, StorageUnavailable, TenureError, TooManyRequests
from tenure.storage.blobs.budget import MemoryBudget
from tenure.storage.blobs.driver import Capabilities, Journal, ObjectInfo, Observe, Progress, Writer
from tenure.storage.blobs.s3_check import prove
from tenure.storage.blobs.s3_client import BROKEN, BucketClient
from tenure.storage.blobs.s3_presign import SHORTEST_LIFE, SigningKey, UrlSigner, freeze
from tenure.storage.blobs.s3_writer import S3Writer
from tenure.storage.settings import BlobsSettings, S3Settings

#: The most that is taken from a connection at once, bytes. What is read ahead of a slow client is no more.
READ_SIZE = 256 << 10
#: Credentials that end are looked at again after this long, seconds.
_LOOK_AGAIN = 60


class S3Driver:
    """A bucket as a store of bytes. Fulfils BlobDriver and Redirects. Made by `S3Driver.open`."""

    name = "s3"

    def __init__(self, client: BucketClient, prefix: str, blobs: BlobsSettings, budget: MemoryBudget) -> None:
        self.client = client
        self.prefix = prefix
        self.budget = budget
        settings = client.settings
        self._redirects = blobs.redirect == "on" or (blobs.redirect == "auto" and bool(settings.public_endpoint))
        self._patience = blobs.retry_for / SECOND
        # Downloads may not use up the connections that uploads and deletes need.
        self._downloads = asyncio.Semaphore(max(1, settings.max_connections * 3 // 4))
        self._signer = UrlSigner(
            settings.public_endpoint or client.endpoint,
            client.bucket,
            path_style=client.path_style,
            region=settings.region,
            life=settings.presign_ttl // SECOND,
        )
        self._credentials: Any = None
        self._key: SigningKey | None = None
        self._looked = 0.0
        self._looking: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls, bucket: str, prefix: str, blobs: BlobsSettings, s3: S3Settings, observe: Observe | None = None
    ) -> Self:
        """Talks to no store yet: `check` does. StorageUnavailable when the settings cannot be used."""
        client = await BucketClient.open(bucket, s3, blobs.retry_for, observe)
        driver = cls(client, prefix, blobs, MemoryBudget(blobs.memory_budget))
        if driver._redirects:
            try:
                await driver._find_credentials()
            except BaseException:
                await client.close()
                raise
        return driver

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})
        await self.client.close()

    def writer(self, progress: Progress, journal: Journal) -> Writer:
        return S3Writer(self.client, self.budget, progress, journal, name=self.object_name, fetch=self._pieces)

    def object_name(self, key: str) -> str:
        """The name of an object in the bucket."""
        return self.prefix + key

    async def read(self, key: str, start: int, length: int) -> AsyncIterator[bytes]:
        if length <= 0:
            if await self.stat(key) is None:
                raise BlobUnknown("the store holds no bytes for this blob")
            return
        try:
            async with asyncio.timeout(self._patience):
                await self._downloads.acquire()
        except TimeoutError:
            raise TooManyRequests("too many downloads run at once; try again in a moment") from None
        try:
            async with self.budget.reads.hold(READ_SIZE):
                async for piece in self._pieces(key, start, start + length):
                    yield piece
        finally:
            self._downloads.release()

    async def _pieces(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """[start, end), going on behind the last byte when a connection breaks."""
        version: dict[str, str] = {}
        attempt, deadline = 0, self.client.patience()
        while True:
            answer = await self._get(key, start, end, version)
            version = {"IfMatch": answer["ETag"]}
            async with answer["Body"] as body:
                take = _reading(body)
                while start < end:
                    try:
                        piece = (await take())[: end - start]
                    except BROKEN as error:
                        cause: Exception | None = error
                        break
                    if not piece:
                        cause = None
                        break
                    start += len(piece)
                    attempt, deadline = 0, self.client.patience()
                    yield piece
                else:
                    return
            if cause is None and start >= _total(answer):
                raise TenureError(f"the object {key} ends at byte {start}, before byte {end}")
            if not await self.client.pause(attempt, deadline):
                raise StorageUnavailable("the store that holds the blobs broke off in the middle") from cause
            attempt += 1

    async def _get(self, key: str, start: int, end: int, version: dict[str, str]) -> dict[str, Any]:
        answer = await self.client.call(
            "get_object", Key=self.object_name(key), Range=f"bytes={start}-{end - 1}", **version
        )
        if answer is None:
            raise BlobUnknown("the store holds no bytes for this blob")
        return answer

    async def stat(self, key: str) -> ObjectInfo | None:
        answer = await self.client.call("head_object", Key=self.object_name(key))
        if answer is not None:
            return ObjectInfo(key, answer["ContentLength"])
        # The answer to HEAD has no body: "no such object" and "no such bucket" look alike.
        if await self.client.call("head_bucket") is None:
            raise StorageUnavailable("the bucket that holds the blobs is gone")
        return None

    async def delete(self, key: str, multipart_id: str | None = None, version_id: str | None = None) -> None:
        name = self.object_name(key)
        if multipart_id:
            await self.client.call("abort_multipart_upload", Key=name, UploadId=multipart_id)
        which = {"VersionId": version_id} if version_id else {}
        answer = await self.client.call("delete_object", Key=name, **which)
        if version_id or (answer and (answer.get("VersionId") or answer.get("DeleteMarker"))):
            await self._delete_versions(name)

    async def _delete_versions(self, name: str) -> None:
        """Every version and delete marker of exactly this name: a repeated PUT leaves more than one."""
        page: dict[str, Any] = {}
        while True:
            answer = await self.client.call("list_object_versions", Prefix=name, **page)
            if answer is None:
                return
            for version in [*answer.get("Versions", ()), *answer.get("DeleteMarkers", ())]:
                if version["Key"] == name:
                    await self.client.call("delete_object", Key=name, VersionId=version["VersionId"])
            if not answer.get("IsTruncated"):
                return
            page = {"KeyMarker": answer["NextKeyMarker"], "VersionIdMarker": answer.get("NextVersionIdMarker", "")}

    async def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """Objects only: without a prefix, those below `b/`."""
        page: dict[str, Any] = {}
        while True:
            answer = await self.client.call("list_objects_v2", Prefix=self.object_name(prefix or "b/"), **page)
            for item in (answer or {}).get("Contents", ()):
                yield ObjectInfo(item["Key"].removeprefix(self.prefix), item["Size"])
            if answer is None or not answer.get("IsTruncated"):
                return
            page = {"ContinuationToken": answer["NextContinuationToken"]}

    async def check(self) -> Capabilities:
        return await prove(self.client, self.prefix)

    def presign(self, key: str, media_type: str | None = None) -> str | None:
        if not self._redirects or self._key is None:
            return None
        now = time.time()
        if self._key.expires is not None and now - self._looked > _LOOK_AGAIN:
            self._look_again(now)
        return self._signer.sign(self._key, self.object_name(key), media_type, now)

    def _look_again(self, now: float) -> None:
        if self._looking is None or self._looking.done():
            self._looked = now
            self._looking = asyncio.get_running_loop().create_task(self._freeze())

    async def _find_credentials(self) -> None:
        settings = self.client.settings
        if settings.access_key:
            # A session token says nothing of its end: then the shortest life.
            self._key = SigningKey(settings.access_key, str(settings.secret_key), str(settings.session_token) or None)
            if settings.session_token:
                self._signer.life = SHORTEST_LIFE
            return
        self._looked = time.time()
        try:
            self._credentials = await self.client.session.get_credentials()
            if self._credentials is None:
                raise StorageUnavailable("no credentials for the store: set s3.access_key and s3.secret_key")
            self._key = await freeze(self._credentials, self._looked)
        except BROKEN as error:
            raise StorageUnavailable(f"the credentials for the store cannot be had: {error}") from error

    async def _freeze(self) -> None:
        # Credentials that cannot be refreshed now are looked for again a minute later; until they end they work.
        with suppress(*BROKEN, ClientError):
            self._key = await freeze(self._credentials, time.time())


def _reading(body: Any) -> Callable[[], Awaitable[bytes]]:
    """Gives what has arrived, at most READ_SIZE: as it came where nothing checks it on the way."""
    if type(body) is AioStreamingBody:
        stream: aiohttp.StreamReader = body.raw_stream.content
        # Below it each read of a full socket would be followed by a pause of the connection.
        stream.set_read_chunk_size(READ_SIZE // 2)
        return stream.readany
    return functools.partial(body.read, READ_SIZE)


def _total(answer: dict[str, Any]) -> int:
    """Length of the whole object by `Content-Range: bytes 0-9/100`."""
    length = str(answer.get("ContentRange", "")).rpartition("/")[2]
    return int(length) if length.isdigit() else int(answer["ContentLength"])
