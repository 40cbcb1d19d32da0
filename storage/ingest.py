"""One request's share of an upload: from the claim to `suspend` (more will come) or `finish` (it is a blob).

Here the session row, the driver's writer and the hash meet, in this order: claim, bytes, durable object,
commit. No byte moves inside a transaction. What the order gives:

* A request that dies leaves the session where its last `suspend` put it; its claim runs out and any replica
  goes on from there.
* A request that dies between the finished object and the commit changes nothing either: the closing PUT
  finishes the object again and commits.
* Content becomes visible only after its digest was computed from all of its bytes: while they streamed past,
  or by reading them back where the algorithm was named too late or the hash could not be carried over.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from types import TracebackType
from typing import Self

from tenure.core.clock import SECOND
from tenure.core.digest import Digest
from tenure.core.errors import DigestInvalid, SizeInvalid, StorageUnavailable, TenureError, UploadBusy, UploadUnknown
from tenure.core.ids import new_ulid
from tenure.core.origin import Origin
from tenure.storage.blobs.driver import BlobDriver, Journal, Part, Progress, Stored
from tenure.storage.blobs.hashing import Hasher
from tenure.storage.meta import uploads
from tenure.storage.meta.commit import close_upload
from tenure.storage.meta.database import Database
from tenure.storage.meta.uploads import Upload

#: Bytes hashed in one go in a thread, while the next ones arrive: a hop costs as much as hashing 100 KiB.
GULP = 1 << 20
#: What all uploads together gather for it, bytes: many at once hash in smaller gulps.
GULPS = 16 << 20
_INLINE = 64 << 10  # bytes hashed in the loop: cheaper than a hop
_FIRST_WAIT, _LONGEST_WAIT = 0.05, 1.0  # seconds between two looks at somebody else's claim


async def claim(db: Database, repository: str, session: str, *, claim_for: int) -> Upload:
    """Become the one writer of a session; waits while another request holds it.

    A claim is given back by its request or runs out after `claim_for` (microseconds) when its replica died,
    so waiting that long is enough; then UploadBusy. UploadUnknown where there is no such session.
    """
    owner = new_ulid()
    give_up = time.monotonic() + claim_for / SECOND + _LONGEST_WAIT
    wait = _FIRST_WAIT
    while True:
        try:
            return await uploads.claim_upload(db, repository, session, owner, claim_for=claim_for)
        except UploadBusy:
            if time.monotonic() >= give_up:
                raise
        await asyncio.sleep(wait)
        wait = min(2 * wait, _LONGEST_WAIT)


class Ingest:
    """A claimed session being written. `async with` gives the claim back, whatever happens inside.

    Used by one task. `offset` counts the bytes taken; they are safe after `suspend` or `finish` only. All
    methods raise UploadUnknown when the claim was lost and StorageUnavailable when a store stays away; the
    session then stands where it stood before this request.
    """

    _running = 0  # of this process

    def __init__(
        self, db: Database, driver: BlobDriver, upload: Upload, *, claim_for: int, algorithm: str | None = None
    ) -> None:
        """`upload` is claimed. `algorithm` is that of the closing digest where it is known already."""
        self.offset = upload.offset
        self._db = db
        self._driver = driver
        self._upload = upload
        self._claim_for = claim_for
        self._hasher = _hasher(upload, algorithm)
        self._writer = driver.writer(_progress(upload), _journal(db, upload))
        self._unhashed: list[bytes] = []
        self._waiting = 0
        self._hashing: asyncio.Future[None] | None = None
        self._open = True
        self._lost: UploadUnknown | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._renewal: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        Ingest._running += 1
        self._renew_later()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        Ingest._running -= 1
        if not self._open:
            return
        await self._stop()
        # A claim that cannot be given back now runs out by itself.
        with suppress(TenureError):
            await uploads.release_claim(self._db, self._upload)

    async def feed(self, chunks: AsyncIterator[bytes], expected: int | None = None) -> None:
        """Take bytes until they end. SizeInvalid when their number is not `expected`.

        Whatever the iterator raises comes through; what arrived before can still be suspended.
        """
        start = self.offset
        async for chunk in chunks:
            if self._lost is not None:
                raise self._lost
            if expected is not None and self.offset + len(chunk) - start > expected:
                raise SizeInvalid(f"more than the announced {expected} bytes arrived")
            await self._writer.write(chunk)
            self.offset += len(chunk)
            await self._hash(chunk)
        if expected is not None and self.offset - start != expected:
            raise SizeInvalid(f"{self.offset - start} bytes arrived where {expected} were announced")

    async def suspend(self, *, expiry: int) -> int:
        """Make all bytes fed survive this process and give the claim back; the offset now acknowledged.

        `expiry` in microseconds from now. Not to be called after `feed` failed in the store.
        """
        progress = await self._writer.suspend()
        await self._hash_rest()
        await self._stop_renewing()
        await uploads.save_progress(
            self._db,
            self._upload,
            offset=progress.offset,
            parts=tuple((part.number, part.etag, part.size) for part in progress.parts),
            tail=progress.tail,
            tail_key=progress.tail_key,
            hash_state=self._hasher.save() if self._hasher else None,
            expiry=expiry,
        )
        self._open = False
        return progress.offset

    async def finish(self, digest: Digest, origin: Origin, *, lease: int) -> None:
        """Commit the bytes as the blob `digest`, promised for `lease`.

        DigestInvalid when they hash to something else. The session is over then too: what it holds is not
        what the client believes, and no later request could repair that. Its bytes are journalled for
        deletion in the same transaction that ends it.
        """
        await self._hash_rest()
        hashed = self._hasher is not None and digest.algorithm in self._hasher.algorithms
        if self._hasher is not None and hashed:
            await self._compare(_digest(self._hasher, digest.algorithm), digest)
        stored = await self._writer.complete()
        if stored.size != self.offset:
            raise StorageUnavailable(f"the store kept {stored.size} of {self.offset} bytes; send the closing PUT again")
        if not hashed or stored.recovered:
            await self._compare(await self._read_back(stored, digest.algorithm), digest)
        await self._stop_renewing()
        await close_upload(
            self._db,
            self._upload,
            digest=digest,
            size=stored.size,
            stored_key=stored.key,
            version_id=stored.version_id,
            lease=lease,
            origin=origin,
        )
        self._open = False

    async def cancel(self) -> None:
        """End the session; its bytes are journalled for deletion."""
        await self._stop()
        self._open = False
        await uploads.cancel_upload(self._db, self._upload.repository, self._upload.session)

    async def _hash(self, chunk: bytes) -> None:
        """Hash a thread's worth at a time; at most one is hashed while the next is gathered."""
        if self._hasher is None:
            return
        self._unhashed.append(chunk)
        self._waiting += len(chunk)
        if self._waiting >= min(GULP, GULPS // max(1, Ingest._running)):
            await self._settle_hash()
            self._hashing = _update(self._hasher, self._unhashed)
            self._unhashed, self._waiting = [], 0

    async def _hash_rest(self) -> None:
        await self._settle_hash()
        if self._hasher is not None and self._unhashed:
            self._hashing = _update(self._hasher, self._unhashed)
            self._unhashed, self._waiting = [], 0
            await self._settle_hash()

    async def _settle_hash(self) -> None:
        """Nobody may touch the hash while a thread works on it; cancelling the waiter does not stop the thread."""
        if self._hashing is not None:
            await asyncio.wait({self._hashing})
            self._hashing = None

    async def _compare(self, found: Digest, wanted: Digest) -> None:
        if found == wanted:
            return
        await self.cancel()
        raise DigestInvalid(
            f"the {self.offset} bytes of this upload hash to {found}, not to {wanted}; it is ended, begin a new one",
            detail={"digest": str(wanted), "computed": str(found)},
        )

    async def _read_back(self, stored: Stored, algorithm: str) -> Digest:
        hasher = Hasher((algorithm,))
        async for chunk in self._driver.read(stored.key, 0, stored.size):
            hashing = _update(hasher, [chunk])
            if hashing is not None:
                await hashing
            if self._lost is not None:
                raise self._lost
        return _digest(hasher, algorithm)

    def _renew_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._claim_for / SECOND / 3, self._renew_now)

    def _renew_now(self) -> None:
        self._renewal = asyncio.get_running_loop().create_task(self._renew())

    async def _renew(self) -> None:
        try:
            await uploads.renew_claim(self._db, self._upload, claim_for=self._claim_for)
        except UploadUnknown as lost:
            self._lost = lost
            return
        except StorageUnavailable:
            # The database may come back before anybody else takes the claim; the last word is the commit's.
            pass
        self._renew_later()

    async def _stop_renewing(self) -> None:
        if self._renewal is not None:
            await self._renewal
        if self._timer is not None:
            self._timer.cancel()

    async def _stop(self) -> None:
        await self._stop_renewing()
        await self._writer.abandon()


