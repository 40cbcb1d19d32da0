"""Two replicas on one Postgres and one store, as processes: nothing is known to one that the other lacks."""

import asyncio
import contextlib
import json
import os
import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from helpers.planes import new_store
from helpers.postgres import PostgresServer
from helpers.s3 import S3Server
from helpers.tenure_process import NotServing, Serving, tenure
from helpers.wire import Heard, connect, exchange, head
from tenure.core.digest import Digest

CONTENT = random.Random(17).randbytes(13_000_000)
DIGEST = Digest.of(CONTENT)
FIRST, SECOND = 6_000_000, 9_000_000


@dataclass(frozen=True, slots=True)
class Pair:
    """Two replicas, and what a third needs to join them."""

    one: str
    two: str
    settings: dict[str, str]


@pytest.fixture(scope="module", params=["bucket", "folder"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("replicas")
    with contextlib.ExitStack() as stack:
        postgres = PostgresServer()
        stack.callback(postgres.stop)
        settings = {"TENURE_DATABASE_URL": postgres.url(), "TENURE_PUSH_UPLOAD_CLAIM": "2s"}
        if request.param == "folder":
            settings["TENURE_BLOBS_URL"] = f"file://{folder}/shared"
        else:
            settings |= bucket(request.getfixturevalue("s3_server"))
        one, two = (stack.enter_context(tenure(folder / n, settings, folder / f"{n}.log")) for n in ("one", "two"))
        yield Pair(address(one), address(two), settings)


def bucket(server: S3Server) -> dict[str, str]:
    return {
        "TENURE_BLOBS_URL": asyncio.run(new_store(server)),
        "TENURE_S3_ENDPOINT": server.endpoint,
        "TENURE_S3_ACCESS_KEY": server.access_key,
        "TENURE_S3_SECRET_KEY": server.secret_key,
    }


def address(serving: Serving) -> str:
    return f"http://{serving.address}"


async def start(base: str, name: str) -> str:
    answer = await exchange(base, "POST", f"/v2/{name}/blobs/uploads/", sent=b"")
    assert answer.status == 202
    return answer["Location"]


async def closed(base: str, location: str, sent: bytes = b"", digest: Digest = DIGEST) -> None:
    answer = await exchange(base, "PUT", f"{location}?digest={digest}", sent=sent)
    assert (answer.status, answer["Docker-Content-Digest"]) == (201, str(digest))


async def upload(base: str, name: str, content: bytes) -> Digest:
    digest = Digest.of(content)
    await closed(base, await start(base, name), content, digest)
    return digest


async def blob(base: str, method: str, name: str, digest: Digest = DIGEST) -> Heard:
    return await exchange(base, method, f"/v2/{name}/blobs/{digest}")


async def test_an_upload_wanders_between_replicas(pair: Pair) -> None:
    location = await start(pair.one, "app/wandering")
    first = await exchange(pair.two, "PATCH", location, sent=CONTENT[:FIRST])
    assert (first.status, first["Range"]) == (202, f"0-{FIRST - 1}")
    assert (await exchange(pair.one, "GET", location))["Range"] == f"0-{FIRST - 1}"
    second = await exchange(pair.one, "PATCH", first["Location"], chunks=[CONTENT[FIRST:SECOND]])
    assert second["Range"] == f"0-{SECOND - 1}"
    await exchange(pair.two, "PATCH", location, sent=CONTENT[SECOND : SECOND + 300_001])
    await closed(pair.one, location, CONTENT[SECOND + 300_001 :])
    for base in (pair.one, pair.two):
        assert (await blob(base, "GET", "app/wandering")).body == CONTENT


async def test_expectation_15_what_one_replica_acknowledged_every_replica_has(pair: Pair) -> None:
    """docker asks with HEAD right after each PUT; the next step of a pipeline pulls at once."""
    for number in range(15):
        content = b"%d" % number
        config = json.dumps({"n": number}).encode()
        writer, reader = (pair.one, pair.two) if number % 2 else (pair.two, pair.one)
        # The negative answer must not be remembered.
        assert (await blob(reader, "HEAD", "app/after", Digest.of(content))).status == 404
        for each in (content, config):
            digest = await upload(writer, "app/after", each)
            assert (await blob(reader, "HEAD", "app/after", digest)).status == 200
            assert (await blob(reader, "GET", "app/after", digest)).body == each
        payload = manifest(config, content)
        await put_manifest(writer, "app/after", "latest", payload)
        assert (await exchange(reader, "GET", "/v2/app/after/manifests/latest")).body == payload


async def test_a_delete_on_one_is_404_on_the_other_at_once(pair: Pair) -> None:
    for number in range(5):
        content = b"to be deleted %d" % number
        config = b'{"deleted": %d}' % number
        for each in (content, config):
            await upload(pair.one, "app/deleted", each)
        payload = manifest(config, content)
        await put_manifest(pair.one, "app/deleted", "v1", payload)
        digest = Digest.of(payload)
        for base in (pair.one, pair.two):
            assert (await exchange(base, "GET", f"/v2/app/deleted/manifests/{digest}")).body == payload
        assert (await exchange(pair.two, "DELETE", f"/v2/app/deleted/manifests/{digest}")).status == 202
        for reference in (digest, "v1"):
            assert (await exchange(pair.one, "GET", f"/v2/app/deleted/manifests/{reference}")).status == 404
        assert (await exchange(pair.one, "DELETE", f"/v2/app/deleted/blobs/{Digest.of(content)}")).status == 202
        for method in ("HEAD", "GET", "DELETE"):
            assert (await blob(pair.two, method, "app/deleted", Digest.of(content))).status == 404


async def test_a_cancelled_upload_is_unknown_to_both(pair: Pair) -> None:
    location = await start(pair.one, "app/cancelled")
    await exchange(pair.two, "PATCH", location, sent=b"hello")
    assert (await exchange(pair.one, "DELETE", location)).status == 204
    for method in ("GET", "PATCH", "DELETE"):
        assert (await exchange(pair.two, method, location, sent=b"")).status == 404


async def test_a_mount_on_one_is_seen_by_the_other(pair: Pair) -> None:
    digest = await upload(pair.one, "app/source", b"mounted")
    answer = await exchange(pair.two, "POST", f"/v2/app/target/blobs/uploads/?mount={digest}&from=app/source", sent=b"")
    assert answer.status == 201
    assert (await blob(pair.one, "GET", "app/target", digest)).body == b"mounted"


async def test_an_upload_outlives_the_replica_that_began_it(pair: Pair, tmp_path: Path) -> None:
    """Killed in the middle of the second chunk: everything up to the end of the first is still there."""
    with contextlib.suppress(NotServing), tenure(tmp_path / "data", pair.settings, tmp_path / "log") as doomed:
        base = address(doomed)
        location = await start(base, "app/outlived")
        first = await exchange(base, "PATCH", location, sent=CONTENT[:FIRST])
        assert first.status == 202
        _, writer = await connect(base)
        writer.write(head(base, "PATCH", location, [("Content-Length", str(SECOND - FIRST))]))
        writer.write(CONTENT[FIRST : FIRST + 2_000_000])
        await writer.drain()
        await asyncio.sleep(0.3)
        os.kill(doomed.pid, signal.SIGKILL)
        await asyncio.sleep(0.1)
        writer.close()
    status = await exchange(pair.one, "GET", location)
    assert (status.status, status["Range"]) == (204, f"0-{FIRST - 1}")
    # The dead one's claim still runs: the request waits for its end instead of failing.
    second = await exchange(
        pair.two,
        "PATCH",
        location,
        [("Content-Range", f"{FIRST}-{SECOND - 1}")],
        sent=CONTENT[FIRST:SECOND],
    )
    assert (second.status, second["Range"]) == (202, f"0-{SECOND - 1}")
    await closed(pair.one, location, CONTENT[SECOND:])
    assert (await blob(pair.two, "GET", "app/outlived")).body == CONTENT


def manifest(config: bytes, layer: bytes) -> bytes:
    def descriptor(content: bytes, media_type: str) -> dict[str, object]:
        return {"mediaType": media_type, "digest": str(Digest.of(content)), "size": len(content)}

    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor(config, "application/vnd.oci.image.config.v1+json"),
            "layers": [descriptor(layer, "application/vnd.oci.image.layer.v1.tar")],
        }
    ).encode()


async def put_manifest(base: str, name: str, reference: str, payload: bytes) -> None:
    answer = await exchange(
        base,
        "PUT",
        f"/v2/{name}/manifests/{reference}",
        [("Content-Type", "application/vnd.oci.image.manifest.v1+json")],
        sent=payload,
    )
    assert answer.status == 201
