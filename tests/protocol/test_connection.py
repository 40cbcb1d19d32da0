"""The direct way for small questions: it answers as the ordinary way does, and never outruns it."""

import asyncio
import inspect
import os
import socket
import typing
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from helpers.oci import put_blob, put_image, refusal
from helpers.serving import Served, served
from helpers.wire import Heard, connect, exchange, head, hear
from tenure.app.drain import drain
from tenure.core.digest import Digest
from tenure.registry import routes
from tenure.registry.connection import Connection
from tenure.registry.http import Answer, Request
from tenure.registry.plane import Plane
from tenure.registry.server import Limits

ZERO = f"sha256:{'0' * 64}"
HEAD_OF_BLOB = f"/v2/a/blobs/{ZERO}"
#: what differs between two answers to one question
VOLATILE = {"date", "x-request-id", "connection"}


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """One entry for each request that could have gone the direct way: whether it did."""
    told: list[bool] = []
    begin = Connection._begin_directly

    def watched(self: Connection, waiter: "asyncio.Future[None]") -> bool:
        told.append(begin(self, waiter))
        return told[-1]

    monkeypatch.setattr(Connection, "_begin_directly", watched)
    return told


@pytest.fixture
async def running(small_plane: Plane) -> AsyncIterator[Served]:
    async with served(small_plane) as one:
        yield one


def answered_by(monkeypatch: pytest.MonkeyPatch, handler: Callable[[Plane, Request], Any]) -> None:
    """Let HEAD of blobs, a small question, be answered by `handler`."""
    route = routes._BY_PATTERN[routes.BLOB]["HEAD"]
    monkeypatch.setitem(routes._BY_PATTERN[routes.BLOB], "HEAD", replace(route, handler=handler))