def _digest(hasher: Hasher, algorithm: str) -> Digest:
    return Digest(algorithm, hasher.digest(algorithm))


def _update(hasher: Hasher, pieces: list[bytes]) -> asyncio.Future[None] | None:
    """Hash small pieces now, much in a thread: the future to wait for."""
    if sum(map(len, pieces)) > _INLINE:
        return asyncio.get_running_loop().run_in_executor(None, _update_all, hasher, pieces)
    _update_all(hasher, pieces)
    return None


def _update_all(hasher: Hasher, pieces: list[bytes]) -> None:
    for piece in pieces:
        hasher.update(piece)


def _hasher(upload: Upload, algorithm: str | None) -> Hasher | None:
    """The hash of the first `offset` bytes; None when they must be read back at the end anyway."""
    if upload.offset == 0:
        return Hasher((algorithm,) if algorithm else upload.algorithms)
    return Hasher.load(upload.hash_state, (algorithm,) if algorithm else upload.algorithms)


def _progress(upload: Upload) -> Progress:
    return Progress(
        key=upload.key,
        offset=upload.offset,
        multipart_id=upload.multipart_id,
        next_part=upload.next_part,
        parts=tuple(Part(number, etag, size) for number, etag, size in upload.parts),
        tail=upload.tail,
        tail_key=upload.tail_key,
    )


def _journal(db: Database, upload: Upload) -> Journal:
    return Journal(
        multipart=lambda multipart_id: uploads.record_multipart(db, upload, multipart_id),
        reserve_parts=lambda count: uploads.reserve_parts(db, upload, count),
        tail_key=lambda: uploads.new_tail_key(db, upload),
    )
