"""What is killed and started again: replicas of Tenure on fixed ports, Postgres, a store in a folder or a bucket."""

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from helpers.fault_proxy import FaultProxy, fault_proxy
from helpers.oracle import Inventory, bucket_inventory, folder_inventory
from helpers.postgres import PostgresServer
from helpers.s3 import S3Server, create_bucket, seaweedfs
from helpers.tenure_process import free_port
from helpers.wire import exchange

#: seconds a server may take to answer after its start, beside everything else that runs here
_START_LIMIT = 90.0
_STOP_LIMIT = 60.0
_BUCKET = "tenure"
SMALL, LARGE = "sqlite-folder", "postgres-s3"
#: what both profiles run with: dead claims end soon, stalled clients too, and the worker looks often
SETTINGS = {
    "TENURE_PUSH_UPLOAD_CLAIM": "2s",
    "TENURE_PUSH_IDLE_TIMEOUT": "4s",
    "TENURE_GC_SWEEP": "1s",
    "TENURE_GC_POLL": "1s",
    "TENURE_SERVER_DRAIN": "5s",
    "TENURE_LOG_FORMAT": "json",
}


class Replica:
    """One Tenure process; the address stays when it comes back.

    `folder` is where it runs, and its data directory unless `data` is another; `command` goes before its own.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, str], command: tuple[str, ...] = (), *, data: Path | None = None
    ) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{self.address}"
        self.log = folder.with_suffix(".log")
        self.data = data or folder
        self._folder = folder
        clean = {name: text for name, text in os.environ.items() if not name.startswith("TENURE_")}
        self._environment = {**clean, **settings}
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Until it answers. RuntimeError with the end of its log when it does not."""
        self._process = process = self._launch()
        loop = asyncio.get_running_loop()
        ends = loop.time() + _START_LIMIT
        while loop.time() < ends and process.poll() is None:
            with contextlib.suppress(OSError, EOFError, IndexError, TimeoutError):
                async with asyncio.timeout(5):
                    if (await exchange(self.url, "GET", "/v2/")).status == 200:
                        return
            await asyncio.sleep(0.05)
        said = self.log.read_text(errors="replace")[-4000:]
        raise RuntimeError(f"Tenure does not serve (exit code {process.poll()}):\n{said}")

    def _launch(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "tenure", "serve", "--listen", self.address, "--data-dir", str(self.data)]
        with self.log.open("ab") as output:
            return subprocess.Popen(
                [*self._command, *command], env=self._environment, cwd=self._folder, stdout=output, stderr=output
            )

    def kill(self) -> None:
        """As a power cut does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def end(self) -> int:
        """As an upgrade does; the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self._process.wait, _STOP_LIMIT)