@pytest.fixture
def go_on(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """HEAD of a blob is answered once this is set."""
    event = asyncio.Event()

    async def slow(plane: Plane, request: Request) -> Answer:
        await event.wait()
        return Answer(200, {"Content-Length": "11"})

    answered_by(monkeypatch, slow)
    return event


def test_what_counts_as_small_gives_answers_and_nothing_else() -> None:
    small = [route for route in routes.ROUTES if route.small]
    assert len(small) > 8
    for route in small:
        assert route.method in ("GET", "HEAD")
        assert typing.get_type_hints(route.handler)["return"] is Answer, route
        assert "request.body" not in inspect.getsource(route.handler)


async def test_both_ways_answer_alike(base: str, begun: list[bool]) -> None:
    made = await put_image(base, "team/app", "v1")
    blob = await put_blob(base, "team/app", b"bytes of a blob")
    app = "/v2/team/app"
    etag = ("If-None-Match", f'"{made.digest}"')
    asked: list[tuple[str, tuple[tuple[str, str], ...]]] = [
        ("/v2/", ()),
        ("/v2", ()),
        ("/v2/_catalog?n=1", ()),
        ("/v2/_catalog?n=nonsense", ()),
        (f"{app}/tags/list", ()),
        (f"{app}/tags/list?n=1&last=a%20b", ()),
        ("/v2/nowhere/tags/list", ()),
        (f"{app}/manifests/v1", ()),
        (f"{app}/manifests/v1", (etag,)),
        (f"{app}/manifests/v1", (("If-Match", '"other"'),)),
        (f"{app}/manifests/{made.digest}", ()),
        (f"{app}/manifests/sha256%3A{made.digest.hex}", ()),
        (f"{app}/manifests/v9", ()),
        (f"{app}/manifests/.bad", ()),
        (f"{app}/manifests/sha256:short", ()),
        (f"{app}/blobs/{blob}", ()),
        (f"{app}/blobs/{blob}", (("If-None-Match", f'"{blob}"'),)),
        (f"{app}/blobs/{ZERO}", ()),
        (f"{app}/referrers/{ZERO}", ()),
        (f"{app}/referrers/{ZERO}?artifactType=x", ()),
        ("/v2/UPPER/tags/list", ()),
        ("/v2/team/app/no/such/place", ()),
        ("/v2/a%2Fb/tags/list", ()),
        ("/v2/%C3%A9/manifests/v1", ()),
        ("/v2/team/app/manifests/%C3%A9", ()),
    ]
    ways = []
    for target, headers in asked:
        for method in ("GET", "HEAD"):
            begun.clear()
            alone = await exchange(base, method, target, headers)
            last = await exchange(base, method, target, [*headers, ("Connection", "close")])
            assert _told(alone) == _told(last), (method, target)
            assert "connection" not in alone.headers and last["Connection"] == "close"
            assert begun == [routes.small_route(method, target) is not None, False], target
            ways.append(begun[0])
    assert ways.count(True) > 30 and ways.count(False) > 5


async def test_small_questions_go_the_direct_way_and_others_do_not(running: Served, begun: list[bool]) -> None:
    made = await put_image(running.address, "team/app", "v1")
    blob = await put_blob(running.address, "team/app", b"bytes")
    begun.clear()
    for method, target in (
        ("GET", "/v2/"),
        ("GET", "/v2/team/app/manifests/v1"),
        ("HEAD", f"/v2/team/app/manifests/{made.digest}"),
        ("HEAD", f"/v2/team/app/blobs/{blob}"),
        ("HEAD", f"{running.address}/v2/team/app/blobs/{blob}"),
        ("GET", "/v2/team/app/tags/list"),
    ):
        await exchange(running.address, method, target)
    assert begun == [True] * 6
    begun.clear()
    for method, target, headers, sent in (
        ("GET", f"/v2/team/app/blobs/{blob}", (), None),
        ("GET", "/v2/team/app/manifests/v1", (), b"a body"),
        ("GET", "/v2/", (("Connection", "close"),), None),
        ("GET", "/v2/", (("Connection", "upgrade"), ("Upgrade", "websocket")), None),
        ("DELETE", "/v2/team/app/manifests/v1", (), None),
        ("GET", "/v2/team/app/manifests/v1?" + "x" * 2000, (), None),
        ("GET", "/elsewhere", (), None),
    ):
        await exchange(running.address, method, target, headers, sent=sent)
    assert begun == [False] * 7


async def test_questions_of_both_kinds_sent_at_once_are_answered_in_their_order(running: Served) -> None:
    made = await put_image(running.address, "team/app", "v1")
    blob = await put_blob(running.address, "team/app", b"bytes of a blob")
    asked = [
        ("HEAD", f"/v2/team/app/blobs/{blob}"),
        ("GET", f"/v2/team/app/blobs/{blob}"),
        ("GET", "/v2/team/app/manifests/v1"),
        ("GET", "/v2/team/app/tags/list"),
        ("DELETE", "/v2/team/app/manifests/v1"),
        ("HEAD", "/v2/team/app/manifests/v1"),
    ]
    whole = b"".join(head(running.address, method, target, []) for method, target in asked)
    for cut in (len(whole), 1, 7, 40, 97, 300):
        reader, writer = await connect(running.address)
        for at in range(0, len(whole), cut):
            writer.write(whole[at : at + cut])
            await asyncio.sleep(0 if cut < 40 else 0.002)
        heard = [await asyncio.wait_for(hear(reader, method), 10) for method, _ in asked]
        assert [answer.status for answer in heard] == [200, 200, 200, 200, 202, 404]
        assert heard[1].body == b"bytes of a blob" and heard[2].body == made.payload
        writer.close()
        assert (await put_image(running.address, "team/app", "v1")).digest == made.digest


async def test_one_connection_serves_questions_and_uploads_in_turn(running: Served, begun: list[bool]) -> None:
    reader, writer = await connect(running.address)

    async def ask(method: str, target: str, sent: bytes = b"") -> Heard:
        length = [("Content-Length", str(len(sent)))] if sent else []
        writer.write(head(running.address, method, target, length) + sent)
        return await asyncio.wait_for(hear(reader, method), 10)

    for number in range(4):
        content = b"%d" % number * (200_000 * number + 1)
        blob = f"/v2/a/blobs/{Digest.of(content)}"
        assert (await ask("HEAD", blob)).status == 404
        assert (await ask("POST", f"/v2/a/blobs/uploads/?digest={Digest.of(content)}", content)).status == 201
        seen = await ask("HEAD", blob)
        assert (seen.status, seen["Content-Length"]) == (200, str(len(content)))
        assert (await ask("GET", blob)).body == content
    assert begun.count(True) == 8
    writer.close()


async def test_what_arrives_while_an_answer_is_made_waits_its_turn(running: Served, go_on: asyncio.Event) -> None:
    reader, writer = await connect(running.address)
    writer.write(head(running.address, "HEAD", HEAD_OF_BLOB, []))
    await until(lambda: running.server.inflight() == 1)
    writer.write(head(running.address, "GET", "/v2/", []))
    writer.write(head(running.address, "GET", "/v2/UPPER/tags/list", []))
    await asyncio.sleep(0.05)
    assert running.server.inflight() == 1
    go_on.set()
    assert (await hear(reader, "HEAD"))["Content-Length"] == "11"
    assert [(await hear(reader, "GET")).status for _ in range(2)] == [200, 400]
    writer.close()


async def test_a_client_that_leaves_before_its_answer_leaves_nothing_behind(
    running: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    go_on = asyncio.Event()
    done = []

    async def slow(plane: Plane, request: Request) -> Answer:
        await go_on.wait()
        done.append(request)
        return Answer(200)

    answered_by(monkeypatch, slow)
    before = len(asyncio.all_tasks())
    reader, writer = await connect(running.address)
    writer.write(head(running.address, "HEAD", HEAD_OF_BLOB, []))
    await until(lambda: running.server.inflight() == 1)
    writer.transport.abort()
    await asyncio.sleep(0.05)
    go_on.set()
    await until(lambda: done and running.server.inflight() == 0 and not running.server.connections)
    await until(lambda: len(asyncio.all_tasks()) == before)
    assert not caplog.records and reader is not None


async def test_the_keep_alive_timer_rests_during_an_answer(small_plane: Plane, go_on: asyncio.Event) -> None:
    async with served(small_plane, limits=Limits(keep_alive=0.3)) as running:
        reader, writer = await connect(running.address)
        writer.write(head(running.address, "HEAD", HEAD_OF_BLOB, []))
        await asyncio.sleep(0.7)
        go_on.set()
        assert (await hear(reader, "HEAD")).status == 200
        assert await asyncio.wait_for(reader.read(), 5) == b""  # idle from the answer on, then closed
        writer.close()


async def test_a_drain_waits_for_the_answer_and_lets_the_client_go(small_plane: Plane, go_on: asyncio.Event) -> None:

    async with served(small_plane) as running:
        reader, writer = await connect(running.address)
        idle, other = await connect(running.address)
        writer.write(head(running.address, "HEAD", HEAD_OF_BLOB, []))
        await until(lambda: running.server.inflight() == 1)
        draining = asyncio.create_task(drain(running.server, 10))
        assert await asyncio.wait_for(idle.read(), 5) == b""
        assert not draining.done()
        go_on.set()
        assert (await hear(reader, "HEAD"))["Connection"] == "close"
        assert await asyncio.wait_for(reader.read(), 5) == b""
        assert await asyncio.wait_for(draining, 5) == 0
        writer.close()
        other.close()


async def test_the_limit_of_requests_holds_for_small_ones(small_plane: Plane, go_on: asyncio.Event) -> None:
    async with served(small_plane, limits=Limits(max_requests=1)) as running:
        reader, writer = await connect(running.address)
        writer.write(head(running.address, "HEAD", HEAD_OF_BLOB, []))
        await until(lambda: running.server.inflight() == 1)
        assert refusal(await exchange(running.address, "GET", "/v2/")) == (429, "TOOMANYREQUESTS")
        go_on.set()
        assert (await hear(reader, "HEAD")).status == 200
        assert (await exchange(running.address, "GET", "/v2/")).status == 200
        writer.close()


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: x=1", "a\nb", "a\rb", "a\0b"])
async def test_a_header_cannot_end_its_line_early(running: Served, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    async def injected(plane: Plane, request: Request) -> Answer:
        return Answer(200, {"X-Note": value})

    answered_by(monkeypatch, injected)
    answer = await exchange(running.address, "HEAD", HEAD_OF_BLOB)
    assert answer.status == 500
    assert not {"x-note", "set-cookie"} & set(answer.headers)


async def test_a_client_that_does_not_read_is_not_answered_ahead(
    running: Served, monkeypatch: pytest.MonkeyPatch, begun: list[bool]
) -> None:
    made = []

    async def large(plane: Plane, request: Request) -> Answer:
        made.append(1)
        return Answer(200, {"Content-Type": "text/plain"}, b"x" * (4 << 20))

    route = routes._BY_PATTERN[routes.MANIFEST]["GET"]
    monkeypatch.setitem(routes._BY_PATTERN[routes.MANIFEST], "GET", replace(route, handler=large))
    reader, writer = await connect(running.address)
    for _ in range(40):
        writer.write(head(running.address, "GET", "/v2/a/manifests/v1", []))
        await asyncio.sleep(0.005)
    # The second may be made; what waits for the first to be taken is not written on top of it.
    assert len(made) <= 3
    for _ in range(40):
        assert len((await asyncio.wait_for(hear(reader, "GET"), 10)).body) == 4 << 20
    writer.close()


def _told(answer: Heard) -> tuple[int, dict[str, str], bytes]:
    return answer.status, {k: v for k, v in answer.headers.items() if k not in VOLATILE}, answer.body


async def until(reached: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not reached():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_an_older_client_is_told_whether_the_connection_stays(running: Served, begun: list[bool]) -> None:
    for keeps, told in ((b"Connection: keep-alive\r\n", "keep-alive"), (b"", None)):
        reader, writer = await connect(running.address)
        writer.write(b"GET /v2/ HTTP/1.0\r\nHost: a\r\n" + keeps + b"\r\n")
        assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.0 200")
        lines = [line.lower() async for line in _head_lines(reader)]
        assert any(line == b"connection: keep-alive" for line in lines) == (told is not None)
        writer.close()
    assert begun == [False, False]


async def test_what_is_no_request_is_counted_and_logged_under_an_id(small_plane: Plane) -> None:
    counted: list[tuple[Any, ...]] = []
    lines: list[tuple[Any, ...]] = []

    def log(method: str, path: str, status: int, seconds: float, **more: Any) -> None:
        lines.append((method, path, status, more["origin"].request_id, more["origin"].address))

    def observe(*request: Any) -> None:
        counted.append(request[:3])

    async with served(small_plane, observe=observe, access_log=log) as running:
        for sent, status in ((b"nonsense\r\n\r\n", 400), (b"GET /v2/ HTTP/1.1\r\nX: " + b"x" * 80_000, 431)):
            reader, writer = await connect(running.address)
            writer.write(sent + b"\r\n\r\n")
            answer = await asyncio.wait_for(hear(reader, "GET"), 5)
            assert answer.status == status
            assert counted.pop() == ("unknown", "other", status)
            assert lines.pop() == ("other", "-", status, answer["X-Request-Id"], "127.0.0.1")
            writer.close()


@pytest.mark.parametrize("size", [4 << 20, 300_000])
async def test_a_client_that_takes_nothing_is_cut(
    small_plane: Plane, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Whether it waits for its answer, has one in the buffer of an idle connection, or is being closed."""
    monkeypatch.setattr("tenure.registry.answering.STALL", 0.3)

    async def large(plane: Plane, request: Request) -> Answer:
        return Answer(200, {"Content-Type": "text/plain"}, b"x" * size)

    route = routes._BY_PATTERN[routes.MANIFEST]["GET"]
    monkeypatch.setitem(routes._BY_PATTERN[routes.MANIFEST], "GET", replace(route, handler=large))
    async with served(small_plane, limits=Limits(keep_alive=0.5)) as running:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            files = len(os.listdir("/proc/self/fd"))
            host, _, port = running.address.removeprefix("http://").rpartition(":")
            client.connect((host, int(port)))
            client.sendall(head(running.address, "GET", "/v2/a/manifests/v1", []) * 3)
            await until(lambda: running.server.connections)
            await until(lambda: not running.server.connections and running.server.inflight() == 0)
            await until(lambda: len(os.listdir("/proc/self/fd")) <= files)


async def _head_lines(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while line := (await reader.readline()).strip():
        yield line
