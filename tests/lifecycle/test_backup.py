"""Backup and restore, for real: taken while pushes run, restored into new places, served, everything pulled back.

The order is the promise: facts first, bytes afterwards. Bytes are written before the facts that name them and are
removed after them, so that what the copied facts name is still there, or is there already, when bytes are copied.
"""

import asyncio
import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import pytest

from helpers.images import Made
from helpers.oci import put_image
from helpers.planes import new_store
from helpers.postgres import PostgresServer
from helpers.s3 import S3Server
from helpers.tenure_process import tenure
from helpers.wire import exchange
from tenure.core.digest import Digest
from tenure.storage.blobs.s3_client import connect, new_session

#: images acknowledged before the backup begins
BEFORE = 20
#: pushes that run while it is taken
PUSHERS = 3


@dataclass(slots=True)
class Pushed:
    """What a registry has acknowledged, by tag."""

    images: dict[str, Made] = field(default_factory=dict)

    async def push(self, base: str, seed: str) -> None:
        made = await put_image(base, "app/backed-up", seed, seed=seed)
        self.images[seed] = made


@contextlib.asynccontextmanager
async def pushing(base: str, pushed: Pushed) -> AsyncIterator[None]:
    """Pushes without a pause for as long as the block runs, and at least one before it begins and one as it ends."""
    stop, first = asyncio.Event(), asyncio.Event()

    async def work(number: int) -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            await pushed.push(base, f"during-{number}-{turn}")
            first.set()

    tasks = [asyncio.create_task(work(number)) for number in range(PUSHERS)]
    await first.wait()
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*tasks)


async def whole(base: str, tag: str, made: Made) -> None:
    """A pull: the manifest's bytes, and the bytes of everything it names."""
    answer = await exchange(base, "GET", f"/v2/app/backed-up/manifests/{tag}")
    assert (answer.status, answer.body) == (200, made.payload), tag
    for named in names(made):
        content = await exchange(base, "GET", f"/v2/app/backed-up/blobs/{named}")
        assert content.status == 200 and str(Digest.of(content.body)) == named, (tag, named)


def names(made: Made) -> list[str]:
    body = json.loads(made.payload)
    return [body["config"]["digest"], *(layer["digest"] for layer in body["layers"])]


async def everything_comes_back(base: str, before: dict[str, Made], after: dict[str, Made]) -> None:
    """What was acknowledged before is whole; of the rest each tag is whole or not there at all; and pushes work."""
    for tag, made in before.items():
        await whole(base, tag, made)
    listed = await exchange(base, "GET", "/v2/app/backed-up/tags/list")
    tags = set(json.loads(listed.body)["tags"])
    assert set(before) <= tags <= set(before) | set(after)
    for tag in tags - set(before):
        await whole(base, tag, after[tag])
    again = Pushed()
    await again.push(base, "after-the-restore")
    await whole(base, "after-the-restore", again.images["after-the-restore"])
    # What came after the backup can be pushed again over whatever bytes of it were copied along.
    for tag in sorted(set(after) - tags)[:5]:
        await again.push(base, tag)
        await whole(base, tag, again.images[tag])


def copied_database(source: Path, target: Path) -> None:
    """One consistent state of a SQLite database that a server is writing to: what `.backup` of its shell does."""
    # Read only: a backup needs no right to change anything. The server's lock is on another file.
    with (
        contextlib.closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as live,
        contextlib.closing(sqlite3.connect(target)) as copy,
    ):
        live.backup(copy)


def vacuumed_into(source: Path, target: Path) -> None:
    """The same by a statement; over a read-only connection SQLite 3.40 fails on columns that are made of others."""
    with contextlib.closing(sqlite3.connect(source)) as live:
        live.execute("VACUUM INTO ?", (str(target),))


def copied_folder(source: Path, target: Path) -> None:
    """As rsync and cp do it while files come and go: one that is gone by then is not missed."""
    ran = subprocess.run(["cp", "-R", str(source), str(target)], capture_output=True, text=True, check=False)
    gone = [line for line in ran.stderr.splitlines() if "No such file or directory" not in line]
    assert gone == [], ran.stderr


@pytest.mark.parametrize("copied", [copied_database, vacuumed_into])
async def test_sqlite_and_a_folder_are_backed_up_while_pushes_run(
    tmp_path: Path, copied: Callable[[Path, Path], None]
) -> None:
    source, target = tmp_path / "source", tmp_path / "restored"
    before, during = Pushed(), Pushed()
    with tenure(source, {}, tmp_path / "source.log") as serving:
        base = f"http://{serving.address}"
        for number in range(BEFORE):
            await before.push(base, f"before-{number}")
        async with pushing(base, during):
            at_first = len(during.images)
            target.mkdir()
            await asyncio.to_thread(copied, source / "tenure.db", target / "tenure.db")
            await asyncio.sleep(0.3)
            await asyncio.to_thread(copied_folder, source / "blobs", target / "blobs")
        assert len(during.images) > at_first, "nothing was pushed meanwhile"
    shutil.rmtree(source)
    with tenure(target, {}, tmp_path / "target.log") as serving:
        await everything_comes_back(f"http://{serving.address}", before.images, during.images)


