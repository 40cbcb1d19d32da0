"""Mutated episodes of recorded clients against a registry in this process, and what must hold whatever is sent.

An episode is a stretch of a recording with mistakes in it, on connections of its own; several run at once.
What is found is a `Finding`: played alone again it is made as short as it can be.
"""

import asyncio
import json
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from helpers.mutate import LOCATION, Shot, mutated, reordered
from helpers.serving import Served, served
from helpers.wire import connect
from replay.player import Answered, Streams, hear
from replay.tape import Contents, Made, Recording
from tenure.registry.plane import Plane

#: seconds in which what owes an answer gives it
HANG = 20.0
#: seconds that are waited for an answer that nobody owes
LULL = 0.1
#: what cannot be served, said in the protocol's words: that is no failure
ALLOWED = frozenset({501})
_NOWHERE = "/v2/no/such/blobs/uploads/session"
#: how many of an episode's requests are changed: few, and a push comes far; most, and mistakes meet
_MUTATED = (0.1, 0.3, 0.7)
#: bytes of most layers: pushes are many
_SMALL = 3_000
#: bytes that are surely read before they are refused
_AT_ONCE = 50_000


@dataclass(slots=True)
class Tally:
    """What happened. `statuses` are those that clients saw, and how the rest ended."""

    statuses: Counter[str] = field(default_factory=Counter)
    #: what the server says of itself: 5xx answers and errors that it logged
    troubles: list[str] = field(default_factory=list)

    @property
    def sent(self) -> int:
        return self.statuses.total()


@dataclass(frozen=True, slots=True)
class Finding:
    complaint: str
    shots: tuple[Shot, ...]

    def __str__(self) -> str:
        lines = [self.complaint]
        for shot in self.shots:
            raw = shot.written("registry.test", f"<Location of {shot.follows}>")
            shown = raw[: shot.cut] if shot.cut else raw
            tail = f" ... {len(shown)} bytes in all" if len(shown) > 1500 else ""
            lines.append(
                f"  request {shot.number} ({', '.join(shot.notes) or 'as recorded'}):\n    {shown[:1500]!r}{tail}"
            )
        return "\n".join(lines)


def smaller(recording: Recording, limit: int = _SMALL) -> Recording:
    """The same with short layers, and the sizes that manifests give put right."""
    contents: dict[str, Made] = {}
    while len(contents) < len(recording.contents):
        before = len(contents)
        for name, made in recording.contents.items():
            if name not in contents and all(other in contents for other in _named(made, recording)):
                contents[name] = _smaller(made, Contents(contents), limit)
        assert len(contents) > before, "contents name each other in a circle"
    return Recording(
        recording.client, recording.version, recording.date, contents, recording.headers, recording.exchanges
    )


def _named(made: Made, recording: Recording) -> list[str]:
    return [name for name in recording.contents if made.text is not None and f"{{{name}}}" in made.text]


def _smaller(made: Made, contents: Contents, limit: int) -> Made:
    if made.text is None:
        return Made(seed=made.seed, length=min(made.length, limit))
    if not made.text:
        return made

    def resized(document: dict[str, Any]) -> dict[str, Any]:
        digest = document.get("digest")
        if isinstance(digest, str) and digest.startswith("sha256:{") and "size" in document:
            return {**document, "size": len(contents.whole(digest[len("sha256:{") : -1]))}
        return document

    return Made(text=json.dumps(json.loads(made.text, object_hook=resized)))


def shots_of(recording: Recording) -> list[Shot]:
    """Every request as it was sent."""
    contents = Contents(recording.contents)
    shots = []
    for number, each in enumerate(recording.exchanges):
        target = contents.fill(each.target, "registry.test")
        if each.follows is not None:
            target = f"{LOCATION}?{target}" if target else LOCATION
        headers = tuple(
            (name, contents.fill(value, "registry.test")) for name, value in recording.headers[each.headers]
        )
        shots.append(Shot(each.method, target, headers, each.framing, contents.piece(each.body), each.follows, number))
    return shots


def episode(rng: random.Random, recorded: Sequence[list[Shot]]) -> list[Shot]:
    """A stretch of one client's requests with mistakes in it; half of them begin where a client began an upload."""
    whole = rng.choice(recorded)
    start = rng.randrange(len(whole))
    if rng.random() < 0.5:
        start = rng.choice([place for place, shot in enumerate(whole) if shot.method == "POST"])
    share = rng.choice(_MUTATED)
    shots = [mutated(rng, s) if rng.random() < share else s for s in whole[start : start + rng.randint(4, 16)]]
    return reordered(rng, shots)


