"""Many at once, at a bad moment: the end of a process under load, and clients that hold on and do nothing."""

import asyncio
import contextlib
import random
import resource
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from faults.machines import LARGE, SMALL, installation
from helpers.oci import put_blob, put_image
from helpers.serving import served
from helpers.wire import connect, exchange, head, hear
from tenure.core.clock import SECOND
from tenure.core.digest import Digest
from tenure.registry import answering
from tenure.registry.plane import Plane
from tenure.registry.server import Limits, RegistryServer
from tenure.registry.settings import PushSettings
from tenure.storage.settings import Duration

#: more than the sockets between two processes hold, so that a reader that stops is felt
LARGE_BLOB = random.Random(31).randbytes(12_000_000)
#: seconds that a test waits for what must come, on a machine that does other things too
PATIENCE = 90.0


@dataclass(slots=True)
class Half:
    """A request that has got half of its body through, either way."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    content: bytes
    digest: Digest


async def half_a_push(base: str, number: int) -> Half:
    content = random.Random(number).randbytes(600_000 + number)
    digest = Digest.of(content)
    begun = await exchange(base, "POST", "/v2/app/many/blobs/uploads/", sent=b"")
    reader, writer = await connect(base)
    length = [("Content-Length", str(len(content)))]
    writer.write(head(base, "PUT", f"{begun['Location']}?digest={digest}", length))
    writer.write(content[:300_000])
    await writer.drain()
    return Half(reader, writer, content, digest)


async def half_a_pull(base: str, digest: Digest) -> Half:
    reader, writer = await connect(base)
    writer.write(head(base, "GET", f"/v2/app/many/blobs/{digest}", []))
    await reader.readuntil(b"\r\n\r\n")
    begun = await reader.readexactly(100_000)
    return Half(reader, writer, begun, digest)


@pytest.mark.parametrize("profile", [SMALL, LARGE])
async def test_sigterm_lets_twenty_pushes_and_pulls_end_well(profile: str, tmp_path: Path) -> None:
    settings = {"TENURE_SERVER_DRAIN": "60s", "TENURE_PUSH_IDLE_TIMEOUT": "60s"}
    async with installation(profile, tmp_path, settings=settings) as system:
        (replica,) = system.replicas
        digest = await put_blob(replica.url, "app/many", LARGE_BLOB)
        pushes = [await half_a_push(replica.url, number) for number in range(10)]
        pulls = [await half_a_pull(replica.url, digest) for _ in range(10)]
        await settled(replica.url, 20)
        ending = asyncio.create_task(replica.end())
        await refuses(replica.url)
        for push in pushes:
            push.writer.write(push.content[300_000:])
            answer = await asyncio.wait_for(hear(push.reader, "PUT"), PATIENCE)
            assert (answer.status, answer["Connection"].lower()) == (201, "close")
            push.writer.close()
        for pull in pulls:
            rest = await asyncio.wait_for(pull.reader.readexactly(len(LARGE_BLOB) - len(pull.content)), PATIENCE)
            assert pull.content + rest == LARGE_BLOB
            pull.writer.close()
        assert await ending == 0
        assert "requests cut" not in replica.log.read_text()
        await replica.start()
        for push in pushes:
            assert (await exchange(replica.url, "GET", f"/v2/app/many/blobs/{push.digest}")).body == push.content


async def settled(base: str, running: int) -> None:
    """Until so many requests are being worked on."""
    for _ in range(int(PATIENCE * 10)):
        text = (await exchange(base, "GET", "/metrics")).body.decode()
        (line,) = [line for line in text.splitlines() if line.startswith("tenure_http_requests_in_flight ")]
        # The question itself is one more.
        if float(line.split()[1]) >= running:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"not {running} requests run")


async def refuses(base: str) -> None:
    for _ in range(int(PATIENCE * 10)):
        try:
            _, writer = await connect(base)
        except ConnectionRefusedError:
            return
        writer.close()
        await asyncio.sleep(0.1)
    raise AssertionError("it still accepts")


@pytest.fixture
def many_files() -> Iterator[None]:
    """Both ends of every connection are this process's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@asynccontextmanager
async def stalled(base: str, digest: Digest, heads: int, bodies: int, readers: int) -> AsyncIterator[list[Half]]:
    """Clients that begin and then do nothing. A reader's window is kept small, or the system would read for it."""
    held = []
    for number in range(heads + bodies + readers):
        reader, writer = await connect(base)
        if number < heads:
            writer.write(b"GET /v2/ HTTP/1.1\r\nHost: some")
        elif number < heads + bodies:
            begun = await exchange(base, "POST", "/v2/app/stalled/blobs/uploads/", sent=b"")
            writer.write(head(base, "PATCH", begun["Location"], [("Content-Length", "1000000")]) + bytes(1000))
        else:
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(head(base, "GET", f"/v2/app/many/blobs/{digest}", []))
        held.append(Half(reader, writer, b"", digest))
    try:
        yield held
    finally:
        for one in held:
            one.writer.transport.abort()


