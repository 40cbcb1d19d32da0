"""Clients that push images the way real ones do, go on after failures the way people do, and note what they heard."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from helpers.images import Made, descriptor, make
from helpers.oracle import Content, Image, Ledger
from helpers.wire import Headers, Heard, exchange
from tenure.core import media
from tenure.core.digest import Digest

_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_REPOSITORIES = ("app/one", "app/two")
#: seconds that a client waits for one answer: longer than Tenure waits for what stands behind it
_PATIENCE = 90.0
#: a push is tried again for minutes, as pipelines do; an upload in chunks goes on a few times
_TRIES, _CHUNK_TRIES = 80, 15
_STYLES = ("docker", "containerd", "chunks", "at once")
#: what a client may be told when a server died under it or its session ended with its commit
_EXPECTED = {400: ("SIZE_INVALID",), 404: ("BLOB_UPLOAD_UNKNOWN", "BLOB_UNKNOWN", "MANIFEST_BLOB_UNKNOWN"),
             408: None, 409: None, 416: None, 429: None, 503: None}  # fmt: skip


class Failed(Exception):
    """This try of a push is over."""


@dataclass(slots=True)
class Tally:
    """Counts for the report; `odd` are answers that no fault explains."""

    pushes: int = 0
    acknowledged: int = 0
    tries: int = 0
    retried_requests: int = 0
    lost: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    odd: list[str] = field(default_factory=list)


class Client:
    """One client: pushes one image after the other. `bases` are the addresses of the replicas."""

    def __init__(
        self, number: int, rng: random.Random, bases: Callable[[], list[str]], ledger: Ledger, tally: Tally
    ) -> None:
        self._number = number
        self._rng = rng
        self._bases = bases
        self._ledger = ledger
        self._tally = tally
        self._shared: list[Content] = []

    async def push(self, number: int) -> bool:
        """Whether it was acknowledged in the end."""
        image = self._image(number)
        self._ledger.images.append(image)
        self._tally.pushes += 1
        for attempt in range(_TRIES):
            self._tally.tries += 1
            try:
                for digest, content in image.blobs.items():
                    await self._blob(image.repository, digest, content)
                await self._tag(image, image.tag)
                image.acknowledged = True
                self._tally.acknowledged += 1
                await self._move(image)
                return True
            except Failed:
                await asyncio.sleep(min(2.0, 0.1 * 2**attempt))
        return False

    def _image(self, number: int) -> Image:
        rng = self._rng
        config = Content(f"config {number} {rng.random()}", rng.randint(200, 3000))
        layers = [self._layer(f"layer {number} {place}") for place in range(rng.randint(1, 3))]
        blobs = {Digest.of(content.make()): content for content in (config, *layers)}
        first, *rest = blobs
        made = _manifest(first, rest, blobs)
        return Image(rng.choice(_REPOSITORIES), f"t{number}", made, blobs)

    def _layer(self, name: str) -> Content:
        rng = self._rng
        if self._shared and rng.random() < 0.2:
            return rng.choice(self._shared)
        large, middle = rng.random() < 0.12, rng.random() < 0.4
        size = rng.randint(6_000_000, 17_000_000) if large else rng.randint(100, 1_500_000 if middle else 60_000)
        content = Content(f"{name} {rng.random()}", size)
        self._shared.append(content)
        return content

    async def _tag(self, image: Image, tag: str) -> None:
        await self._ask(
            "PUT",
            f"/v2/{image.repository}/manifests/{tag}",
            201,
            [("Content-Type", image.made.media_type)],
            sent=image.made.payload,
            tries=self._rng.choice([1, 3]),
        )

    async def _move(self, image: Image) -> None:
        """A tag that only this client moves."""
        moves = self._ledger.moves.setdefault((image.repository, f"client{self._number}"), [])
        moves.append((image.made.digest, False))
        try:
            await self._tag(image, f"client{self._number}")
        except Failed:
            return
        moves[-1] = (image.made.digest, True)

    async def _blob(self, repository: str, digest: Digest, content: Content) -> None:
        self._ledger.blobs[repository, digest] = content
        if (await self._ask("HEAD", f"/v2/{repository}/blobs/{digest}", 200, or_else=(404,))).status == 200:
            self._ledger.acknowledged.add((repository, digest))
            return
        other = next(name for name in _REPOSITORIES if name != repository)
        if (other, digest) in self._ledger.acknowledged and await self._mounted(repository, digest, other):
            return
        style = self._rng.choice(_STYLES)
        body = content.make()
        if style == "at once":
            path = f"/v2/{repository}/blobs/uploads/?digest={digest}"
            await self._ask("POST", path, 201, sent=body)
        else:
            begun = await self._ask("POST", f"/v2/{repository}/blobs/uploads/", 202, sent=b"")
            await self._send(style, begun["Location"], body, digest)
        self._ledger.acknowledged.add((repository, digest))

    async def _mounted(self, repository: str, digest: Digest, other: str) -> bool:
        path = f"/v2/{repository}/blobs/uploads/?mount={digest}&from={other}"
        answer = await self._ask("POST", path, 201, or_else=(202,), sent=b"")
        if answer.status == 201:
            self._ledger.acknowledged.add((repository, digest))
        return answer.status == 201

    async def _send(self, style: str, location: str, body: bytes, digest: Digest) -> None:
        closing = f"{location}?digest={digest}"
        if style == "docker":
            await self._ask("PATCH", location, 202, chunks=_pieces(body, 65536))
            # The closing PUT is empty, so that sending it again can do no harm.
            await self._ask("PUT", closing, 201, sent=b"", tries=self._rng.choice([1, 3]))
        elif style == "containerd":
            await self._ask("PUT", closing, 201, sent=body)
        else:
            await self._in_chunks(location, body, digest)

    async def _in_chunks(self, location: str, body: bytes, digest: Digest) -> None:
        """regclient: chunks with Content-Range; after a failure it asks where the upload stands and goes on."""
        closing = f"{location}?digest={digest}"
        step = self._rng.choice([len(body) // 2 + 1, len(body) // 5 + 1])
        last = self._rng.random() < 0.5  # the last chunk comes with the closing PUT
        at = 0
        for _ in range(_CHUNK_TRIES):
            try:
                while at < len(body) and not (last and at + step >= len(body)):
                    piece = body[at : at + step]
                    await self._ask("PATCH", location, 202, _range(at, piece), sent=piece)
                    at += len(piece)
                rest = body[at:]
                await self._ask("PUT", closing, 201, _range(at, rest) if rest else (), sent=rest)
                return
            except Failed:
                self._tally.retried_requests += 1
                await asyncio.sleep(0.2)
                status = await self._ask("GET", location, 204, tries=3)
                said = int(status["Range"].partition("-")[2])
                at = said + 1 if said else 0
        raise Failed

    async def _ask(
        self,
        method: str,
        target: str,
        wanted: int,
        headers: Headers = (),
        *,
        sent: bytes | None = None,
        chunks: Iterable[bytes] | None = None,
        or_else: tuple[int, ...] = (),
        tries: int = 1,
    ) -> Heard:
        """The answer that was wanted. Failed for any other."""
        for attempt in range(tries):
            self._tally.retried_requests += attempt > 0
            base = self._rng.choice(self._bases())
            try:
                async with asyncio.timeout(_PATIENCE):
                    answer = await exchange(base, method, target, headers, sent=sent, chunks=chunks)
            except (OSError, EOFError, IndexError, ValueError, KeyError):
                self._tally.lost += 1
                await asyncio.sleep(0.2)
                continue
            except TimeoutError:
                self._tally.odd.append(f"{method} {target}: no answer in {_PATIENCE} s")
                continue
            self._tally.statuses[answer.status] += 1
            if answer.status == wanted or answer.status in or_else:
                return answer
            self._note(method, target, answer)
            await asyncio.sleep(0.2)
        raise Failed

    def _note(self, method: str, target: str, answer: Heard) -> None:
        if method == "HEAD" and answer.status in _EXPECTED:
            return
        try:
            code = json.loads(answer.body)["errors"][0]["code"]
        except (ValueError, LookupError):
            code = ""
        allowed = _EXPECTED.get(answer.status, ())
        if allowed is not None and code not in allowed:
            self._tally.odd.append(f"{method} {target}: {answer.status} {answer.body[:300]!r}")


def _manifest(config: Digest, layers: list[Digest], blobs: dict[Digest, Content]) -> Made:
    return make(
        {
            "schemaVersion": 2,
            "mediaType": media.OCI_MANIFEST,
            "config": descriptor(blobs[config].make(), media.OCI_CONFIG),
            "layers": [descriptor(blobs[layer].make(), _LAYER) for layer in layers],
        }
    )


def _pieces(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


def _range(at: int, piece: bytes) -> Headers:
    return [("Content-Range", f"{at}-{at + len(piece) - 1}")]