@dataclass(slots=True)
class Run:
    """One episode being sent, on one connection after the other."""

    base: str
    tally: Tally
    locations: dict[int, str] = field(default_factory=dict)
    connection: Streams | None = None
    complaint: str = ""

    async def play(self, shots: Sequence[Shot]) -> str:
        """What went wrong, "" when nothing did."""
        try:
            at = 0
            while at < len(shots) and not self.complaint:
                end = at + 1
                while end < len(shots) and shots[end].together and not shots[end - 1].cut:
                    end += 1
                batch = shots[at:end]
                if len(batch) == 1 and batch[0].twin:
                    other = Run(self.base, self.tally, self.locations)
                    await asyncio.gather(self._send(batch), other.play([batch[0].noted("the other", twin=False)]))
                    self.complaint = self.complaint or other.complaint
                else:
                    await self._send(batch)
                at = end
            return self.complaint
        finally:
            self._leave()

    def _leave(self, *, abruptly: bool = False) -> None:
        if self.connection is not None:
            writer = self.connection[1]
            writer.transport.abort() if abruptly else writer.close()
            self.connection = None

    async def _send(self, batch: Sequence[Shot]) -> None:
        host = urlsplit(self.base).netloc
        written = b"".join(
            shot.written(host, self.locations.get(-1 if shot.follows is None else shot.follows, _NOWHERE))[: shot.cut]
            for shot in batch
        )
        if self.connection is None:
            self.connection = await connect(self.base)
        reader, writer = self.connection
        step = len(written) // batch[0].pieces + 1
        try:
            async with asyncio.timeout(HANG):
                for at in range(0, len(written), step):
                    writer.write(written[at : at + step])
                    await writer.drain()
                    if batch[0].pieces > 1:
                        await asyncio.sleep(0.001)
        except (ConnectionError, TimeoutError):
            pass  # an early refusal; the answer may still be read
        if batch[-1].cut:
            self.tally.statuses["cut"] += len(batch)
            self._leave(abruptly=True)
            return
        # Whoever goes on sending after a refusal may meet a reset before the answer is read (RFC 9112, 9.6).
        hasty = len(written) > _AT_ONCE or batch[0].pieces > 1
        await self._hear_all(batch, reader, hasty=hasty)

    async def _hear_all(self, batch: Sequence[Shot], reader: asyncio.StreamReader, *, hasty: bool) -> None:
        for place, shot in enumerate(batch):
            owed = all(each.whole for each in batch[: place + 1])
            try:
                async with asyncio.timeout(HANG if owed else LULL):
                    answer, ends = await hear(reader, "HEAD" if shot.heads else "GET")
            except TimeoutError:
                self._count(batch[place:], "unanswered", f"no answer within {HANG} s" if owed else "")
                return self._leave()
            except asyncio.IncompleteReadError:
                self._count(batch[place:], "closed", "closed without an answer" if owed else "")
                return self._leave()
            except ConnectionError:
                self._count(batch[place:], "reset", "reset without an answer" if owed and not hasty else "")
                return self._leave()
            except (ValueError, IndexError, asyncio.LimitOverrunError) as error:
                self._count(batch[place:], "unreadable", f"an answer that cannot be read: {error!r}" if owed else "")
                return self._leave()
            self._count([shot], str(answer.status), _complaint(shot, answer))
            if "location" in answer.headers and answer.status < 300:
                self.locations[shot.number] = urlsplit(answer.headers["location"]).path
            if ends:
                self._count(batch[place + 1 :], "after the end", "")
                return self._leave()
        if not all(shot.whole for shot in batch):
            self._leave()
        return None

    def _count(self, shots: Sequence[Shot], how: str, complaint: str) -> None:
        self.tally.statuses[how] += len(shots)
        self.complaint = self.complaint or (complaint and f"request {shots[0].number}: {complaint}")


def _complaint(shot: Shot, answer: Answered) -> str:
    if answer.status >= 500 and answer.status not in ALLOWED:
        return f"{answer.status} {answer.body[:300]!r}"
    if not 200 <= answer.status < 600:
        return f"status {answer.status}"
    if answer.status >= 400 and not shot.heads:
        try:
            error = json.loads(answer.body)["errors"][0]
            said = bool(error["code"]) and " " in error["message"]
        except (ValueError, LookupError, TypeError):
            said = False
        if not said:
            return f"{answer.status} without a code and a sentence: {answer.body[:200]!r}"
    return ""


async def storm(
    base: str, tally: Tally, episodes: Callable[[int], list[Shot]], requests: int, *, at_once: int = 16
) -> Finding | None:
    """Episodes until so many requests were sent; the first that goes wrong ends it."""
    numbers = iter(range(10**9))
    found: list[Finding] = []

    async def worker() -> None:
        while tally.sent < requests and not found:
            shots = episodes(next(numbers))
            complaint = await Run(base, tally).play(shots)
            if complaint:
                found.append(Finding(complaint, tuple(shots)))

    await asyncio.gather(*(worker() for _ in range(at_once)))
    return found[0] if found else None


async def shortest(finding: Finding, fails: Callable[[Sequence[Shot]], Awaitable[str]]) -> Finding:
    """The fewest requests that still go wrong when they are sent alone; the finding itself where they do not."""
    complaint = await fails(finding.shots)
    if not complaint:
        return Finding(f"{finding.complaint} (only beside other requests)", finding.shots)
    shots = list(finding.shots)
    at = len(shots) - 1
    while at >= 0:
        fewer = shots[:at] + shots[at + 1 :]
        if fewer and (again := await fails(fewer)):
            shots, complaint = fewer, again
        at -= 1
    return Finding(complaint, tuple(shots))


class _Errors(logging.Handler):
    def __init__(self, tally: Tally) -> None:
        super().__init__(logging.ERROR)
        self._tally = tally

    def emit(self, record: logging.LogRecord) -> None:
        self._tally.troubles.append(f"logged: {record.getMessage()[:500]} {record.exc_info}")


@asynccontextmanager
async def watched(plane: Plane, tally: Tally) -> AsyncIterator[Served]:
    """A registry whose every 5xx, error in the log and exception in a callback is a trouble of `tally`."""

    def line(method: str, path: str, status: int, seconds: float, **_: object) -> None:
        if status >= 500 and status not in ALLOWED:
            tally.troubles.append(f"answered: {method} {path[:200]} {status}")

    loop = asyncio.get_running_loop()
    handler = _Errors(tally)
    logging.getLogger().addHandler(handler)
    loop.set_exception_handler(lambda _, context: tally.troubles.append(f"in the loop: {context}"))
    try:
        async with served(plane, access_log=line) as running:
            yield running
    finally:
        loop.set_exception_handler(None)
        logging.getLogger().removeHandler(handler)
