"""The oracle of the fault runs finds what is planted: it would be worth nothing if it could only agree."""

import asyncio
import os
import random
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from faults.machines import LARGE, SMALL, Installation, installation
from faults.pushing import Client, Tally
from helpers.oracle import Content, Image, Ledger, facts, judge, unnamed
from helpers.s3 import S3Server
from tenure.core.digest import Digest
from tenure.storage.blobs.s3_client import connect, new_session

NOBODYS = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


@dataclass(slots=True)
class Found:
    """A registry in which some images were pushed without any fault, and what the oracle says of it."""

    system: Installation
    ledger: Ledger

    async def complaints(self) -> list[str]:
        store = await self.system.inventory()
        known = await facts(self.system.database_url)
        return await judge(self.system.replicas[0].url, self.ledger) + unnamed(known, store)


@pytest.fixture(scope="module")
async def small(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Found]:
    """One for all: every test takes back what it planted."""
    async with installation(SMALL, tmp_path_factory.mktemp("oracle")) as system:
        yield await filled(system)


async def filled(system: Installation) -> Found:
    ledger, tally = Ledger(), Tally()
    client = Client(0, random.Random(5), lambda: [system.replicas[0].url], ledger, tally)
    for number in range(3):
        assert await client.push(number)
    assert tally.odd == []
    found = Found(system, ledger)
    assert await found.complaints() == []
    return found


@contextmanager
def altered(system: Installation) -> Iterator[Path]:
    """The file of the largest blob, put right again at the end."""
    assert system.folder is not None
    files = [path for path in (system.folder / "blobs/b").rglob("*") if path.is_file()]
    path = max(files, key=lambda path: path.stat().st_size)
    content = path.read_bytes()
    try:
        yield path
    finally:
        path.write_bytes(content)


@contextmanager
def planted(system: Installation, name: str) -> Iterator[None]:
    assert system.folder is not None
    path = system.folder / "blobs" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"nobody's")
    try:
        yield
    finally:
        path.unlink()


@contextmanager
def changed(system: Installation, statement: str, undo: str) -> Iterator[None]:
    for text in (statement, undo):
        assert system.folder is not None
        with closing(sqlite3.connect(system.folder / "tenure.db", timeout=30)) as file, file:
            file.execute(text)
        if text is statement:
            yield


async def test_a_lost_object_is_found(small: Found) -> None:
    with altered(small.system) as path:
        path.unlink()
        complaints = await small.complaints()
    assert any("can be pulled, but blob" in one for one in complaints), complaints
    assert any("was acknowledged; HEAD says" in one for one in complaints)
    assert any("is LIVE with" in one for one in complaints)


async def test_one_wrong_byte_is_found(small: Found) -> None:
    with altered(small.system) as path:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        complaints = await small.complaints()
    assert any("was acknowledged; HEAD says 200, GET 200" in one for one in complaints), complaints


async def test_a_cut_object_is_found(small: Found) -> None:
    with altered(small.system) as path:
        os.truncate(path, path.stat().st_size - 1)
        complaints = await small.complaints()
    assert any("was acknowledged; HEAD says" in one for one in complaints), complaints
    assert any("is LIVE with" in one for one in complaints)


@pytest.mark.parametrize("where", [f"b/ab/{NOBODYS}", f"tmp/{NOBODYS}"])
async def test_an_object_that_nobody_named_is_found(small: Found, where: str) -> None:
    with planted(small.system, where):
        (complaint,) = await small.complaints()
    assert complaint.startswith(where) and "names it" in complaint


async def test_an_object_that_outlived_its_delete_is_found(small: Found) -> None:
    row = f"INSERT INTO objects (key, state) VALUES ('b/ab/{NOBODYS}', 5)"
    undo = f"DELETE FROM objects WHERE key = 'b/ab/{NOBODYS}'"
    with changed(small.system, row, undo), planted(small.system, f"b/ab/{NOBODYS}"):
        (complaint,) = await small.complaints()
    assert complaint.startswith(f"b/ab/{NOBODYS}")


async def test_a_lost_tag_is_found(small: Found) -> None:
    tag = small.ledger.images[0].tag
    with changed(
        small.system,
        f"UPDATE tags SET name = 'elsewhere' WHERE name = '{tag}'",
        f"UPDATE tags SET name = '{tag}' WHERE name = 'elsewhere'",
    ):
        await asyncio.sleep(1.1)  # rows are remembered for a second
        (complaint,) = await small.complaints()
    assert f":{tag} was acknowledged and pulls by tag as 404" in complaint
    await asyncio.sleep(1.1)


async def test_a_tag_that_is_not_where_its_mover_was_told_is_found(small: Found) -> None:
    (name, moves) = next(iter(small.ledger.moves.items()))
    moves.append((Digest.of(b"told, and lost"), True))
    (complaint,) = await small.complaints()
    moves.pop()
    assert complaint.startswith(f"{name[0]}:{name[1]} points at")


async def test_half_an_unacknowledged_image_is_found(small: Found) -> None:
    whole = small.ledger.images[0]
    missing = Content("never sent", 500)
    blobs = {**whole.blobs, Digest.of(missing.make()): missing}
    small.ledger.images.append(Image(whole.repository, whole.tag, whole.made, blobs))
    (complaint,) = await small.complaints()
    small.ledger.images.pop()
    assert "can be pulled, but blob" in complaint


async def test_losses_in_a_bucket_are_found(tmp_path: Path) -> None:
    async with installation(LARGE, tmp_path) as system:
        found = await filled(system)
        assert system.bucket is not None
        server: S3Server = system.bucket.server
        async with connect(new_session(), "tenure", server.settings) as client:
            await client.put_object(Bucket="tenure", Key=f"registry/b/ab/{NOBODYS}", Body=b"nobody's")
            upload = await client.create_multipart_upload(Bucket="tenure", Key=f"registry/b/ac/{NOBODYS}")
            await client.upload_part(
                Bucket="tenure", Key=upload["Key"], UploadId=upload["UploadId"], PartNumber=1, Body=b"nobody's"
            )
            unnamed_object, unnamed_parts = await found.complaints()
            assert "no row of `objects` names it" in unnamed_object
            assert "has 1 parts and no row" in unnamed_parts
            listed = await client.list_objects_v2(Bucket="tenure", Prefix="registry/b/")
            largest = max(listed["Contents"], key=lambda item: item["Size"])
            await client.delete_object(Bucket="tenure", Key=largest["Key"])
            complaints = await found.complaints()
            assert any("can be pulled, but blob" in one for one in complaints)
            assert any("is LIVE with" in one for one in complaints)