async def test_the_other_order_loses_bytes_that_facts_name(tmp_path: Path) -> None:
    """Bytes first and facts afterwards: what was pushed between the two is named and not there."""
    source, target = tmp_path / "source", tmp_path / "restored"
    between = Pushed()
    with tenure(source, {}, tmp_path / "source.log") as serving:
        base = f"http://{serving.address}"
        await put_image(base, "app/backed-up", "before", seed="before")
        target.mkdir()
        copied_folder(source / "blobs", target / "blobs")
        await between.push(base, "between")
        copied_database(source / "tenure.db", target / "tenure.db")
    with tenure(target, {}, tmp_path / "target.log") as serving:
        base = f"http://{serving.address}"
        made = between.images["between"]
        assert (await exchange(base, "GET", "/v2/app/backed-up/manifests/between")).body == made.payload
        with pytest.raises(AssertionError):
            await whole(base, "between", made)


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer(durable=True)
    yield server
    server.stop()


def program(server: PostgresServer, name: str) -> str:
    """A tool of the same version, from beside the server."""
    return str(Path(os.readlink(f"/proc/{server.pid}/exe")).with_name(name))


def dumped(server: PostgresServer, file: Path) -> None:
    """With the pg_dump that came with this server."""
    command = [program(server, "pg_dump"), "--format=custom", f"--file={file}", server.url()]
    subprocess.run(command, check=True, capture_output=True)


def restored(server: PostgresServer, file: Path, database: str) -> str:
    """Into a new, empty database; its URL."""
    url = urlunsplit(urlsplit(server.url())._replace(path=f"/{database}"))
    subprocess.run(
        [program(server, "psql"), "--quiet", f"--command=CREATE DATABASE {database}", server.url()],
        check=True, capture_output=True,
    )  # fmt: skip
    command = [program(server, "pg_restore"), "--exit-on-error", "--no-owner", f"--dbname={url}", str(file)]
    subprocess.run(command, check=True, capture_output=True)
    return url


async def copied_bucket(server: S3Server, source: str, target: str) -> int:
    """Every object below one prefix to another bucket, as `aws s3 sync` does; how many."""
    places = [urlsplit(url) for url in (source, target)]
    (from_bucket, from_prefix), (to_bucket, to_prefix) = ((at.netloc, at.path.strip("/")) for at in places)
    count = 0
    async with connect(new_session(), "", server.settings) as client:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=from_bucket, Prefix=f"{from_prefix}/")
        async for page in pages:
            for item in page.get("Contents", ()):
                key = to_prefix + item["Key"].removeprefix(from_prefix)
                with contextlib.suppress(client.exceptions.NoSuchKey):
                    answer = await client.get_object(Bucket=from_bucket, Key=item["Key"])
                    async with answer["Body"] as body:
                        await client.put_object(Bucket=to_bucket, Key=key, Body=await body.read())
                    count += 1
    return count


async def test_postgres_and_a_bucket_are_backed_up_while_pushes_run(
    postgres: PostgresServer, s3_server: S3Server, tmp_path: Path
) -> None:
    source, target = await new_store(s3_server), await new_store(s3_server)
    store = {
        "TENURE_S3_ENDPOINT": s3_server.endpoint,
        "TENURE_S3_ACCESS_KEY": s3_server.access_key,
        "TENURE_S3_SECRET_KEY": s3_server.secret_key,
    }
    settings = {**store, "TENURE_DATABASE_URL": postgres.url(), "TENURE_BLOBS_URL": source}
    before, during = Pushed(), Pushed()
    with tenure(tmp_path / "one", settings, tmp_path / "one.log") as serving:
        base = f"http://{serving.address}"
        for number in range(BEFORE):
            await before.push(base, f"before-{number}")
        async with pushing(base, during):
            at_first = len(during.images)
            await asyncio.to_thread(dumped, postgres, tmp_path / "facts.dump")
            await asyncio.sleep(0.3)
            assert await copied_bucket(s3_server, source, target) >= 2 * BEFORE
        assert len(during.images) > at_first, "nothing was pushed meanwhile"
    url = await asyncio.to_thread(restored, postgres, tmp_path / "facts.dump", f"restored_{uuid4().hex}")
    settings = {**store, "TENURE_DATABASE_URL": url, "TENURE_BLOBS_URL": target}
    with tenure(tmp_path / "two", settings, tmp_path / "two.log") as serving:
        await everything_comes_back(f"http://{serving.address}", before.images, during.images)
