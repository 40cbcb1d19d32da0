"""The server below the handlers: framing, limits, refusals before bodies, and the traps of its library."""

import asyncio
import gzip
import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from helpers.oci import put_blob, put_image, refusal
from helpers.serving import served
from helpers.wire import Heard, connect, exchange, head, hear
from tenure.core.clock import SECOND
from tenure.core.digest import Digest
from tenure.core.errors import Denied, Unauthorized
from tenure.core.origin import Origin
from tenure.registry import answering, routes
from tenure.registry.http import Answer, Elsewhere, Request, Stream
from tenure.registry.plane import Plane
from tenure.registry.server import ORIGIN, Limits, make_server
from tenure.registry.settings import PushSettings
from tenure.storage.settings import Duration

PUT = b"PUT /v2/a/manifests/b HTTP/1.1\r\nHost: a\r\n"
ZERO = f"sha256:{'0' * 64}"


@asynccontextmanager
async def on_one_connection(base: str) -> AsyncIterator[Any]:
    """Requests one after the other on a kept connection."""
    reader, writer = await connect(base)

    async def ask(method: str, target: str, *headers: tuple[str, str], sent: bytes = b"") -> Heard:
        length = [("Content-Length", str(len(sent)))] if sent else []
        writer.write(head(base, method, target, [*headers, *length]) + sent)
        return await asyncio.wait_for(hear(reader, method), 10)

    yield ask
    writer.close()


async def raw(base: str, sent: bytes) -> bytes:
    """All that comes back for these bytes until the connection ends."""
    reader, writer = await connect(base)
    writer.write(sent)
    got = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return got


def parsed(answer: bytes) -> Heard:
    top, _, body = answer.partition(b"\r\n\r\n")
    lines = top.decode("latin-1").split("\r\n")
    headers = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines[1:]}
    return Heard(int(lines[0].split()[1]), headers, body)


def handled_by(monkeypatch: pytest.MonkeyPatch, handler: Any) -> None:
    """Let GET and HEAD of blobs be answered by `handler`."""
    for method in ("GET", "HEAD"):
        route = routes._BY_PATTERN[routes.BLOB][method]
        monkeypatch.setitem(routes._BY_PATTERN[routes.BLOB], method, replace(route, handler=handler, small=False))


async def test_head_sends_no_body_and_keeps_the_connection_in_step(base: str) -> None:
    made = await put_image(base, "team/app", "v1")
    blob = await put_blob(base, "team/app", b"bytes of a blob")
    async with on_one_connection(base) as ask:
        for target in ("manifests/v1", f"manifests/{made.digest}", f"blobs/{blob}", "tags/list", f"referrers/{ZERO}"):
            seen = await ask("HEAD", f"/v2/team/app/{target}")
            got = await ask("GET", f"/v2/team/app/{target}")
            assert (seen.status, got.status) == (200, 200)
            assert seen["Content-Length"] == str(len(got.body))
            assert seen["Content-Type"] == got["Content-Type"]


async def test_a_refused_head_has_the_length_of_the_refusal_and_no_body(small: str) -> None:
    async with on_one_connection(small) as ask:
        seen = await ask("HEAD", "/v2/team/app/manifests/v1")
        got = await ask("GET", "/v2/team/app/manifests/v1")
        assert refusal(got) == (404, "NAME_UNKNOWN")
        assert (seen.status, seen["Content-Length"]) == (404, str(len(got.body)))


async def test_a_refusal_comes_instead_of_100_continue(small: str) -> None:
    expects = [("Expect", "100-continue"), ("Content-Length", "5000000")]
    reader, writer = await connect(small)
    writer.write(head(small, "PUT", "/v2/team/app/manifests/v1", expects))
    answer = await hear(reader, "PUT")
    assert refusal(answer) == (413, "MANIFEST_INVALID")
    assert answer["Connection"] == "close"
    writer.close()


async def test_100_continue_is_sent_when_the_body_is_wanted(small: str) -> None:
    reader, writer = await connect(small)
    expects = [("Expect", "100-continue"), ("Content-Length", "2")]
    writer.write(head(small, "PUT", "/v2/team/app/manifests/v1", expects))
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 Continue")
    writer.write(b"[]")
    assert refusal(await hear(reader, "PUT")) == (400, "MANIFEST_INVALID")
    writer.close()


