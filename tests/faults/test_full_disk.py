"""A disk that fills: new uploads are refused before it is full, and when it is full all the same nothing breaks.

As root the disk is a tmpfs of its own, mounted by the test. Other users may not mount: for them the limit is one
that the real disk does not satisfy, and the full disk is RLIMIT_FSIZE, beyond which no file of the process grows.
"""

import asyncio
import contextlib
import json
import os
import random
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from faults.machines import Replica
from helpers.oci import put_image, refusal
from helpers.wire import Heard, exchange
from tenure.core.digest import Digest
from tenure.core.errors import Denied
from tenure.storage.room import Room, free

MIB = 1 << 20
AS_ROOT = os.geteuid() == 0
#: the disk, and what is kept free of it: running uploads may fill it up to an eighth of that
DISK, FREE_MIN = 96 * MIB, 48 * MIB
#: for users who cannot mount: no file of the process grows beyond this
LARGEST_FILE = 24 * MIB


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of its own for root, a folder for others."""
    folder.mkdir()
    if not AS_ROOT:
        yield folder
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
async def replica(tmp_path: Path) -> AsyncIterator[Replica]:
    with small_disk(tmp_path / "disk") as disk:
        limit = () if AS_ROOT else ("prlimit", f"--fsize={LARGEST_FILE}", "--")
        settings = {"TENURE_BLOBS_FREE_MIN": str(FREE_MIN), "TENURE_GC_SWEEP": "1s", "TENURE_GC_POLL": "1s"}
        replica = Replica(tmp_path / "work", settings, limit, data=disk / "data")
        try:
            await replica.start()
            yield replica
        finally:
            replica.kill()


async def begin(base: str, name: str = "app/new") -> str:
    answer = await exchange(base, "POST", f"/v2/{name}/blobs/uploads/", sent=b"")
    assert answer.status == 202, answer
    return answer["Location"]


def unfinished(replica: Replica) -> int:
    """Bytes that lie in tmp/."""
    return sum(path.stat().st_size for path in (replica.data / "blobs/tmp").iterdir())


async def looks_again() -> None:
    await asyncio.sleep(1.1)  # what the file system answered is good for a second


def sentence(answer: Heard) -> str:
    said: str = json.loads(answer.body)["errors"][0]["message"]
    return said


async def test_new_uploads_are_refused_before_the_disk_is_full(tmp_path: Path) -> None:
    """On whatever disk the tests run: it has never twice as much free as it has free."""
    replica = Replica(tmp_path / "work", {"TENURE_BLOBS_FREE_MIN": str(2 * free(tmp_path))})
    try:
        await replica.start()
        for query in ("", f"?digest={Digest.of(b'more')}"):
            answer = await exchange(replica.url, "POST", f"/v2/app/new/blobs/uploads/{query}", sent=b"more")
            assert refusal(answer) == (403, "DENIED")
            assert "blobs.free_min" in sentence(answer)
        assert (await exchange(replica.url, "GET", "/v2/")).status == 200
    finally:
        replica.kill()


async def test_the_limit_looks_at_the_emptiest_and_can_be_switched_off(tmp_path: Path) -> None:
    now = 0.0
    room = Room([tmp_path], 2 * free(tmp_path), lambda: now)
    with pytest.raises(Denied, match=r"blobs\.free_min keeps"):
        await room.check()
    for least, folders in ((0, [tmp_path]), (1, []), (1, [tmp_path]), (1 << 60, [tmp_path / "not there"])):
        await Room(folders, least).check()


async def test_a_full_disk_stops_uploads_and_nothing_else(replica: Replica) -> None:
    base = replica.url
    old, doomed = [await put_image(base, f"app/{name}", "v1", seed=name) for name in ("old", "doomed")]
    running = await begin(base)
    first, large = random.Random(1).randbytes(300_000), random.Random(2).randbytes(DISK)
    assert (await exchange(base, "PATCH", running, sent=first)).status == 202
    waiting = await begin(base)

    answer = await exchange(base, "PATCH", running, chunks=pieces(large))
    assert refusal(answer) == (503, "UNAVAILABLE")
    assert "disk that holds the blobs is full" in sentence(answer)
    # The half of it is given back; what was acknowledged before is there.
    assert unfinished(replica) == len(first)
    assert (await exchange(base, "GET", running))["Range"] == f"0-{len(first) - 1}"
    rest = b"the rest"
    closed = await exchange(base, "PUT", f"{running}?digest={Digest.of(first + rest)}", sent=rest)
    assert closed.status == 201
    digest = await put_at(base, waiting, b"small")
    assert (await exchange(base, "GET", f"/v2/app/new/blobs/{digest}")).body == b"small"
    assert (await exchange(base, "DELETE", f"/v2/app/doomed/manifests/{doomed.digest}")).status == 202
    assert (await exchange(base, "GET", "/v2/app/old/manifests/v1")).body == old.payload


@pytest.mark.parametrize("left", [0, FREE_MIN // 16, FREE_MIN // 2])
async def test_a_disk_that_others_fill(replica: Replica, left: int) -> None:
    """Up to the last byte: the process serves pulls, refuses pushes in words and goes on when there is room again."""
    base = replica.url
    old, doomed = [await put_image(base, f"app/{name}", "v1", seed=name) for name in ("old", "doomed")]
    running = await begin(base)
    with filled(replica, left):
        if AS_ROOT:
            await looks_again()
            answer = await exchange(base, "POST", "/v2/app/new/blobs/uploads/", sent=b"")
            assert refusal(answer) == (403, "DENIED")
        large = random.Random(2).randbytes(DISK)
        answer = await exchange(base, "PUT", f"{running}?digest={Digest.of(large)}", chunks=pieces(large))
        assert answer.status == 503 and "full" in sentence(answer), answer
        assert unfinished(replica) == 0
        for reference in ("v1", old.digest):
            assert (await exchange(base, "GET", f"/v2/app/old/manifests/{reference}")).body == old.payload
        layer = json.loads(old.payload)["layers"][0]["digest"]
        assert (await exchange(base, "GET", f"/v2/app/old/blobs/{layer}")).status == 200
        deleted = await exchange(base, "DELETE", f"/v2/app/doomed/manifests/{doomed.digest}")
        # Others may leave the database not a byte to note the delete in.
        assert deleted.status == 202 or (left == 0 and deleted.status == 503), deleted
        if deleted.status == 503:
            assert "disk" in sentence(deleted)
    await looks_again()
    assert (await put_image(base, "app/after", "v1", seed="after")).payload
    digest = await put_at(base, running, b"the same session")
    assert (await exchange(base, "GET", f"/v2/app/new/blobs/{digest}")).status == 200


@contextlib.contextmanager
def filled(replica: Replica, left: int) -> Iterator[None]:
    if not AS_ROOT:
        yield  # RLIMIT_FSIZE is the disk's end
        return
    ballast = replica.data.parent / "ballast"
    fill(ballast, left)
    try:
        yield
    finally:
        ballast.unlink()


def fill(ballast: Path, left: int) -> None:
    """What other programs write."""
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while (size := free(ballast.parent) - left) > 0:
            file.write(bytes(min(size, 1 << 20)))


async def put_at(base: str, location: str, content: bytes) -> Digest:
    digest = Digest.of(content)
    closed = await exchange(base, "PUT", f"{location}?digest={digest}", sent=content)
    assert closed.status == 201, closed
    return digest


def pieces(content: bytes) -> list[bytes]:
    return [content[at : at + (1 << 20)] for at in range(0, len(content), 1 << 20)]