class Bucket:
    """SeaweedFS that can be killed and comes back with the same ports and data."""

    def __init__(self, server: S3Server) -> None:
        self.server = server
        proc = Path(f"/proc/{server.pid}")
        self._command = proc.joinpath("cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        self._folder = proc.joinpath("cwd").readlink()
        self._pid = server.pid
        self._process: subprocess.Popen[bytes] | None = None

    def kill(self) -> None:
        if self._process is None:
            # Its own starter collects it at the end.
            os.kill(self._pid, signal.SIGKILL)
        else:
            self._process.kill()
            self._process.wait()

    async def start(self) -> None:
        self._process = self._launch()
        loop = asyncio.get_running_loop()
        ends = loop.time() + _START_LIMIT
        while loop.time() < ends:
            with contextlib.suppress(OSError, EOFError, IndexError, TimeoutError):
                async with asyncio.timeout(5):
                    if (await exchange(self.server.endpoint, "GET", "/")).status == 403:
                        return
            await asyncio.sleep(0.1)
        raise RuntimeError("SeaweedFS does not come back")

    def _launch(self) -> "subprocess.Popen[bytes]":
        with (self._folder / "weed.log").open("ab") as log:
            return subprocess.Popen(self._command, cwd=self._folder, stdout=log, stderr=log, start_new_session=True)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@dataclass(slots=True)
class Installation:
    """A registry with everything it leans on. Clients go through `proxies`, one for each replica."""

    profile: str
    replicas: list[Replica]
    database_url: str
    inventory: Callable[[], Awaitable[Inventory]]
    proxies: list[FaultProxy] = field(default_factory=list)
    store_proxy: FaultProxy | None = None
    postgres: PostgresServer | None = None
    bucket: Bucket | None = None
    folder: Path | None = None

    def tear(self, rng: random.Random) -> str:
        """What a power cut may do to files whose owner is dead: bytes behind what was acknowledged are any bytes.

        Only with a folder and SQLite; says what was done.
        """
        assert self.folder is not None
        done = []
        database = self.folder / "tenure.db"
        safe = _acknowledged(database)
        for path in sorted((self.folder / "blobs/tmp").glob("*")):
            offset, size = safe.get(path.name, 0), path.stat().st_size
            if size > offset and rng.random() < 0.7:
                os.truncate(path, rng.randint(offset, size))
                with path.open("ab") as file:
                    file.write(rng.randbytes(rng.choice([0, 100, 5000])))
                done.append(f"{path.name} {size}->{path.stat().st_size}")
        wal = database.with_name("tenure.db-wal")
        if wal.exists() and rng.random() < 0.7:
            with wal.open("ab") as file:
                file.write(rng.randbytes(rng.randint(1, 9000)))
            done.append("garbage behind the end of the WAL")
        return ", ".join(done) or "nothing to tear"


def _acknowledged(database: Path) -> dict[str, int]:
    """File name of each unfinished object -> bytes that a client was told of. Read from a copy: a reader of the
    original would write to its WAL."""
    with contextlib.closing(sqlite3.connect(":memory:")) as copy:
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as original:
            original.backup(copy)
        rows = copy.execute("SELECT o.key, u.byte_offset FROM uploads u JOIN objects o ON o.id = u.object_id")
        return {key.rpartition("/")[2]: offset for key, offset in rows}


@asynccontextmanager
async def installation(
    profile: str, folder: Path, *, replicas: int = 1, settings: Mapping[str, str] | None = None
) -> AsyncIterator[Installation]:
    """Everything running, empty; ended and removed when the block ends."""
    async with AsyncExitStack() as stack:
        opened = _small(folder, settings or {}) if profile == SMALL else _large(folder, replicas, settings or {})
        made = await stack.enter_async_context(opened)
        for replica in made.replicas:
            stack.callback(replica.kill)
            await replica.start()
            host, port = replica.address.split(":")
            made.proxies.append(await stack.enter_async_context(fault_proxy(host, int(port))))
        yield made


@asynccontextmanager
async def _small(folder: Path, settings: Mapping[str, str]) -> AsyncIterator[Installation]:
    data = folder / "data"
    yield Installation(
        SMALL,
        [Replica(data, {**SETTINGS, **settings})],
        f"sqlite:///{data}/tenure.db",
        lambda: asyncio.to_thread(folder_inventory, data / "blobs"),
        folder=data,
    )


@asynccontextmanager
async def _large(folder: Path, replicas: int, settings: Mapping[str, str]) -> AsyncIterator[Installation]:
    async with AsyncExitStack() as stack:
        postgres = await asyncio.to_thread(PostgresServer, durable=True)
        stack.callback(postgres.stop)
        server = await asyncio.to_thread(stack.enter_context, _seaweedfs(folder / "store"))
        bucket = Bucket(server)
        stack.callback(bucket.stop)
        await create_bucket(server, _BUCKET)
        there = urlsplit(server.endpoint)
        proxy = await stack.enter_async_context(fault_proxy(there.hostname or "", there.port or 0))
        url = f"s3://{_BUCKET}/registry"
        common = {
            **SETTINGS,
            "TENURE_DATABASE_URL": postgres.url(),
            "TENURE_BLOBS_URL": url,
            "TENURE_S3_ENDPOINT": proxy.endpoint,
            "TENURE_S3_ACCESS_KEY": server.access_key,
            "TENURE_S3_SECRET_KEY": server.secret_key,
            # The least there is, so that images of a few megabytes are made of parts.
            "TENURE_S3_PART_SIZE": "5MiB",
            **settings,
        }
        yield Installation(
            LARGE,
            [Replica(folder / f"replica{number}", common) for number in range(replicas)],
            postgres.url(),
            lambda: bucket_inventory(server.settings, url),
            store_proxy=proxy,
            postgres=postgres,
            bucket=bucket,
        )


@contextlib.contextmanager
def _seaweedfs(folder: Path) -> Iterator[S3Server]:
    folder.mkdir(parents=True)
    with seaweedfs(folder) as server:
        yield server