#: heads half sent, bodies that stop, readers that do not read. On a bucket each stalled upload holds memory of its
#: own, and each stalled download a connection to the store, of which there are few.
STALLED = {"folder": (170, 165, 165), "s3": (450, 25, 25)}


def patient(plane: Plane, seconds: int) -> Plane:
    return replace(plane, push=PushSettings(idle_timeout=Duration(seconds * SECOND)))


async def test_five_hundred_that_stall_hold_nobody_up(plane: Plane, many_files: None) -> None:
    """With time-outs that do not come: all of them still hold on when the others have been served."""
    async with served(patient(plane, 600), limits=Limits(head=600.0)) as running:
        base = running.address
        digest = await put_blob(base, "app/many", LARGE_BLOB)
        alone = await serve_others(base)
        async with stalled(base, digest, *STALLED[plane.driver.name]) as held:
            beside = await serve_others(base)
            assert len(running.server.connections) >= len(held) == 500
        print(
            f"{plane.driver.name}: median of a small request alone {alone:.1f} ms, beside 500 stalled {beside:.1f} ms"
        )


async def serve_others(base: str) -> float:
    """Push and pull small things; the median of all requests in milliseconds."""
    made = await put_image(base, "app/others", "v1")
    spent = []
    for number in range(30):
        content = b"round %d" % number
        digest = Digest.of(content)
        for method, target, sent in (
            ("GET", "/v2/app/others/manifests/v1", None),
            ("POST", f"/v2/app/others/blobs/uploads/?digest={digest}", content),
            ("HEAD", f"/v2/app/others/blobs/{digest}", None),
            ("GET", f"/v2/app/others/blobs/{digest}", None),
        ):
            started = time.perf_counter()
            answer = await asyncio.wait_for(exchange(base, method, target, sent=sent), PATIENCE)
            spent.append(time.perf_counter() - started)
            assert answer.status == (201 if method == "POST" else 200)
            assert answer.body in (b"", content, made.payload)
    return statistics.median(spent) * 1000


async def test_each_that_stalls_is_cut_by_its_time_out(
    plane: Plane, many_files: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "STALL", 2.0)
    heads, bodies, readers = STALLED[plane.driver.name]
    async with served(patient(plane, 2), limits=Limits(head=2.0, linger=0.5)) as running:
        base = running.address
        digest = await put_blob(base, "app/many", LARGE_BLOB)
        async with stalled(base, digest, heads, bodies, readers) as held:
            await gone(running.server)
            answers = [await left_over(one) for one in held]
            assert running.server.inflight() == 0
        assert answers[:heads] == [b""] * heads
        assert {answer[:12] for answer in answers[heads : heads + bodies]} == {b"HTTP/1.1 408"}
        assert max(len(answer) for answer in answers[heads + bodies :]) < len(LARGE_BLOB)
        # What a stalled upload held is free again.
        await asyncio.gather(*(put_blob(base, "app/after", b"%d" % number * 300_000) for number in range(9)))


async def gone(server: RegistryServer) -> None:
    """Until the server has no connection left."""
    for _ in range(int(PATIENCE * 10)):
        if not server.connections:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"{len(server.connections)} connections are still there")


async def left_over(one: Half) -> bytes:
    """What had been sent before the connection ended."""
    got = bytearray()
    with contextlib.suppress(ConnectionError):
        one.writer.transport.resume_reading()  # type: ignore[attr-defined]
        while piece := await asyncio.wait_for(one.reader.read(1 << 20), PATIENCE):
            got += piece
    return bytes(got)


async def test_a_head_that_comes_in_time_ends_its_timer(small_plane: Plane) -> None:
    """A connection between two requests may be idle for longer than a head may take, and stray line ends are none."""
    async with served(small_plane, limits=Limits(head=2.0)) as running:
        reader, writer = await connect(running.address)
        for _ in range(2):
            writer.write(b"GET /v2/ HT")
            await asyncio.sleep(0.05)
            writer.write(b"TP/1.1\r\nHost: a\r\n\r\n")
            assert (await asyncio.wait_for(hear(reader, "GET"), PATIENCE)).status == 200
            writer.write(b"\r\n")
            await asyncio.sleep(2.5)
        writer.write(b"GET /v2/ HTTP/1.1\r\n")
        for _ in range(200):
            if reader.at_eof():
                break
            writer.write(b"X: a\r\n")
            await asyncio.sleep(0.1)
        assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
        writer.close()


async def test_a_long_request_is_not_taken_for_a_long_head(small_plane: Plane) -> None:
    """The body may take as long as it likes while it moves, and so may the handler."""
    async with served(small_plane, limits=Limits(head=0.2)) as running:
        base = running.address
        content = bytes(5)
        begun = await exchange(base, "POST", "/v2/app/slow/blobs/uploads/", sent=b"")
        reader, writer = await connect(base)
        closing = f"{begun['Location']}?digest={Digest.of(content)}"
        writer.write(head(base, "PUT", closing, [("Content-Length", str(len(content)))]))
        for byte in content:
            await asyncio.sleep(0.15)
            writer.write(bytes([byte]))
        assert (await asyncio.wait_for(hear(reader, "PUT"), PATIENCE)).status == 201
        writer.close()