async def test_a_large_body_that_nobody_wants_ends_the_connection_after_the_answer(small_plane: Plane) -> None:
    async with served(small_plane, limits=Limits(linger=0.3)) as running:
        reader, writer = await connect(running.address)
        writer.write(head(running.address, "PUT", "/v2/a/manifests/v1", [("Content-Length", "900000000")]))
        writer.write(b"x" * 100_000)
        started = time.monotonic()
        answer = await hear(reader, "PUT")
        assert refusal(answer) == (413, "MANIFEST_INVALID")
        assert answer["Connection"] == "close"
        assert await asyncio.wait_for(reader.read(), 5) == b""
        assert time.monotonic() - started < 3
        writer.close()


async def test_a_small_body_that_nobody_wants_keeps_the_connection(small: str) -> None:
    async with on_one_connection(small) as ask:
        for _ in range(3):
            assert refusal(await ask("PUT", "/v2/UPPER/manifests/v1", sent=b"x" * 5000)) == (400, "NAME_INVALID")
        assert (await ask("GET", "/v2/")).status == 200


async def test_a_gzip_body_is_taken_as_the_bytes_it_is(base: str) -> None:
    content = b"plain text " * 100
    sent = gzip.compress(content)
    encoding = [("Content-Encoding", "gzip")]
    target = "/v2/team/app/blobs/uploads/?digest="
    wrong = await exchange(base, "POST", f"{target}{Digest.of(content)}", encoding, sent=sent)
    assert refusal(wrong) == (400, "DIGEST_INVALID")
    right = await exchange(base, "POST", f"{target}{Digest.of(sent)}", encoding, sent=sent)
    assert right.status == 201
    broken = await exchange(base, "PUT", "/v2/team/app/manifests/v1", encoding, sent=b"\x1f\x8bnot gzip")
    assert refusal(broken) == (400, "MANIFEST_INVALID")


async def test_a_token_of_60_kilobytes_passes_and_a_larger_one_is_refused_in_json(small: str) -> None:
    fits = await exchange(small, "GET", "/v2/", [("Authorization", "Bearer " + "t" * 60_000)])
    assert fits.status == 200
    answer = parsed(await raw(small, head(small, "GET", "/v2/", [("Authorization", "t" * 70_000)])))
    assert refusal(answer) == (431, "UNSUPPORTED")
    assert answer["Connection"] == "close"


@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello\r\n\r\n", 400, "HTTPS traffic on an HTTP port"),
        (b"GET /v2/ HTTP/1.1\r\nno colon here\r\n\r\n", 400, "header token"),
        (b"GET /v2/ HTTP/1.1\r\nX-A: a\x00b\r\n\r\n", 400, "header value"),
        (b"GET /v2/ HTTP/1.1\r\n\r\n", 400, "Missing 'Host' header"),
        (b"GET /v2/" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431, "longer than 16384 bytes"),
        (b"GET /v2/ HTTP/1.1\r\n" + b"X-A: b\r\n" * 300 + b"\r\n", 431, "too many headers"),
        (PUT + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "not valid HTTP"),
        (PUT + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400, "Content-Length"),
        (PUT + b"Content-Length: -1\r\n\r\n{}", 400, "Content-Length"),
        (PUT + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, "Transfer-Encoding"),
        (b"G\xffT /v2/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "method"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_is_not_http_is_answered_in_json_and_the_connection_ends(
    small: str, sent: bytes, status: int, said: str
) -> None:
    answer = parsed(await raw(small, sent))
    assert refusal(answer) == (status, "UNSUPPORTED")
    assert answer["Connection"] == "close"
    assert said in json.loads(answer.body)["errors"][0]["message"]
    assert b"no colon here" not in answer.body


async def test_broken_chunks_are_refused_at_once(small_plane: Plane) -> None:
    async with served(small_plane) as running:
        framing = [("Transfer-Encoding", "chunked")]
        reader, writer = await connect(running.address)
        writer.write(head(running.address, "PUT", "/v2/a/manifests/v1", framing) + b"2\r\n{}\r\n")
        await asyncio.sleep(0.1)
        writer.write(b"this is no length\r\n")
        answer = parsed(await asyncio.wait_for(reader.read(), 5))
        assert refusal(answer) == (400, "UNSUPPORTED")
        assert running.server.inflight() == 0
        writer.close()


