"""Tenure on its two profiles, whole: the process, and where needed a real Postgres and a real S3 store beside it."""

import asyncio
import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from helpers.postgres import PostgresServer
from helpers.s3 import create_bucket, seaweedfs
from helpers.tenure_process import tenure

PROFILES = ("sqlite-folder", "postgres-s3")
_BUCKET = "tenure"


@dataclass(frozen=True, slots=True)
class Profile:
    """Tenure, answering. `beside` are the servers it leans on, by name; `database_url` is "" for SQLite."""

    address: str
    pid: int
    beside: Mapping[str, int] = field(default_factory=dict)
    database_url: str = ""


@contextlib.contextmanager
def profile(name: str, settings: Mapping[str, str], log: Path) -> Iterator[Profile]:
    """Starts one of PROFILES, empty, in a temporary folder, with `settings` besides. Raises NotServing."""
    with tempfile.TemporaryDirectory(prefix=f"tenure-{name}-") as scratch:
        folder = Path(scratch)
        running = _large(folder, settings, log) if name == "postgres-s3" else _small(folder, settings, log)
        with running as profile:
            yield profile


@contextlib.contextmanager
def _small(folder: Path, settings: Mapping[str, str], log: Path) -> Iterator[Profile]:
    with tenure(folder / "data", settings, log) as serving:
        yield Profile(serving.address, serving.pid)


@contextlib.contextmanager
def _large(folder: Path, settings: Mapping[str, str], log: Path) -> Iterator[Profile]:
    store_folder = folder / "store"
    store_folder.mkdir()
    with contextlib.ExitStack() as stack:
        # Durable, as it would be in earnest: what a commit costs belongs to what is measured.
        postgres = PostgresServer(durable=True)
        stack.callback(postgres.stop)
        store = stack.enter_context(seaweedfs(store_folder))
        asyncio.run(create_bucket(store, _BUCKET))
        url = postgres.url()
        stores = {
            "TENURE_DATABASE_URL": url,
            "TENURE_BLOBS_URL": f"s3://{_BUCKET}/registry",
            "TENURE_S3_ENDPOINT": store.endpoint,
            "TENURE_S3_ACCESS_KEY": store.access_key,
            "TENURE_S3_SECRET_KEY": store.secret_key,
        }
        serving = stack.enter_context(tenure(folder / "data", {**stores, **settings}, log))
        yield Profile(serving.address, serving.pid, {"postgres": postgres.pid, "seaweedfs": store.pid}, url)