async def test_a_body_that_breaks_before_its_answer_and_that_nobody_wants_is_no_failure_of_ours(
    small_plane: Plane, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    go_on = asyncio.Event()

    async def slow(plane: Plane, request: Request) -> Answer:
        await go_on.wait()
        return Answer(200)

    handled_by(monkeypatch, slow)
    async with served(small_plane) as running:
        reader, writer = await connect(running.address)
        framing = [("Transfer-Encoding", "chunked")]
        writer.write(head(running.address, "GET", f"/v2/a/blobs/{ZERO}", framing) + b"2\r\n{}\r\n")
        await until(lambda: running.server.inflight() == 1)
        writer.write(b"this is no length\r\n")
        await asyncio.sleep(0.05)
        go_on.set()
        assert (await asyncio.wait_for(hear(reader, "GET"), 5)).status == 200
        assert await asyncio.wait_for(reader.read(), 5) == b""
        assert not [record for record in caplog.records if record.levelname == "ERROR"]
        writer.close()


async def test_no_answer_tells_versions(small: str) -> None:
    for target in ("/v2/", "/v2/UPPER/tags/list", "/elsewhere"):
        answer = await exchange(small, "GET", target)
        assert answer["Server"] == "Tenure"
        assert answer["Docker-Distribution-Api-Version"] == "registry/2.0"


async def test_repeated_header_lines_are_one_list(small: str) -> None:
    made = await put_image(small, "team/app", "v1")
    lines = [("If-None-Match", f'"{ZERO}"'), ("If-None-Match", f'"{made.digest}"')]
    assert (await exchange(small, "GET", "/v2/team/app/manifests/v1", lines)).status == 304


async def test_a_client_that_goes_away_in_mid_body_is_no_failure_of_ours(small_plane: Plane) -> None:
    seen: list[tuple[str, int]] = []

    def observe(label: str, method: str, status: int, seconds: float, received: int, sent: int) -> None:
        seen.append((label, status))

    async with served(small_plane, observe=observe) as running:
        reader, writer = await connect(running.address)
        writer.write(head(running.address, "PUT", "/v2/a/manifests/v1", [("Content-Length", "1000")]) + b"half")
        await asyncio.sleep(0.1)
        writer.close()
        await until(lambda: seen)
        assert seen == [("manifest", 499)]
        assert reader is not None


async def test_a_client_that_sends_nothing_is_answered_and_let_go(small_plane: Plane) -> None:
    plane = replace(small_plane, push=PushSettings(idle_timeout=Duration(SECOND // 5)))
    async with served(plane, limits=Limits(linger=0.1)) as running:
        reader, writer = await connect(running.address)
        writer.write(head(running.address, "PUT", "/v2/a/manifests/v1", [("Content-Length", "1000")]) + b"half")
        answer = parsed(await asyncio.wait_for(reader.read(), 5))
        assert refusal(answer) == (408, "UNSUPPORTED")
        assert answer["Connection"] == "close"
        writer.close()


async def test_beyond_the_limit_a_request_is_refused_before_anything_is_read(small_plane: Plane) -> None:
    async with served(small_plane, limits=Limits(max_requests=1)) as running:
        reader, writer = await connect(running.address)
        writer.write(head(running.address, "PUT", "/v2/a/manifests/v1", [("Content-Length", "1000")]))
        await until(lambda: running.server.inflight() == 1)
        expects = [("Expect", "100-continue"), ("Content-Length", "10")]
        second, more = await connect(running.address)
        more.write(head(running.address, "PUT", "/v2/a/manifests/v1", expects))
        answer = await hear(second, "PUT")
        assert refusal(answer) == (429, "TOOMANYREQUESTS")
        assert int(answer["Retry-After"]) > 0
        writer.close()
        more.close()
        await until(lambda: running.server.inflight() == 0)
        assert (await exchange(running.address, "GET", "/v2/")).status == 200
        assert reader is not None


async def test_a_draining_server_asks_its_clients_to_go(small_plane: Plane) -> None:
    app = web.Application()
    app.router.add_get("/livez", _hello)
    async with served(small_plane, admin_app=app) as running:
        async with on_one_connection(running.address) as ask:
            assert "connection" not in (await ask("GET", "/v2/")).headers
            running.server.draining = True
            assert (await ask("GET", "/v2/"))["Connection"] == "close"
        async with on_one_connection(running.address) as ask:
            assert (await ask("GET", "/livez"))["Connection"] == "close"


async def test_a_request_id_is_echoed_or_made(small: str) -> None:
    assert (await exchange(small, "GET", "/v2/", [("X-Request-Id", "abc-1")]))["X-Request-Id"] == "abc-1"
    made = [(await exchange(small, "GET", "/v2/", [("X-Request-Id", bad)]))["X-Request-Id"] for bad in ("", "a b", "é")]
    assert len(set(made)) == 3
    assert not {"", "a b", "é"} & set(made)


async def test_an_unexpected_exception_is_500_without_internals(
    small: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def broken(plane: Plane, request: Request) -> Answer:
        raise KeyError("internal name")

    handled_by(monkeypatch, broken)
    answer = await exchange(small, "GET", f"/v2/a/blobs/{ZERO}", [("X-Request-Id", "find-me")])
    assert refusal(answer) == (500, "UNKNOWN")
    assert b"internal name" not in answer.body
    assert b"find-me" in answer.body
    assert "internal name" in "".join(capsys.readouterr())


async def test_a_stream_that_breaks_off_ends_the_connection(small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []

    async def chunks() -> AsyncIterator[bytes]:
        try:
            yield b"x" * 1000
        finally:
            closed.append(True)

    async def short(plane: Plane, request: Request) -> Stream:
        return Stream(200, {}, 5000, chunks())

    handled_by(monkeypatch, short)
    reader, writer = await connect(small)
    writer.write(head(small, "GET", f"/v2/a/blobs/{ZERO}", []))
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await asyncio.wait_for(hear(reader, "GET"), 5)
    writer.close()
    assert closed == [True]
    closed.clear()
    seen = await exchange(small, "HEAD", f"/v2/a/blobs/{ZERO}")
    assert (seen.status, seen["Content-Length"]) == (200, "5000")


async def test_a_redirect_is_307_with_its_address(small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def elsewhere(plane: Plane, request: Request) -> Elsewhere:
        return Elsewhere("https://store.test/key?X-Amz-Signature=1", {"Docker-Content-Digest": ZERO})

    handled_by(monkeypatch, elsewhere)
    answer = await exchange(small, "GET", f"/v2/a/blobs/{ZERO}")
    assert (answer.status, answer["Location"]) == (307, "https://store.test/key?X-Amz-Signature=1")
    assert (answer["Content-Length"], answer["Docker-Content-Digest"]) == ("0", ZERO)


async def test_a_reader_that_takes_nothing_is_cut(small_plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "STALL", 0.2)
    async with served(small_plane) as running:
        digest = await put_blob(running.address, "a", b"y" * 20_000_000)
        reader, writer = await connect(running.address)
        writer.write(head(running.address, "GET", f"/v2/a/blobs/{digest}", []))
        await until(lambda: running.server.inflight() == 1)
        await until(lambda: running.server.inflight() == 0)
        writer.close()
        assert reader is not None


async def test_a_file_is_whole_over_tls(small_plane: Plane, tmp_path: Any) -> None:
    server_side, client_side = _certificates(tmp_path)
    content = bytes(range(256)) * 20_000
    async with served(small_plane) as plain:
        digest = await put_blob(plain.address, "a", content)
        whole = await exchange(plain.address, "GET", f"/v2/a/blobs/{digest}")
        assert whole.body == content
    async with served(small_plane, tls=server_side) as running:
        port = int(running.address.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_side, server_hostname="localhost")
        for headers, wanted in (([], content), ([("Range", "bytes=1000-2000999")], content[1000:2_001_000])):
            writer.write(head(running.address, "GET", f"/v2/a/blobs/{digest}", headers))
            answer = await asyncio.wait_for(hear(reader, "GET"), 10)
            assert answer.body == wanted
        writer.close()
        await writer.wait_closed()


async def test_each_request_is_observed_once(small_plane: Plane) -> None:
    seen: list[tuple[str, str, int, int, int]] = []
    lines: list[tuple[str, str, int]] = []

    def observe(label: str, method: str, status: int, seconds: float, received: int, sent: int) -> None:
        assert 0 < seconds < 60
        seen.append((label, method, status, received, sent))

    def line(method: str, path: str, status: int, seconds: float, **more: Any) -> None:
        assert more["origin"].address == "127.0.0.1"
        lines.append((method, path, status))

    app = web.Application()
    app.router.add_get("/livez", _hello)
    app.router.add_get("/page", _hello)
    async with served(small_plane, observe=observe, access_log=line, admin_app=app) as running:
        digest = await put_blob(running.address, "a", b"twelve bytes")
        await exchange(running.address, "GET", f"/v2/a/blobs/{digest}?token=secret")
        await exchange(running.address, "HEAD", f"/v2/a/blobs/{digest}")
        for target in ("/v2/a/nonsense", "/livez", "/page", "/none"):
            await exchange(running.address, "GET", target)
    assert seen[:3] == [
        ("uploads", "POST", 201, 12, 0),
        ("blob", "GET", 200, 0, 12),
        ("blob", "HEAD", 200, 0, 0),
    ]
    assert [(label, status) for label, _, status, _, _ in seen[3:]] == [
        ("unknown", 404), ("admin", 200), ("admin", 200), ("admin", 404),
    ]  # fmt: skip
    assert [path for _, path, _ in lines] == [
        "/v2/a/blobs/uploads/", f"/v2/a/blobs/{digest}", f"/v2/a/blobs/{digest}", "/v2/a/nonsense", "/page", "/none",
    ]  # fmt: skip


async def test_the_application_beside_gets_everything_but_the_data_plane(small_plane: Plane) -> None:
    async def who(request: web.Request) -> web.Response:
        origin = request[ORIGIN]
        return web.Response(text=f"{origin.address} {origin.request_id} {(await request.read()).decode()}")

    async def fails(request: web.Request) -> web.Response:
        raise ValueError("internal name")

    app = web.Application()
    app.router.add_post("/api/v1/echo", who)
    app.router.add_get("/v2x", who)
    app.router.add_get("/fails", fails)
    async with served(small_plane, admin_app=app) as running:
        base = running.address
        answer = await exchange(base, "POST", "/api/v1/echo", [("X-Request-Id", "r1")], sent=b"hello")
        assert (answer.status, answer.body) == (200, b"127.0.0.1 r1 hello")
        assert answer["Server"] == "Tenure"
        assert (await exchange(base, "GET", "/v2x")).status == 200
        assert (await exchange(base, "GET", "/v2")).body == b"{}"
        failed = await exchange(base, "GET", "/fails")
        assert refusal(failed) == (500, "UNKNOWN")
        assert b"internal" not in failed.body
        absolute = await raw(base, b"GET http://registry.test/v2/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert parsed(absolute).body == b"{}"


@pytest.mark.parametrize("refused", [Unauthorized(), Denied("no right to push here")])
async def test_access_is_asked_before_a_handler_or_a_body(small_plane: Plane, refused: Exception) -> None:
    asked: list[tuple[str, str | None]] = []

    class Gate:
        def check(self, origin: Origin, action: str, repository: str | None) -> None:
            asked.append((action, repository))
            if action == "push":
                raise refused

    async with served(small_plane, access=Gate()) as running:
        base = running.address
        expects = [("Expect", "100-continue")]
        answer = await exchange(base, "PUT", "/v2/team/app/manifests/v1", expects, sent=b"")
        assert refusal(answer)[0] in (401, 403)
        await exchange(base, "GET", "/v2/")
        await exchange(base, "DELETE", "/v2/team/app/manifests/v1")
        assert asked == [("push", "team/app"), ("pull", None), ("delete", "team/app")]


async def test_only_trusted_proxies_speak_for_others(small_plane: Plane) -> None:
    async def who(request: web.Request) -> web.Response:
        return web.Response(text=request[ORIGIN].address or "-")

    headers = [("X-Forwarded-For", "6.6.6.6, 203.0.113.9, 10.0.0.1"), ("X-Forwarded-Proto", "https")]
    for trusted, wanted in (((), "127.0.0.1"), (("127.0.0.0/8", "10.0.0.0/8"), "203.0.113.9")):
        app = web.Application()
        app.router.add_get("/who", who)
        async with served(small_plane, admin_app=app, trusted_proxies=trusted) as running:
            assert (await exchange(running.address, "GET", "/who", headers)).body.decode() == wanted


async def test_idle_connections_end_after_the_keep_alive_time(small_plane: Plane) -> None:
    async with served(small_plane, limits=Limits(keep_alive=0.2)) as running:
        reader, writer = await connect(running.address)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_a_small_request_costs_little(small_plane: Plane) -> None:
    """A bound that only a mistake can break: a regular expression for each route, a thread for each request."""
    async with served(small_plane) as running:
        reader, writer = await connect(running.address)
        sent = head(running.address, "GET", "/v2/", [])
        for _ in range(200):
            writer.write(sent)
            await hear(reader, "GET")
        count = 1000
        started = time.process_time()
        for _ in range(count // 10):
            writer.write(sent * 10)
            for _ in range(10):
                await reader.readuntil(b"\r\n\r\n{}")
        assert (time.process_time() - started) / count < 0.001
        writer.close()


async def test_the_server_needs_the_names_of_aiohttp_that_it_uses(small_plane: Plane) -> None:
    """An upgrade that moves them must fail here and not in production."""
    server = make_server(small_plane, admin_app=web.Application())
    connection = server()
    assert connection._current_request is None
    assert not connection._messages
    assert callable(web.Application._make_handler)


async def _hello(request: web.Request) -> web.Response:
    return web.Response(text="hello")


async def until(true: Any) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


def _certificates(folder: Any) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts of a server called localhost and of a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    day = timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    chain, private = folder / "cert.pem", folder / "key.pem"
    chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(chain, private)
    client_side = ssl.create_default_context(cafile=str(chain))
    return server_side, client_side
